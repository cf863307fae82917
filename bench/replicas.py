"""The part with two bridges on one PostgreSQL: what passing on costs, and how soon another goes on
where one was killed."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text
from tests.balancer import Balancer
from tests.contract.relay import Relay
from tests.postgres import PostgresServer
from tests.stub_model import WORD_DELAY

from bench import app_server
from bench.alone import postgres
from bench.bare_agents import floor_room
from bench.bridge import PLAIN, SCRIPTED, Bridge
from bench.echoes import TOGETHER, echo
from bench.figures import at_least, at_most, ms, p50, p95
from bench.homeserver import Homeserver
from bench.letta import TimedModel
from bench.scale import store
from bench.scene import Scene
from bench.turns import STREAM_WORDS, words

_ROUNDS = 2
_WARM_UP = 2
_SETTLE = 2.0
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class _Registered:
    """The homeserver as one of two knows it: what it pushes comes through a proxy."""

    homeserver: Homeserver
    port: int

    def letta_settings(self) -> dict[str, Any]:
        settings = self.homeserver.letta_settings()
        return {**settings, "appservice": {**settings["appservice"], "port": self.port}}


class _Pair:
    """Two `bridges` on one database, which listen for the homeserver on `ports`."""

    def __init__(
        self, scene: Scene, server: PostgresServer, name: str, program: tuple[str, ...] = PLAIN
    ) -> None:
        self._server, self._database = server, server.create()
        self.ports = [scene.ports.take(), scene.ports.take()]
        self.bridges = [
            Bridge(
                _Registered(scene.homeserver, port),
                scene.directory / f"{name}-{number}",
                scene.ports,
                scene.person.user_id,
                scene.http,
                program,
            )
            for number, port in enumerate(self.ports, 1)
        ]

    def configure(self, runtime: dict[str, Any]) -> None:
        for bridge in self.bridges:
            bridge.configure(runtime, database=self._server.settings_for(self._database))

    def rooms(self) -> list[str]:
        """The agents' rooms."""
        with store(self._server.address(self._database)) as connection:
            return [str(room) for room in connection.scalars(text("SELECT room_id FROM agents"))]

    async def end(self) -> None:
        # The keeper is in the first one's folder.
        for bridge in self.bridges[::-1]:
            await bridge.end()


async def measure(scene: Scene) -> None:
    """Echoes with agents in memory, then answers of an App Server's that are cut off."""
    await floor_room(scene)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(postgres())
        await scene.attempt("replicas: echoes", _echoes(scene, server))
        await scene.attempt("replicas: kill -9 in mid-answer", _takeovers(scene, server))


async def _echoes(scene: Scene, server: PostgresServer) -> None:
    """Floor and one replica in turns; then floor and two, what is pushed coming to the one that
    stands by; and again."""
    pair = _Pair(scene, server, "replica", SCRIPTED)
    pair.configure({"name": "replicas", "type": "memory", "agents": TOGETHER})
    one, two = _Talk(), _Talk()
    first, second = pair.bridges
    async with AsyncExitStack() as stack:
        stack.push_async_callback(pair.end)
        way = Relay(pair.ports[0], scene.homeserver.letta.port)
        await stack.enter_async_context(way)
        await first.start_ready()
        await scene.person.wait_joined(set(pair.rooms()))
        await scene.person.follow([scene.floor_rooms[0], *pair.rooms()])
        await first.wait_quiet()
        for _ in range(_ROUNDS):
            await one.go_on(scene, pair.rooms())
            await second.start_ready()
            await second.wait_quiet()
            await _lead(way, pair.ports[1])
            await two.go_on(scene, pair.rooms())
            await _lead(way, pair.ports[0])
            second.stop()
    add, count = scene.figures.add, f"{len(two.ours)} each, taking turns"
    note = f"a bridge on PostgreSQL / floor, {count}"
    add("echo_postgres_p50_ratio", one.ratio, note, at_most(1.25))
    note = f"two replicas, pushed to the one that stands by / one, each by its floor, {count}"
    add("echo_replicas_p50_ratio", two.ratio / one.ratio, note, at_most(1.1))
    add("echo_postgres_floor_p50_ms", ms(p50(one.floor)), "human's PUT -> echo in /sync")
    add("echo_postgres_p50_ms", ms(p50(one.ours)), "human's PUT -> echo in /sync")
    add("echo_replicas_p50_ms", ms(p50(two.ours)), "human's PUT -> echo in /sync")


@dataclass(slots=True)
class _Talk:
    """Echoes of the floor and of ours, which took turns."""

    floor: list[float] = field(default_factory=list[float])
    ours: list[float] = field(default_factory=list[float])

    @property
    def ratio(self) -> float:
        return p50(self.ours) / p50(self.floor)

    async def go_on(self, scene: Scene, rooms: list[str]) -> None:
        for number in range(-_WARM_UP, scene.plan.echoes):
            theirs = await echo(scene.person, scene.floor_rooms[0])
            mine = await echo(scene.person, rooms[number % len(rooms)])
            if number >= 0:
                self.floor.append(theirs)
                self.ours.append(mine)


async def _lead(way: Relay, port: int) -> None:
    """Let the homeserver push elsewhere, with new connections."""
    # What it is just pushing would fail, and be put off.
    await asyncio.sleep(_SETTLE)
    way.target = port
    await way.mend()


async def _takeovers(scene: Scene, server: PostgresServer) -> None:
    """`kill -9` of the one that acts, early in a 5 s answer, again and again."""
    pair = _Pair(scene, server, "taken-over")
    keeper = str(pair.bridges[0].directory / "keeper.sock")
    took: list[float] = []
    same: list[bool] = []
    async with AsyncExitStack() as stack:
        model, letta_server, letta = await app_server.serving(scene, stack, "app-server-replicas")
        await letta.create_agent("Ada")
        pair.configure({"type": "app_server", "url": letta_server.url, "keeper_socket": keeper})
        stack.push_async_callback(pair.end)
        ports = [("127.0.0.1", port) for port in pair.ports]
        await stack.enter_async_context(Balancer(scene.homeserver.letta.port, ports))
        for bridge in pair.bridges:
            await bridge.start_ready()
        (room,) = pair.rooms()
        await scene.person.wait_joined({room})
        await scene.person.follow([room])
        await scene.person.ask(room, "hello.", "echo: hello.", timeout=_PATIENCE)
        for number in range(scene.plan.takeovers):
            active = pair.bridges[number % 2]
            text = f"slow:{STREAM_WORDS} taken over {number}."
            seconds, once = await _taken_over(scene, model, active, room, text)
            took.append(seconds)
            same.append(once)
            # It stands by for the next one.
            await active.start_ready()
    add = scene.figures.add
    note = (
        f"kill -9 of the replica that acts -> the other goes on in the message, {len(took)} times"
    )
    add("takeover_p95_s", p95(took), note, at_most(15))
    add("takeover_p50_s", p50(took), note)
    note = "1: always the same message, no second one, the model asked once"
    add("takeover_exactly_once", float(all(same)), note, at_least(1))


async def _taken_over(
    scene: Scene, model: TimedModel, active: Bridge, room: str, text: str
) -> tuple[float, bool]:
    with scene.person.record(room) as recording:
        sent = await scene.person.say(room, text)
        await recording.until(lambda seen: seen.text.startswith("word1"), _PATIENCE)
        active.kill()
        killed = time.monotonic()
        # As many as it can have known; more are the other's.
        known = int((killed - model.began(text)) / WORD_DELAY) + 1
        on = await recording.until(lambda seen: len(seen.text.split()) > known, _PATIENCE)
        await recording.until(lambda seen: seen.text == words(STREAM_WORDS), _PATIENCE)
        await asyncio.sleep(_SETTLE)
    mine = [seen for seen in recording.sightings if seen.answers == sent and seen.edits is None]
    return on.at - killed, len(mine) == 1 and model.count(text) == 1
