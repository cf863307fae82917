"""The configuration that `up` gives to the bridge."""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import yaml

from letta_matrix.common.connections.known_servers import KnownServer, server_at
from letta_matrix.common.json_fields import mapping
from letta_matrix.config import Config, ConfigError, load_config
from letta_matrix.config.yaml_text import YamlFault, read
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.files import write_private_if_changed
from letta_matrix.stack.ports import Ports
from letta_matrix.stack.registration import OURS, registration_text
from letta_matrix.stack.synapse import SERVER_NAME

PID_FILES = {"synapse": "synapse.pid", "app_server": "app-server.pid"}
"""What tells which processes these servers are, so that nobody else is told a token."""
_RUNTIME = "local"


def write_bridge_files(directory: Path, ports: Ports, admin: str, token: str) -> Config:
    """Write config.yaml and registration.yaml; what a person changed in an existing
    config.yaml stays, except where it must follow the ports and the App Server's `token`.

    Raises:
        StackError: an existing config.yaml cannot be used.
    """
    path = directory / "config.yaml"
    settings = _existing(path) or _fresh(admin)
    _follow(settings, ports, token)
    write_private_if_changed(path, yaml.safe_dump(settings, sort_keys=False))
    try:
        config = load_config(path)
    except ConfigError as error:
        raise StackError(str(error)) from None
    write_private_if_changed(directory / OURS, registration_text(config))
    return config


def known_servers(
    directory: Path, ports: Ports, tell: Callable[[str], None]
) -> dict[str, KnownServer]:
    """The servers that secrets are sent to and that listen by themselves, by the keys of
    `PID_FILES`."""
    named = {"synapse": ("Synapse", ports.synapse), "app_server": ("App Server", ports.app_server)}
    return {
        key: KnownServer(name, port, directory / PID_FILES[key], tell)
        for key, (name, port) in named.items()
    }


def known_synapse(directory: Path, url: str) -> list[KnownServer]:
    """The homeserver of the stack whose data lie in `directory`."""
    return server_at(url, directory / PID_FILES["synapse"], "homeserver")


def mcp_urls(config: Config) -> dict[str, str]:
    """Where the MCP server is, by what `stack.json` calls it."""
    return {
        "url": f"http://127.0.0.1:{config.mcp.port}/mcp",
        "ws_url": f"ws://127.0.0.1:{config.mcp.websocket_port}/mcp",
    }


def _existing(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        settings = read(path)
    except YamlFault as fault:
        raise StackError(f"{path}: is not valid YAML: {fault}") from None
    except UnicodeDecodeError:
        raise StackError(f"{path}: is not a text file in UTF-8") from None
    if not isinstance(settings, dict):
        raise StackError(f"{path}: expected sections; move it away and start again")
    return cast("dict[str, Any]", settings)


def _fresh(admin: str) -> dict[str, Any]:
    return {
        "homeserver": {"domain": SERVER_NAME},
        "appservice": {"as_token": secrets.token_hex(32), "hs_token": secrets.token_hex(32)},
        "database": {"url": "sqlite:///letta-matrix.db"},
        "runtimes": [{"type": "app_server", "name": _RUNTIME}],
        "agents": {"room_members": [admin]},
        "permissions": {SERVER_NAME: "user", admin: "admin"},
    }


def _follow(settings: dict[str, Any], ports: Ports, token: str) -> None:
    homeserver = f"http://127.0.0.1:{ports.synapse}"
    _update(settings, "homeserver", url=homeserver, pid_file=PID_FILES["synapse"])
    appservice = f"http://127.0.0.1:{ports.appservice}"
    _update(settings, "appservice", url=appservice, port=ports.appservice)
    _update(settings, "api", port=ports.api, homeserver_url=homeserver)
    _update(settings, "mcp", port=ports.mcp, websocket_port=ports.mcp_websocket)
    for runtime in cast("list[object]", settings.get("runtimes") or []):
        fields = mapping(runtime)
        if fields.get("name", _RUNTIME) == _RUNTIME and fields.get("type") == "app_server":
            url = f"ws://127.0.0.1:{ports.app_server}"
            fields |= {"url": url, "token": token, "pid_file": PID_FILES["app_server"]}


def _update(settings: dict[str, Any], section: str, **values: object) -> None:
    settings[section] = {**mapping(settings.get(section)), **values}
