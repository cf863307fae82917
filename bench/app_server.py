"""The part with a real App Server behind letta-matrix."""

import asyncio
import json
import re
from contextlib import AsyncExitStack
from typing import Any

from tests.servers import LettaServer

from bench import approvals, outages, threads, turns
from bench.bare_agents import floor_room
from bench.echoes import TOGETHER
from bench.figures import at_most
from bench.letta import Letta, TimedModel, connect
from bench.progress import say
from bench.scene import Scene
from bench.turns import Stage
from letta_matrix.stack.app_server import AppServerProcess

_OURS = re.compile("matrix_|message_agent$|ask_human$|wait_for_message$|(list|get)_agents?$")
_AGENTS = TOGETHER + 1


async def measure(scene: Scene) -> None:
    """Start the App Server, its agents and a bridge, and measure turns."""
    async with AsyncExitStack() as stack:
        stage = await _set_up(scene, stack)
        for what, measuring in (
            ("schemas of tools", _schemas),
            ("turns, one by one", turns.one_by_one),
            ("turns, ten at once", turns.together),
            ("long answers", turns.stream),
            ("threads side by side, App Server", threads.on_app_server),
            ("approvals, App Server", approvals.on_app_server),
            ("renames", turns.discovery),
            ("memory", _memory),
            ("kill -9 in long answers", outages.killed_in_mid_stream),
            ("messages while down", outages.messages_while_down),
        ):
            await scene.attempt(what, measuring(stage))


async def serving(
    scene: Scene, stack: AsyncExitStack, name: str
) -> tuple[TimedModel, LettaServer, Letta]:
    """A new App Server on a stub model, as long as the stack is open."""
    say("starting the App Server")
    model = await stack.enter_async_context(TimedModel())
    process = AppServerProcess(scene.directory / name, scene.ports.take())
    server = LettaServer(process, scene.http)
    stack.callback(server.stop)
    await server.start(model.url)
    letta = await connect(server, scene.http)
    stack.push_async_callback(letta.close)
    return model, server, letta


async def _schemas(stage: Stage) -> None:
    offered: list[Any] = [tool["function"] for tool in stage.model.requests[-1].body["tools"]]
    ours = [one for one in offered if _OURS.match(one["name"])]
    size = round(sum(len(json.dumps(one)) for one in ours) / 1000, 2)
    note = f"kB of our {len(ours)} tools in each request to a model"
    stage.scene.figures.add("tool_schema_kb", size, note, at_most(5.0))


async def _memory(stage: Stage) -> None:
    note = "MB resident, with the App Server, after all this"
    stage.scene.figures.add("rss_mb_app_server", stage.bridge.rss_mb, note, at_most(100))


async def _set_up(scene: Scene, stack: AsyncExitStack) -> Stage:
    await floor_room(scene)
    model, server, letta = await serving(scene, stack, "app-server")
    agents = [await letta.create_agent(f"Ada {number}") for number in range(_AGENTS)]
    bridge = scene.bridge("app-server-bridge")
    bridge.configure({"type": "app_server", "url": server.url})
    stack.push_async_callback(bridge.end)
    await bridge.start_ready()
    stage = Stage(scene, bridge, letta, model, agents, bridge.rooms())
    await _warm_up(stage)
    return stage


async def _warm_up(stage: Stage) -> None:
    """One turn in each room: a conversation's first turn is slow by itself."""
    await stage.person.wait_joined({*stage.rooms, stage.scene.floor_rooms[0]})
    await stage.person.follow([*stage.rooms, stage.scene.floor_rooms[0]])
    await asyncio.gather(*[turns.talk(stage, room) for room in stage.rooms])
