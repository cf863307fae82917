"""What a bridge costs when nothing happens, and how soon it is back, with 1 and 1,000 agents."""

import contextlib
import json
import sqlite3
import time
from pathlib import Path

from bench.bridge import Bridge
from bench.bursts import bursts
from bench.figures import Target, at_most, p50
from bench.scene import Scene
from letta_matrix.stack.synapse import SERVER_NAME

AGENTS = 1000
_WAKE_REQUESTS = 2
"""The ping, and the event in the control room (docs/architecture.md)."""
_PORTAL = (
    "INSERT INTO portals (room_id, name, protocol, channel, receiver, direct, held)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_LINE_IN_IT = "INSERT INTO memberships (room_id, user_id, direct, joined_at) VALUES (?, ?, ?, ?)"


async def idle(scene: Scene, bridge: Bridge, agents: int, rss: Target, note: str = "") -> None:
    """CPU and memory of a running bridge."""
    await bridge.wait_quiet()
    cpu = await bridge.cpu_percent(scene.plan.idle)
    of = f"with {agents:,} agent{'s' if agents > 1 else ''}{note}"
    name = f"idle_cpu_percent_{agents}"
    scene.figures.add(name, cpu, f"% of a core while idle, {of}", at_most(2))
    scene.figures.add(f"rss_mb_{agents}", bridge.rss_mb, f"MB resident, {of}", rss)


async def thousand_agents(scene: Scene, provisioned: Bridge) -> None:
    """Restart and idle with 1,000 agents. Most rows are seeded, here and at the homeserver, which
    has no events in those rooms: nothing is owed, which is what a restart and idling see."""
    provisioned.stop()
    bridge = scene.bridge("thousand")
    try:
        real = _seed(provisioned.database, bridge.database)
        bridge.configure({"type": "memory", "agents": AGENTS})
        note = f" ({real} provisioned, the others' rows seeded)"
        async with scene.homeserver.with_rooms(_seeded(bridge.database)):
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
            took, writes = await _restarted(scene, bridge)
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
    add("restart_portals_writes", _beside_wake(writes), note, at_most(0))
    add("idle_cpu_percent_portals", cpu, f"% of a core while idle, {of}", at_most(2))
    add("rss_mb_portals", rss, f"MB resident, {of}", at_most(150))


async def _restarted(scene: Scene, bridge: Bridge) -> tuple[list[float], list[int]]:
    """How long each start takes, and how much it writes to the homeserver."""
    took: list[float] = []
    writes: list[int] = []
    for _ in range(scene.plan.restarts):
        took.append(await bridge.start_ready())
        writes.append(int((await bridge.health())["homeserver_writes"]))
        bridge.stop()
    return took, writes


def _beside_wake(writes: list[int]) -> int:
    """The most that a start wrote beside the wake requests."""
    return max(0, max(writes) - _WAKE_REQUESTS)


async def _restarts(scene: Scene, bridge: Bridge, note: str) -> None:
    took, writes = await _restarted(scene, bridge)
    of = f"with {AGENTS:,} agents{note}"
    scene.figures.add("restart_s", p50(took), f"process start -> /ready, {of}", at_most(3))
    note = "homeserver writes at a restart, beside the wake requests"
    scene.figures.add("restart_writes", _beside_wake(writes), note, at_most(0))
    note = "the ping and the wake event of a restart"
    scene.figures.add("restart_wake_requests", min(*writes, _WAKE_REQUESTS), note)
    await bridge.start_ready()


def _seed(source: Path, target: Path) -> int:
    """Copy a database and fill it up to 1,000 agents with rows like a provisioned agent's;
    returns how many were there."""
    _copy(source, target)
    with contextlib.closing(sqlite3.connect(target)) as connection, connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM agents ORDER BY agent_id").fetchall()
        model = dict(rows[-1])
        for number in range(len(rows) + 1, AGENTS + 1):
            _insert(connection, _like(model, number))
    return len(rows)


def _copy(source: Path, target: Path) -> None:
    # Not a copy of the file: what was written last may be in the journal beside it.
    with (
        contextlib.closing(sqlite3.connect(source)) as original,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        original.backup(copy)


def _like(model: dict[str, object], number: int) -> dict[str, object]:
    """The row that provisioning would have left for the in-memory agent of this number."""
    agent_id, name = f"agent-{number:08d}-0000", f"Agent {number}"
    old_id, old_name = str(model["agent_id"]), str(model["name"])
    applied = json.loads(str(model["applied"]))
    renamed = {
        key: value.replace(old_name, name) if isinstance(value, str) else value
        for key, value in applied.items()
    }
    return {
        **model,
        "agent_id": agent_id,
        "name": name,
        "user_id": str(model["user_id"]).replace(_local(old_id), _local(agent_id)),
        "room_id": f"!seeded{number}",
        "applied": json.dumps(renamed),
    }


def _seeded(database: Path) -> dict[str, str]:
    """The seeded rooms, each with its agent's user."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        query = "SELECT room_id, user_id FROM agents WHERE room_id LIKE '!seeded%'"
        return dict(connection.execute(query).fetchall())


def _local(agent_id: str) -> str:
    return agent_id.replace("-", "_")


def _insert(connection: sqlite3.Connection, row: dict[str, object]) -> None:
    names, places = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO agents ({names}) VALUES ({places})", list(row.values()))
