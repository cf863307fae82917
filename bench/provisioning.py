"""Provisioning: the bare calls for half of the agents, ours for all, the other bare half."""

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
    agents = scene.plan.agents
    half = agents // 2
    # One start of the bridge: after each it also looks through the rooms it has.
    theirs = await _theirs(scene, bare, range(half))
    ours = await _ours(scene, bridge, agents)
    theirs += await _theirs(scene, bare, range(half, agents))
    scene.floor_rooms = bare.rooms
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
    took = time.monotonic() - started
    await scene.person.wait_joined(set(bridge.rooms()))
    return took


async def _theirs(scene: Scene, bare: BareAgents, numbers: range) -> float:
    started = time.monotonic()
    await bare.make(numbers, CONCURRENCY)
    took = time.monotonic() - started
    await scene.person.wait_joined(set(bare.rooms))
    return took
