"""The least that speaks MCP over HTTP and over a WebSocket: what the protocol asks for, no SDK."""

import itertools
import json
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp

Json = dict[str, Any]

_MODERN = "2026-07-28"
_HANDSHAKE = "2025-06-18"
_CLIENT = {"name": "bench", "version": "1"}


@dataclass(slots=True)
class ModernClient:
    """Calls tools by single requests, as the stateless revision has them."""

    http: aiohttp.ClientSession
    url: str
    token: str
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def call(self, tool: str, **arguments: object) -> Json:
        """Call a tool; its result. Raises ValueError for an error."""
        prefix = "io.modelcontextprotocol"
        meta = {
            f"{prefix}/protocolVersion": _MODERN,
            f"{prefix}/clientInfo": _CLIENT,
            f"{prefix}/clientCapabilities": {},
        }
        params = {"name": tool, "arguments": arguments, "_meta": meta}
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": _MODERN,
            "Mcp-Method": "tools/call",
            "Mcp-Name": tool,
        }
        body = _request(next(self._numbers), "tools/call", params)
        async with self.http.post(self.url, json=body, headers=headers) as response:
            return _result(cast("Json", await response.json(content_type=None)))


@dataclass(slots=True)
class SessionClient:
    """A client of the older revisions: it shakes hands and keeps a session."""

    http: aiohttp.ClientSession
    url: str
    token: str
    _session: str = ""

    async def open(self) -> None:
        """Shake hands."""
        hello = {"protocolVersion": _HANDSHAKE, "capabilities": {}, "clientInfo": _CLIENT}
        await self._post(_request(0, "initialize", hello))
        await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def call(self, tool: str, **arguments: object) -> Json:
        """Call a tool; its result. Raises ValueError for an error."""
        body = _request(1, "tools/call", {"name": tool, "arguments": arguments})
        return _result(await self._post(body))

    async def _post(self, body: Json) -> Json:
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": _HANDSHAKE,
        }
        headers |= {"Mcp-Session-Id": self._session} if self._session else {}
        async with self.http.post(self.url, json=body, headers=headers) as response:
            self._session = response.headers.get("Mcp-Session-Id", self._session)
            if response.content_type == "text/event-stream":
                return _first_event(await response.text())
            text = await response.text()
            if response.status >= 300:
                raise ValueError(f"HTTP {response.status}: {text[:200]}")
            return cast("Json", await response.json(content_type=None)) if text else {}


async def open_websocket(
    http: aiohttp.ClientSession, url: str, token: str
) -> aiohttp.ClientWebSocketResponse:
    """A WebSocket on which the handshake is done."""
    headers = {"Authorization": f"Bearer {token}"}
    socket = await http.ws_connect(url, headers=headers, protocols=("mcp",), compress=0)
    hello = {"protocolVersion": _HANDSHAKE, "capabilities": {}, "clientInfo": _CLIENT}
    await socket.send_json(_request(0, "initialize", hello))
    _result(cast("Json", await socket.receive_json(timeout=30)))
    await socket.send_json({"jsonrpc": "2.0", "method": "notifications/initialized"})
    return socket


def _request(number: int, method: str, params: Json) -> Json:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def _result(answer: Json) -> Json:
    result = cast("Json", answer.get("result") or {})
    if "error" in answer or result.get("isError"):
        raise ValueError(f"an MCP call failed: {str(answer)[:300]}")
    return result


def _first_event(text: str) -> Json:
    for line in text.splitlines():
        if line.startswith("data:") and line[5:].strip():
            return cast("Json", json.loads(line[5:]))
    raise ValueError("an event stream without an event")
