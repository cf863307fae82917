"""Provisioning: letta-matrix and bare calls take turns, a chunk of new agents each."""

import asyncio
import time

from bench.bare_agents import BareAgents
from bench.bridge import Bridge
from bench.figures import at_least
from bench.scene import Scene

CONCURRENCY = 6
"""The default of `agents.provision_concurrency`."""


async def measure(scene: Scene, bridge: Bridge) -> None:
    """Make the plan's agents twice; afterwards `bridge` runs with all of its own."""
    bare = BareAgents(scene.homeserver, scene.http, scene.person.user_id)
    await bare.prepare()
    ours, theirs = 0.0, 0.0
    for number in range(scene.plan.chunks):
        chunk = range(number * scene.plan.chunk, (number + 1) * scene.plan.chunk)
        # Who goes first changes, and nobody starts while the homeserver still works.
        for mine in (number % 2 == 0, number % 2 == 1):
            if mine:
                ours += await _ours(scene, bridge, chunk.stop)
            else:
                theirs += await _theirs(bare, chunk)
            await scene.person.wait_joined({*bare.rooms, *bridge.rooms()})
    scene.floor_rooms = bare.rooms
    agents = scene.plan.agents
    note = f"{agents} agents, {CONCURRENCY} at once: time of the bare calls / ours"
    scene.figures.add("provision_ratio", theirs / ours, note, at_least(0.9))
    scene.figures.add("provision_s", ours, f"seconds for those {agents} agents, ours")


async def _ours(scene: Scene, bridge: Bridge, agents: int) -> float:
    """Start the bridge with more agents; seconds from their discovery until all are set up."""
    bridge.stop()
    bridge.configure({"type": "memory", "agents": agents + 1})
    await bridge.start()
    while (await bridge.health())["agents"] != agents + 1:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.01)
    started = time.monotonic()
    await bridge.wait_ready()
    return time.monotonic() - started


async def _theirs(bare: BareAgents, numbers: range) -> float:
    started = time.monotonic()
    await bare.make(numbers, CONCURRENCY)
    return time.monotonic() - started
