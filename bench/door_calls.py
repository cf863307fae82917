"""What the doors for programs cost: the same thing done bare, by REST and by MCP, in turns."""

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote

import aiohttp

from bench.bridge import Bridge
from bench.figures import at_most, ms, p50, p95
from bench.mcp_client import ModernClient, SessionClient, open_websocket
from bench.scene import Scene

_WARM_UP = 5
_NOBODY: dict[str, object] = {}
_ROOM_FILTER = json.dumps({"types": ["m.room.message", "m.room.encrypted"]})
"""As the tools ask."""

Act = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class _Bare:
    """The client-server API as an agent's ghost, with nothing between."""

    http: aiohttp.ClientSession
    url: str
    as_token: str
    user_id: str
    room: str
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def send(self) -> None:
        number = next(self._numbers)
        # As clients write it: what `m.mentions` costs the homeserver is no door's doing.
        content = {"msgtype": "m.text", "body": f"bare {number}", "m.mentions": _NOBODY}
        await self._call("PUT", f"rooms/{quote(self.room)}/send/m.room.message/b{number}", content)

    async def read(self) -> None:
        await self._call(
            "GET", f"rooms/{quote(self.room)}/messages", dir="b", limit="10", filter=_ROOM_FILTER
        )

    async def list_rooms(self) -> None:
        """The rooms with what they are called: ids alone tell nobody anything."""
        joined = cast("list[str]", (await self._call("GET", "joined_rooms"))["joined_rooms"])
        paths = [f"rooms/{quote(room)}/state/m.room.name" for room in joined]
        await asyncio.gather(*[self._call("GET", path) for path in paths])

    async def _call(
        self, method: str, path: str, content: Mapping[str, object] | None = None, **query: str
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.as_token}"}
        url = f"{self.url}/_matrix/client/v3/{path}"
        async with self.http.request(
            method, url, json=content, params={"user_id": self.user_id, **query}, headers=headers
        ) as response:
            response.raise_for_status()
            return cast("dict[str, Any]", await response.json())


@dataclass(slots=True)
class _Rest:
    """The REST API."""

    http: aiohttp.ClientSession
    url: str
    token: str
    room: str

    async def send(self) -> None:
        await self._call("POST", f"/rooms/{quote(self.room, safe='')}/messages", {"message": "x"})

    async def read(self) -> None:
        await self._call("GET", f"/rooms/{quote(self.room, safe='')}/messages?limit=10")

    async def list_rooms(self) -> None:
        await self._call("GET", "/rooms")

    async def _call(self, method: str, path: str, body: object = None) -> None:
        headers = {"Authorization": f"Bearer {self.token}"}
        url = self.url + path
        async with self.http.request(method, url, json=body, headers=headers) as response:
            if response.status >= 300:
                raise ValueError(f"HTTP {response.status}: {(await response.text())[:300]}")
            await response.read()


async def measure(scene: Scene) -> None:
    """A bridge with one agent, its doors, and the homeserver without them."""
    bridge = scene.bridge("doors")
    try:
        bridge.configure({"type": "memory", "agents": 1}, access={"calls_per_minute": 1_000_000})
        await bridge.start_ready()
        ((agent_id, user_id, room),) = bridge.agents()
        token = await bridge.make_token("--as", agent_id)
        await bridge.wait_quiet()
        scene.figures.add("rss_mb_doors_unused", bridge.rss_mb, "RSS before any door is used")
        as_token = scene.homeserver.letta.as_token
        bare = _Bare(scene.http, scene.homeserver.url, as_token, user_id, room)
        rest = _Rest(scene.http, bridge.api_url, token, room)
        mcp = ModernClient(scene.http, bridge.mcp_url, token)
        await scene.attempt("sending by the doors", _send(scene, bare, rest, mcp))
        await scene.attempt("reading by the doors", _read(scene, bare, rest, mcp))
        await scene.attempt("listing by the doors", _list(scene, bare, rest, mcp))
        scene.figures.add("rss_mb_doors_used", bridge.rss_mb, "RSS after REST and MCP were used")
        await scene.attempt("MCP clients at once", _crowd(scene, bridge, token))
        await scene.attempt("idle WebSocket clients", _idle(scene, bridge, token))
    finally:
        await bridge.end()


async def _send(scene: Scene, bare: _Bare, rest: _Rest, mcp: ModernClient) -> None:
    def by_mcp() -> Awaitable[object]:
        return mcp.call("matrix_send_message", room_id=bare.room, message="x")

    await _compare(scene, "send", 1.15, bare.send, rest.send, by_mcp)


async def _read(scene: Scene, bare: _Bare, rest: _Rest, mcp: ModernClient) -> None:
    def by_mcp() -> Awaitable[object]:
        return mcp.call("matrix_read_room", room_id=bare.room, limit=10)

    await _compare(scene, "read", 1.2, bare.read, rest.read, by_mcp)


async def _list(scene: Scene, bare: _Bare, rest: _Rest, mcp: ModernClient) -> None:
    def by_mcp() -> Awaitable[object]:
        return mcp.call("matrix_list_rooms")

    await _compare(scene, "list", 1.2, bare.list_rooms, rest.list_rooms, by_mcp)


async def _compare(scene: Scene, what: str, bound: float, bare: Act, rest: Act, mcp: Act) -> None:
    took: dict[str, list[float]] = {"bare": [], "rest": [], "mcp": []}
    for number in range(-_WARM_UP, scene.plan.calls):
        for name, act in (("bare", bare), ("rest", rest), ("mcp", mcp)):
            seconds = await _timed(act)
            took[name] += [seconds] if number >= 0 else []
    floor = p50(took["bare"])
    scene.figures.add(f"{what}_bare_p50_ms", ms(floor), "the bare request")
    for door in ("rest", "mcp"):
        note = f"{what} by {door} / bare, medians of {len(took[door])}"
        scene.figures.add(f"{what}_{door}_ratio", p50(took[door]) / floor, note, at_most(bound))
        scene.figures.add(f"{what}_{door}_p95_ms", ms(p95(took[door])), "its 95th percentile")


async def _timed(act: Act) -> float:
    started = time.perf_counter()
    await act()
    return time.perf_counter() - started


async def _crowd(scene: Scene, bridge: Bridge, token: str) -> None:
    """Many clients that shake hands and call a tool at the same moment."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def one() -> None:
            client = SessionClient(http, bridge.mcp_url, token)
            await client.open()
            await client.call("matrix_whoami")

        started = time.perf_counter()
        count = scene.plan.mcp_clients
        outcomes = await asyncio.gather(*[one() for _ in range(count)], return_exceptions=True)
    failed = [outcome for outcome in outcomes if outcome is not None]
    note = f"of {count} MCP clients at once" + (f"; the first: {failed[0]!s:.80}" if failed else "")
    scene.figures.add("mcp_crowd_errors", len(failed), note, at_most(0))
    seconds = time.perf_counter() - started
    scene.figures.add("mcp_crowd_s", seconds, f"until all {count} had shaken hands and called")


async def _idle(scene: Scene, bridge: Bridge, token: str) -> None:
    """What a WebSocket client takes that has shaken hands and says nothing."""
    count = scene.plan.mcp_clients
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        # The first ones load what is loaded but once.
        first = [await open_websocket(http, bridge.websocket_url, token) for _ in range(10)]
        await asyncio.sleep(1)
        before = bridge.rss_mb
        others = [await open_websocket(http, bridge.websocket_url, token) for _ in range(count)]
        await asyncio.sleep(1)
        each = (bridge.rss_mb - before) * 1000 / count
        note = f"KB of RSS for each of {count} idle WebSocket clients"
        scene.figures.add("websocket_idle_kb", each, note, at_most(100))
        for socket in (*first, *others):
            await socket.close()
