"""The part that says what very much in the store costs: agents, and turns that wait."""

from contextlib import AsyncExitStack

from bench import backlog, crowd
from bench.alone import Alone, postgres
from bench.bridge import SCRIPTED
from bench.scene import Scene


async def measure(scene: Scene) -> None:
    """On SQLite, and on PostgreSQL."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(postgres())
        for where in (None, server):
            on = "SQLite" if where is None else "PostgreSQL"
            alone = Alone(scene, f"crowd-{on}", where)
            await scene.attempt(f"{crowd.AGENTS:,} agents, on {on}", crowd.measure(alone))
            alone = Alone(scene, f"backlog-{on}", where, program=SCRIPTED)
            await scene.attempt(f"turns that wait, on {on}", backlog.measure(alone))
