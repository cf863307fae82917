"""One run: the homeserver, the floor's program, and the parts that measure on them."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from bench import (
    app_server,
    ceiling,
    door_calls,
    echoes,
    provisioning,
    replicas,
    scale,
    scripted,
    stores,
)
from bench.bridge import Bridge
from bench.figures import Figures, at_most
from bench.homeserver import Homeserver
from bench.plan import Plan
from bench.ports import Ports
from bench.program import Program
from bench.progress import say
from bench.scene import Scene

Part = Callable[[Scene], Awaitable[None]]


async def run(parts: Sequence[Part], plan: Plan, directory: Path, ports: Ports) -> Figures:
    """Measure; every process started here has ended when this returns or raises."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        homeserver = Homeserver(directory, ports, http)
        stack.callback(homeserver.stop)
        say("starting Synapse")
        await homeserver.start()
        person = await homeserver.person("person")
        stack.push_async_callback(person.close)
        settings = {
            "port": homeserver.floor.port,
            "homeserver": homeserver.url,
            "as_token": homeserver.floor.as_token,
            "person": person.user_id,
        }
        floor = Program("bench.echo_appservice", settings, directory, http)
        stack.callback(floor.stop)
        await floor.start()
        scene = Scene(directory, plan, ports, http, homeserver, person)
        for part in parts:
            await part(scene)
    return scene.figures


async def in_memory(scene: Scene) -> None:
    """letta-matrix with its in-memory runtime, so that nothing but the bridge is measured."""
    bridge = scene.bridge("memory")
    try:
        await _in_memory(scene, bridge)
    finally:
        await bridge.end()


async def _in_memory(scene: Scene, bridge: Bridge) -> None:
    plan = scene.plan
    bridge.configure({"type": "memory", "agents": 1})
    await bridge.start_ready()
    await scene.attempt("one agent, idle", scale.idle(scene, bridge, 1, at_most(100)))
    await scene.attempt(f"{plan.agents} new agents, twice", provisioning.measure(scene, bridge))
    await scene.attempt("echoes, one by one", echoes.one_by_one(scene, bridge))
    await scene.attempt("echoes, many at once", echoes.many_at_once(scene, bridge))
    await scene.attempt("first messages after a start", echoes.after_start(scene, bridge))
    thousand = f"{scale.AGENTS:,} agents: restart, idle"
    await scene.attempt(thousand, scale.thousand_agents(scene, bridge))
    portals = f"{scale.AGENTS:,} portals: restart, idle, bursts"
    await scene.attempt(portals, scale.thousand_portals(scene, bridge))


PARTS: dict[str, Part] = {
    "memory": in_memory,
    "scripted": scripted.measure,
    "doors": door_calls.measure,
    "app-server": app_server.measure,
    "replicas": replicas.measure,
    "stores": stores.measure,
    "ceiling": ceiling.measure,
}
