"""Environment variables of the original integration: they do what they did, or it is said what
takes their place."""

from collections.abc import Mapping
from urllib.parse import urlsplit

SetBy = dict[tuple[str, ...], str]
"""The environment variable behind each path that the file did not set."""

_KEYS = {
    "MATRIX_HOMESERVER_URL": ("homeserver", "url"),
    "DEV_MODE": ("agents", "dev_mode"),
}
_ADMIN = {
    "MATRIX_ADMIN_USERNAME": ("homeserver", "admin_username"),
    "MATRIX_ADMIN_PASSWORD": ("homeserver", "admin_password"),
}
_TRUE = ("true", "1", "yes", "on")
_RUNTIME, _RUNTIME_KEY = "LETTA_API_URL", "LETTA_TOKEN"

_NO_PASSWORD = "the bridge's own user is appservice.bot_username, and needs no password"  # noqa: S105
_EVERY_AGENT = "every agent has a room of its own, and answers there"
_STREAMS = "answers are always shown as they come (conversations.edit_interval)"
_TOKENS = "programs come in with tokens (`letta-matrix tokens create`)"
_INSTEAD = {
    "MATRIX_USERNAME": _NO_PASSWORD,
    "MATRIX_PASSWORD": _NO_PASSWORD,
    "MATRIX_ROOM_ID": _EVERY_AGENT,
    "LETTA_AGENT_ID": _EVERY_AGENT,
    "LETTA_STREAMING_ENABLED": _STREAMS,
    "LETTA_STREAMING_TIMEOUT": "conversations.idle_timeout and turn_timeout end waiting",
    "MATRIX_MCP_USERNAME": _TOKENS,
    "MATRIX_MCP_PASSWORD": _TOKENS,
    "MATRIX_ADMIN_TOKEN": _TOKENS,
    "MATRIX_DATA_DIR": "the database is where database.url says",
    "MATRIX_API_URL": "the REST API is where api.hostname and api.port say",
    "MCP_HOST": "mcp.hostname",
    "MCP_PORT": "mcp.websocket_port",
    "MCP_HTTP_HOST": "mcp.hostname",
    "MCP_HTTP_PORT": "mcp.port",
}


def apply_original(data: dict[str, object], env: Mapping[str, str]) -> SetBy:
    """Let the variables stand in for keys that the file does not set."""
    set_by: SetBy = {}
    keys = _KEYS | (_ADMIN if all(map(env.get, _ADMIN)) else {})
    if env.get("DEV_MODE", "").lower() not in _TRUE:
        del keys["DEV_MODE"]
    for variable, (section, key) in keys.items():
        values = data.setdefault(section, {}) if env.get(variable) else None
        if isinstance(values, dict) and key not in values:
            values[key] = env[variable]
            set_by[section, key] = variable
    if (url := env.get(_RUNTIME)) and not data.get("runtimes"):
        runtime = runtime_at(url)
        if key := env.get(_RUNTIME_KEY):
            runtime["token" if runtime["type"] == "app_server" else "api_key"] = key
        data["runtimes"] = [runtime]
        set_by["runtimes",] = _RUNTIME
    return set_by


def replaced(env: Mapping[str, str]) -> list[str]:
    """A line for each variable that is set and has no effect: what takes its place."""
    return [f"{name} has no effect: {how}" for name, how in _INSTEAD.items() if env.get(name)]


def runtime_at(url: str) -> dict[str, object]:
    """Settings of the runtime that has such an address: WebSockets lead to an App Server, an
    address that ends with `/v1` to an OpenAI-compatible endpoint, others to a Letta API."""
    try:
        parts = urlsplit(url)
    except ValueError:
        # It is told where its key is looked at.
        parts = urlsplit("")
    if parts.scheme in ("ws", "wss"):
        return {"type": "app_server", "name": "local", "url": url}
    if parts.path.rstrip("/").endswith("/v1"):
        return {"type": "openai_compatible", "name": "openai", "url": url}
    return {"type": "letta_api", "name": "letta", "url": url}
