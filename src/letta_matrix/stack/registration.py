"""The application service's registration, as the homeserver reads it.

Matrix spec, Application Service API, section "Registration".
"""

import re
from pathlib import Path

import yaml

from letta_matrix.common.identifiers import RESERVED_PREFIXES
from letta_matrix.config import Config

OURS, OTHERS = "registration.yaml", "registrations"
"""In the data folder of `up`: our own, and a folder with those of other application services."""


def registrations_in(data: Path) -> tuple[Path, ...]:
    """All that the embedded homeserver reads: other bridges may be used with it too."""
    return (data / OURS, *sorted((data / OTHERS).glob("*.yaml")))


def registration(config: Config) -> dict[str, object]:
    """The registration of `config` as the mapping that `registration.yaml` holds."""
    service = config.appservice
    domain = re.escape(config.homeserver.domain)
    return {
        "id": service.id,
        "url": service.url,
        "as_token": service.as_token.get_secret_value(),
        "hs_token": service.hs_token.get_secret_value(),
        "sender_localpart": service.bot_username,
        "rate_limited": False,
        "receive_ephemeral": False,
        "namespaces": {
            "users": [_exclusive(f"@{prefix}.*:{domain}") for prefix in RESERVED_PREFIXES],
            "aliases": [_exclusive(f"#{prefix}.*:{domain}") for prefix in RESERVED_PREFIXES],
            "rooms": [],
        },
    }


def registration_text(config: Config, **tokens: str) -> str:
    """What `registration.yaml` holds, with other `tokens` where some are given."""
    return str(yaml.safe_dump(registration(config) | tokens, sort_keys=False))


def _exclusive(regex: str) -> dict[str, object]:
    return {"exclusive": True, "regex": regex}
