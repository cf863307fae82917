"""What the bridge itself can do: a homeserver that answers at once, agents in memory."""

from contextlib import AsyncExitStack

from bench.alone import Alone, postgres
from bench.figures import at_least, at_most
from bench.scene import Scene


async def measure(scene: Scene) -> None:
    """With some agents, and with many; then on PostgreSQL, alone and with replicas beside it."""
    for agents, turns in scene.plan.ceilings:
        await scene.attempt(f"the bridge alone, {agents:,} agents", _ceiling(scene, agents, turns))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(postgres())
        for replicas in scene.plan.replicas:
            alone = Alone(scene, f"ceiling-postgres-{replicas}", server, replicas)
            what = f"the bridge alone, on PostgreSQL, replicas: {replicas}"
            await scene.attempt(what, _on_postgres(alone, replicas))


async def _ceiling(scene: Scene, agents: int, turns: int) -> None:
    rate, cost = await _work(Alone(scene, f"ceiling-{agents}"), agents, turns)
    of = f"turns a second with {agents:,} agents at a homeserver that answers at once"
    fast, cheap = (at_least(500), at_most(1.9)) if agents < 1000 else (None, None)
    scene.figures.add(f"ceiling_turns_per_s_{agents}", rate, of, fast)
    note = f"ms of CPU a turn, {agents:,} agents"
    scene.figures.add(f"cpu_ms_per_turn_{agents}", cost, note, cheap)


async def _on_postgres(alone: Alone, replicas: int) -> None:
    scene = alone.scene
    agents, turns = scene.plan.ceilings[0]
    rate, cost = await _work(alone, agents, turns)
    add, suffix = scene.figures.add, f"_{replicas}" if replicas > 1 else ""
    of = f"the same with {agents:,} agents and the database on a PostgreSQL server beside it"
    fast = at_least(250)
    if suffix:
        of, fast = f"the same, transactions coming to {replicas} replicas by turns", None
    add(f"ceiling_postgres_turns_per_s{suffix}", rate, of, fast)
    note = "ms of CPU a turn, without the server's"
    add(f"cpu_ms_per_turn_postgres{suffix}", cost, f"{note}, all replicas" if suffix else note)


async def _work(alone: Alone, agents: int, turns: int) -> tuple[float, float]:
    """Turns a second, and ms of CPU for each."""
    try:
        await alone.start(agents)
        await alone.do("load", turns=turns // 5)
        before = alone.cpu_seconds
        took = (await alone.do("load", turns=turns))["seconds"]
        cpu = 1000 * (alone.cpu_seconds - before) / turns
    finally:
        await alone.end()
    return turns / took, cpu
