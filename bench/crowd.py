"""10,000 agents in the store: a start with them, what finding them costs, and their memory."""

from sqlalchemy import text

from bench.alone import Alone
from bench.figures import at_most, p50
from bench.scale import beside_wake, fill, restarted, seeded, store

AGENTS = 10_000
_SYNCS = 5
_PULSE = 1
"""A second ping, which tells how it goes from then on, follows at once where answers do."""


async def measure(alone: Alone) -> None:
    """One of them is provisioned, the others' rows are seeded, and the homeserver believes in their
    rooms: nothing is owed."""
    scene, bridge = alone.scene, alone.bridge
    try:
        await alone.start(1)
        bridge.stop()
        alone.configure(AGENTS)
        await alone.do("rooms", **_seed(alone))
        token = await bridge.make_token("--scope", "admin")
        took, writes = await restarted(scene, bridge)
        await bridge.start_ready()
        await bridge.wait_quiet(30)
        before = bridge.cpu_seconds
        for _ in range(_SYNCS):
            await _sync(alone, token)
        cycle = (bridge.cpu_seconds - before) / _SYNCS
        rss = bridge.rss_mb
    finally:
        await alone.end()
    suffix, where = alone.where
    of, add = f"with {AGENTS:,} agents (seeded), {where}", scene.figures.add
    add(f"start_10000{suffix}_s", p50(took), f"process start -> /ready, {of}", at_most(5))
    note = f"homeserver writes at that start, {of}"
    beside = max(0, beside_wake(writes) - _PULSE)
    add(f"start_10000{suffix}_writes", beside, note, at_most(0))
    add(f"discovery_10000{suffix}_cpu_s", cycle, f"CPU of one discovery cycle, {of}")
    add(f"rss_mb_10000{suffix}", rss, f"MB resident, {of}")


async def _sync(alone: Alone, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{alone.bridge.api_url}/agents/sync"
    async with alone.scene.http.post(url, headers=headers) as response:
        response.raise_for_status()


def _seed(alone: Alone) -> dict[str, str]:
    """Fill the store up; each seeded room with its agent's user."""
    with store(alone.database) as connection:
        fill(connection, AGENTS)
        # Up to date: looking through all rooms would be measured with the rest.
        connection.execute(text("DELETE FROM meta WHERE key LIKE 'alive%'"))
        return seeded(connection)
