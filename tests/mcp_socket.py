"""A client of MCP over WebSocket that knows as little as it can, and starts as quickly."""

import itertools
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from tests.waiting import within

Json = dict[str, Any]
INITIALIZE: Json = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


@dataclass
class RawClient:
    """A WebSocket and nothing else."""

    socket: aiohttp.ClientWebSocketResponse
    told: list[Json] = field(default_factory=list[Json])
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    async def send(self, method: str, params: Mapping[str, object] | None = None) -> int:
        """Send a request; its id."""
        number = next(self.numbers)
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}
        await self.socket.send_json(message)
        return number

    async def notify(self, method: str, params: Mapping[str, object] | None = None) -> None:
        await self.socket.send_json({"jsonrpc": "2.0", "method": method, "params": params or {}})

    async def receive(self) -> Json:
        """The next message of any kind."""
        return await within(self.socket.receive_json())

    async def request(self, method: str, params: Mapping[str, object] | None = None) -> Json:
        """The whole answer to a request; notifications before it go to `told`."""
        number = await self.send(method, params)
        while (message := await self.receive()).get("id") != number:
            self.told.append(message)
        return message

    async def result(self, method: str, params: Mapping[str, object] | None = None) -> Json:
        answer = await self.request(method, params)
        assert "result" in answer, answer
        return answer["result"]

    async def initialize(self) -> Json:
        result = await self.result("initialize", INITIALIZE)
        await self.notify("notifications/initialized")
        return result

    async def closed(self) -> tuple[int | None, str]:
        """The close code and reason, once the server has closed."""
        while True:
            frame = await within(self.socket.receive())
            if frame.type is aiohttp.WSMsgType.CLOSE:
                return int(frame.data), str(frame.extra)
            if frame.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                return self.socket.close_code, ""


@asynccontextmanager
async def raw_client(url: str, token: str) -> AsyncGenerator[RawClient]:
    """Connected, not initialized."""
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as http:
        socket = await http.ws_connect(url, headers=headers, protocols=["mcp"], max_msg_size=0)
        yield RawClient(socket)
        await socket.close()
