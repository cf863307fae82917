"""What a bridge costs when nothing happens, and how soon it is back, with 1 and 1,000 agents."""

import contextlib
import sqlite3
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, MetaData, Table, create_engine, select

from bench.bridge import Bridge
from bench.bursts import bursts
from bench.figures import Target, at_most, p50
from bench.scene import Scene
from letta_matrix.stack.synapse import SERVER_NAME

AGENTS = 1000
_SEEDED = "!seeded"
_WAKE_REQUESTS = 2
"""The ping, and the event in the control room (docs/architecture.md)."""
_PORTAL = (
    "INSERT INTO portals (room_id, name, protocol, channel, receiver, direct, held)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_LINE_IN_IT = "INSERT INTO memberships (room_id, user_id, direct, joined_at) VALUES (?, ?, ?, ?)"


async def idle(scene: Scene, bridge: Bridge, count: int, rss: Target, note: str = "") -> None:
    """CPU and memory of a running bridge."""
    await bridge.wait_quiet()
    cpu = await bridge.cpu_percent(scene.plan.idle)
    of = f"with {count:,} agent{'s' if count > 1 else ''}{note}"
    name = f"idle_cpu_percent_{count}"
    scene.figures.add(name, cpu, f"% of a core while idle, {of}", at_most(2))
    scene.figures.add(f"rss_mb_{count}", bridge.rss_mb, f"MB resident, {of}", rss)


async def thousand_agents(scene: Scene, provisioned: Bridge) -> None:
    """Restart and idle with 1,000 agents. Most rows are seeded, here and at the homeserver, which
    has no events in those rooms: nothing is owed, which is what a restart and idling see."""
    provisioned.stop()
    bridge = scene.bridge("thousand")
    try:
        real = _seed(provisioned, bridge)
        bridge.configure({"type": "memory", "agents": AGENTS})
        note = f" ({real} provisioned, the others' rows seeded)"
        with store(bridge.database_url) as connection:
            rooms = seeded(connection)
        async with scene.homeserver.with_rooms(rooms):
            await _restarts(scene, bridge, note)
            await idle(scene, bridge, AGENTS, at_most(150), note)
            bridge.stop()
    finally:
        await bridge.end()


async def thousand_portals(scene: Scene, provisioned: Bridge) -> None:
    """Restart, idle and a burst with as many rooms of another network, seeded in the same way."""
    provisioned.stop()
    bridge = scene.bridge("portals")
    line = f"@letta_bench:{SERVER_NAME}"
    rooms = {f"!portal{number}": line for number in range(1, AGENTS + 1)}
    network: dict[str, object] = {
        "name": "bench",
        "bot": f"@bench_bot:{SERVER_NAME}",
        "ghosts": f"@bench_(.+):{SERVER_NAME}",
        "line": line,
        "routes": {"*": "agent-00000001-0000"},
        # Bursts of one contact are more than people send.
        "contact_per_day": 0,
    }
    try:
        _copy(provisioned.database, bridge.database)
        with contextlib.closing(sqlite3.connect(bridge.database)) as connection, connection:
            for room in rooms:
                connection.execute(_PORTAL, (room, "bench", "bench", room, "", 1, 0))
                connection.execute(_LINE_IN_IT, (room, line, 1, time.time()))
        bridge.configure({"type": "memory", "agents": 1}, portals=[network])
        async with scene.homeserver.with_rooms(rooms):
            took, writes = await restarted(scene, bridge)
            await bridge.start_ready()
            await bridge.wait_quiet()
            cpu = await bridge.cpu_percent(scene.plan.idle)
            rss = bridge.rss_mb
            talks = [(room, f"@bench_{place}:{SERVER_NAME}") for place, room in enumerate(rooms)]
            await bursts(scene, bridge, talks)
            bridge.stop()
    finally:
        await bridge.end()
    of = f"with {AGENTS:,} portals (seeded)"
    add = scene.figures.add
    add("restart_portals_s", p50(took), f"process start -> /ready, {of}", at_most(3))
    note = f"homeserver writes at a restart {of}"
    add("restart_portals_writes", beside_wake(writes), note, at_most(0))
    add("idle_cpu_percent_portals", cpu, f"% of a core while idle, {of}", at_most(2))
    add("rss_mb_portals", rss, f"MB resident, {of}", at_most(150))


async def restarted(scene: Scene, bridge: Bridge) -> tuple[list[float], list[int]]:
    """How long each start takes, and how much it writes to the homeserver."""
    took: list[float] = []
    writes: list[int] = []
    for _ in range(scene.plan.restarts):
        took.append(await bridge.start_ready())
        writes.append(int((await bridge.health())["homeserver_writes"]))
        bridge.stop()
    return took, writes


def beside_wake(writes: list[int]) -> int:
    """The most that a start wrote beside the wake requests."""
    return max(0, max(writes) - _WAKE_REQUESTS)


async def _restarts(scene: Scene, bridge: Bridge, note: str) -> None:
    took, writes = await restarted(scene, bridge)
    of = f"with {AGENTS:,} agents{note}"
    scene.figures.add("restart_s", p50(took), f"process start -> /ready, {of}", at_most(3))
    note = "homeserver writes at a restart, beside the wake requests"
    scene.figures.add("restart_writes", beside_wake(writes), note, at_most(0))
    note = "the ping and the wake event of a restart"
    scene.figures.add("restart_wake_requests", min(*writes, _WAKE_REQUESTS), note)
    await bridge.start_ready()


def _seed(source: Bridge, target: Bridge) -> int:
    """Copy a database and fill it up to 1,000 agents; returns how many were there."""
    _copy(source.database, target.database)
    with store(target.database_url) as connection:
        return fill(connection, AGENTS)


@contextlib.contextmanager
def store(url: URL) -> Generator[Connection]:
    """A transaction in a database that no bridge has open."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def fill(connection: Connection, up_to: int) -> int:
    """Let there be so many agents, with rows like a provisioned one's; returns how many were
    there."""
    agents = _agents(connection)
    rows = connection.execute(select(agents).order_by(agents.c.agent_id)).mappings().all()
    new = [_like(rows[-1], number) for number in range(len(rows) + 1, up_to + 1)]
    connection.execute(agents.insert(), new)
    return len(rows)


def seeded(connection: Connection) -> dict[str, str]:
    """The rooms of those that `fill` has added, each with its agent's user."""
    agents = _agents(connection)
    query = select(agents.c.room_id, agents.c.user_id).where(agents.c.room_id.startswith(_SEEDED))
    return {str(room): str(user) for room, user in connection.execute(query)}


def _agents(connection: Connection) -> Table:
    return Table("agents", MetaData(), autoload_with=connection)


def _copy(source: Path, target: Path) -> None:
    # Not a copy of the file: what was written last may be in the journal beside it.
    with (
        contextlib.closing(sqlite3.connect(source)) as original,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        original.backup(copy)


def _like(model: Mapping[Any, Any], number: int) -> dict[str, object]:
    """The row that provisioning would have left for the in-memory agent of this number."""
    agent_id, name = f"agent-{number:08d}-0000", f"Agent {number}"
    renamed = {
        key: value.replace(model["name"], name) if isinstance(value, str) else value
        for key, value in model["applied"].items()
    }
    return {
        **model,
        "agent_id": agent_id,
        "name": name,
        "user_id": model["user_id"].replace(_local(model["agent_id"]), _local(agent_id)),
        "room_id": f"{_SEEDED}{number}",
        "applied": renamed,
    }


def _local(agent_id: str) -> str:
    return agent_id.replace("-", "_")
