"""What the bridge itself can do: a homeserver that answers at once, agents in memory."""

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any

from tests.postgres import PostgresServer

from bench.bridge import Bridge
from bench.figures import at_least, at_most
from bench.ports import Ports
from bench.program import Program
from bench.scene import Scene

_PERSON = "@person:test"
_DOMAIN, _BOT = "test", "letta"


@dataclass
class _Registered:
    """The registration at the instant homeserver."""

    ports: Ports
    as_token: str = field(default_factory=lambda: secrets.token_hex(32))
    hs_token: str = field(default_factory=lambda: secrets.token_hex(32))

    def __post_init__(self) -> None:
        self.port, self.bridge_port = self.ports.take(), self.ports.take()

    def letta_settings(self) -> dict[str, Any]:
        """The sections of a config.yaml that the registration decides."""
        bridge = f"http://127.0.0.1:{self.bridge_port}"
        tokens = {"as_token": self.as_token, "hs_token": self.hs_token}
        return {
            "homeserver": {"url": f"http://127.0.0.1:{self.port}", "domain": _DOMAIN},
            "appservice": {"url": bridge, "port": self.bridge_port, **tokens},
        }


async def measure(scene: Scene) -> None:
    """With some agents, and with many."""
    for agents, turns in scene.plan.ceilings:
        await scene.attempt(f"the bridge alone, {agents:,} agents", _ceiling(scene, agents, turns))
    await scene.attempt("the bridge alone, on PostgreSQL", _on_postgres(scene))


async def _ceiling(scene: Scene, agents: int, turns: int) -> None:
    rate, cost = await _work(scene, f"ceiling-{agents}", agents, turns)
    of = f"turns a second with {agents:,} agents at a homeserver that answers at once"
    fast, cheap = (at_least(500), at_most(1.9)) if agents < 1000 else (None, None)
    scene.figures.add(f"ceiling_turns_per_s_{agents}", rate, of, fast)
    note = f"ms of CPU a turn, {agents:,} agents"
    scene.figures.add(f"cpu_ms_per_turn_{agents}", cost, note, cheap)


async def _on_postgres(scene: Scene) -> None:
    # It waits for the disk, as SQLite does.
    server = PostgresServer({"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"})
    agents, turns = scene.plan.ceilings[0]
    try:
        await asyncio.to_thread(server.start)
        database = server.settings_for(server.create())
        rate, cost = await _work(scene, "ceiling-postgres", agents, turns, database=database)
    finally:
        await asyncio.to_thread(server.remove)
    of = f"the same with {agents:,} agents and the database on a PostgreSQL server beside it"
    scene.figures.add("ceiling_postgres_turns_per_s", rate, of)
    scene.figures.add("cpu_ms_per_turn_postgres", cost, "ms of CPU a turn, without the server's")


async def _work(
    scene: Scene, name: str, agents: int, turns: int, **sections: Any
) -> tuple[float, float]:
    """Turns a second, and ms of CPU for each."""
    registered = _Registered(scene.ports)
    settings = {
        "port": registered.port,
        "bridge": f"http://127.0.0.1:{registered.bridge_port}",
        "hs_token": registered.hs_token,
        "person": _PERSON,
        "bot": f"@{_BOT}:{_DOMAIN}",
    }
    directory = scene.directory / name
    bridge = Bridge(registered, directory, scene.ports, _PERSON, scene.http)
    homeserver = Program("bench.instant_homeserver", settings, directory, scene.http)
    try:
        await homeserver.start()
        bridge.configure({"type": "memory", "agents": agents}, **sections)
        await bridge.start_ready()
        await bridge.wait_quiet()
        await _load(scene, registered.port, turns // 5)
        before = bridge.cpu_seconds
        took = await _load(scene, registered.port, turns)
        cpu = 1000 * (bridge.cpu_seconds - before) / turns
    finally:
        await bridge.end()
        homeserver.stop()
    return turns / took, cpu


async def _load(scene: Scene, port: int, turns: int) -> float:
    async with scene.http.post(f"http://127.0.0.1:{port}/load", json={"turns": turns}) as response:
        return float((await response.json())["seconds"])
