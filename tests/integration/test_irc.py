"""Agents on IRC, through a real bridge: heisenbridge, with Debian's ngircd."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest
from tests.integration.bridge_world import World, bridge_on, new_agent
from tests.integration.people import Json, Person, Room
from tests.irc import (
    BRIDGE_BOT,
    GHOSTS,
    IrcClient,
    heisenbridge_on,
    irc_client,
    missing,
    ngircd_in,
)
from tests.scripts import obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.runtimes.memory import MemoryRuntime

LINE = "@letta_irc:localhost"
PORTAL = {
    "name": "irc",
    "bot": BRIDGE_BOT,
    "ghosts": GHOSTS,
    "proof": "creator",
    "line": LINE,
    "groups": True,
    "routes": {"net_ann": "Ada", "#lobby": "Ada"},
    "join_messages": 0,
}


@dataclass
class Network:
    """An IRC network with a person on it, bridged to an agent."""

    world: World
    operator: Room
    ann: IrcClient

    async def tell(self, text: str, room: str = "") -> None:
        """An operator says something to the bridge's bot."""
        where = f" --room {room}" if room else ""
        await self.world.person.send(self.operator.room_id, f"!portal tell{where} {text}")

    async def hears(self, answer: str) -> None:
        """Wait until the bridge's bot has said this where the line reads it."""
        line = self.world.as_user(LINE)

        async def said() -> list[str]:
            rooms = (await line.get("/joined_rooms"))["joined_rooms"]
            bodies = [await line.bodies(room, BRIDGE_BOT) for room in rooms]
            return [body for some in bodies for body in some]

        def is_told(said: list[str]) -> bool:
            return any(answer in one for one in said)

        await eventually(said, is_told, what=f"the answer {answer!r}")


@pytest.fixture(scope="module")
async def network(
    homeserver: Homeserver, ann: Person, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Network]:
    if why := missing():
        pytest.skip(why)
    directory, runtime = tmp_path_factory.mktemp("irc"), MemoryRuntime(script=obey)
    sections: Json = {"portals": [PORTAL], "conversations": {"envelope": ""}}
    file = homeserver.irc_registration
    with ngircd_in(directory) as port:
        async with (
            bridge_on(homeserver, directory, ann, runtime, **sections) as world,
            irc_client(port, "ann") as client,
        ):
            # Not before: it invites its owner once, whom our bridge makes.
            with heisenbridge_on(file, homeserver.url, LINE):
                made = Network(world, await world.meet(new_agent("Ada")), client)
                # It listens before it is ready, and loses what it hears until then. When it is, it
                # makes a room with its owner.
                rooms = world.bridge.app.stores.rooms
                await eventually(
                    lambda: any(LINE in rooms.ours_in(room) for room in rooms.all()),
                    what="the bridge's own room",
                )
                for text, answer, room in (
                    ("addnetwork net", "Network added.", ""),
                    (f"addserver net 127.0.0.1 {port}", "Server added.", ""),
                    ("open net", "Welcome to the network room for net!", ""),
                    ("nick letta", "Nickname set to letta", "net"),
                    ("connect", "Connecting to 127.0.0.1", "net"),
                ):
                    await made.tell(text, room)
                    await made.hears(answer)
                # It says that it connects; who is not there yet joins nothing.
                await client.meets("letta")
                client.do("JOIN #lobby")
                await made.tell("join #lobby", "net")
                await eventually(
                    lambda: "letta" in client.members, what="the line is in the channel"
                )
                yield made


async def test_an_agent_answers_in_a_query(network: Network) -> None:
    network.ann.say("letta", "hello **you**")
    await network.ann.told("letta ann: echo: hello you")


async def test_an_agent_answers_in_a_channel_when_addressed(network: Network) -> None:
    network.ann.say("#lobby", "hello all")
    network.ann.say("#lobby", "letta: hello")
    await network.ann.told("letta #lobby: echo: letta: hello")
    network.ann.say("#lobby", "Ada, and you")
    await network.ann.told("letta #lobby: echo: Ada, and you")
    assert not any("hello all" in line for line in network.ann.lines)


async def test_a_contact_stops_and_starts(network: Network) -> None:
    network.ann.say("letta", "stop")
    await network.ann.told("letta ann: You get no more messages from here. Send START to go on.")
    counters = network.world.bridge.app.dispatcher.counters
    ignored = counters["events_ignored"]
    network.ann.say("letta", "unheard")
    # The bridge makes one message of lines that come at once.
    await eventually(lambda: counters["events_ignored"] > ignored, what="it arrives")
    network.ann.say("letta", "start")
    await network.ann.told("letta ann: You get messages from here again. Send STOP to end them.")
    network.ann.say("letta", "heard")
    await network.ann.told("letta ann: echo: heard")
    assert not any("unheard" in line for line in network.ann.lines)
