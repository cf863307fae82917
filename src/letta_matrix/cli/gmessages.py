"""What mautrix-gmessages is to be told about our phone line, in its own config.yaml."""

from typing import Any

import yaml

from letta_matrix.config import Config, SmsSettings

_HEADS = {
    "bridge": "# Who may use it; contacts are known by their numbers.",
    "matrix": "# What it tells of messages and contacts.",
    "provisioning": "# The same as sms.provisioning.secret.",
    "double_puppet": "# Off: the line is no person, and nobody else is to speak as it.",
    "encryption": "# Off: agents cannot read encrypted rooms.",
}


def bridge_settings(config: Config, sms: SmsSettings, *, relay: bool) -> str:
    """The sections as YAML, to be merged into what its first start has written."""
    relay = relay or sms.line is None
    sections = _sections(config, sms, relay=relay)
    parts = [
        f"{_HEADS.get(name, '')}\n{yaml.safe_dump({name: section}, sort_keys=False)}".lstrip()
        for name, section in sections.items()
    ]
    return "\n".join(parts)


def _sections(config: Config, sms: SmsSettings, *, relay: bool) -> dict[str, Any]:
    admins = [who for who, role in config.permissions.items() if role == "admin"]
    permissions = {who: "admin" for who in admins if who.startswith("@")}
    if relay:
        permissions = {config.homeserver.domain: "relay"} | permissions
    elif sms.line is not None:
        permissions[sms.line] = "user"
    bridge: dict[str, Any] = {
        "phone_numbers_in_profile": True,
        "bridge_notices": False,
        "kick_matrix_users": not relay,
        "permissions": permissions,
        "relay": {"enabled": relay},
    }
    if relay:
        texts = ("m.text", "m.notice", "m.emote")
        bridge["relay"] |= {
            "admin_only": True,
            # What goes out is the agent's word alone.
            "message_formats": dict.fromkeys(texts, "{{ .Message }}"),
        }
    found: dict[str, Any] = {
        "bridge": bridge,
        "matrix": {
            "message_status_events": True,
            "message_error_notices": True,
            "ghost_extra_profile_info": True,
            "federate_rooms": False,
        },
        "homeserver": {"domain": config.homeserver.domain, "address": config.homeserver.url},
        "double_puppet": {"servers": {}, "allow_discovery": False, "secrets": {}},
        "encryption": {"allow": False, "default": False},
        "backfill": {"enabled": False},
    }
    if sms.provisioning is not None:
        secret = sms.provisioning.secret.get_secret_value()
        found["provisioning"] = {"shared_secret": secret}
    return found
