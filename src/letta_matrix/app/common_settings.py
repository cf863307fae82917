"""What the configurations of all replicas have in common, told so that these can be compared."""

import hashlib
import json
from collections.abc import Mapping

from letta_matrix import __version__
from letta_matrix.config import Config

_VERSION = "version"
_OWN = {
    "homeserver": {"url", "pid_file", "ca_file"},
    "appservice": {"hostname", "port"},
    "database": True,
    "runtimes": {
        "__all__": {
            *("url", "token", "pid_file"),
            *("keeper", "keeper_socket", "keeper_token", "keeper_token_file"),
        }
    },
    "agents": {"allow_paths"},
    "sms": {"provisioning": {"url"}},
    "api": {"hostname", "port"},
    "mcp": {"hostname", "port", "websocket_port"},
    "logging": True,
    "telemetry": True,
    "replica": {"address"},
}
"""What a replica has for itself: its ports, its files, its ways to others (which may lead through a
tunnel, or a keeper beside it), and what becomes of its words."""
_LENGTH = 12


def common_settings(config: Config) -> dict[str, str]:
    """A digest of each section of a configuration. Of secrets it knows whether they are there, and
    of the tokens of the registration, which nobody guesses, which they are."""
    dumped: dict[str, object] = config.model_dump(mode="json", exclude=_OWN)
    service = config.appservice
    tokens = [one.get_secret_value() for one in (service.as_token, service.hs_token)]
    dumped["appservice"] = [dumped["appservice"], tokens]
    return {_VERSION: __version__, **{name: _digest(part) for name, part in dumped.items()}}


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """The sections that are not the same in two configurations; none where another release, which
    has other settings, has told of one."""
    if ours[_VERSION] != theirs.get(_VERSION):
        return []
    return [name for name, digest in ours.items() if theirs.get(name) != digest]


def _digest(part: object) -> str:
    text = json.dumps(part, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]
