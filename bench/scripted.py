"""The part with in-memory agents that have tools, ask for approvals and speak slowly."""

from bench import approvals, threads, tools
from bench.bare_agents import floor_room
from bench.bridge import SCRIPTED, Bridge
from bench.scene import Scene

_AGENTS = 4


async def measure(scene: Scene) -> None:
    """Start a bridge with scripted agents, and measure what conversations are made of."""
    floor = await floor_room(scene)
    bridge = scene.bridge("scripted", SCRIPTED)
    try:
        bridge.configure({"type": "memory", "agents": _AGENTS})
        await bridge.start_ready()
        await _measure(scene, bridge, floor)
    finally:
        await bridge.end()


async def _measure(scene: Scene, bridge: Bridge, floor: str) -> None:
    talking, asking, shown, hidden = rooms = bridge.rooms()
    await scene.person.wait_joined(set(rooms))
    await scene.person.follow([floor, *rooms])
    await bridge.wait_quiet()
    await scene.attempt("threads side by side", threads.in_memory(scene, talking))
    await scene.attempt("approvals", approvals.in_memory(scene, asking))
    await scene.attempt("tools, shown and hidden", tools.measure(scene, shown, hidden))
