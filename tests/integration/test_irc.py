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

from letta_matrix.matrix.content import MARKER
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
        """An operator talks to the bridge's bot, as far as that answers."""
        person, where = self.world.person, f" --room {room}" if room else ""
        said = await person.send(self.operator.room_id, f"!portal tell{where} {text}")

        async def answered() -> bool:
            events = await person.timeline(self.operator.room_id, "m.room.message")
            markers = (event["content"].get(MARKER, {}) for event in events)
            return any(marker.get("in_reply_to") == said for marker in markers)

        await eventually(answered, what=f"an answer to {text!r}")


@pytest.fixture(scope="module")
async def network(
    homeserver: Homeserver, ann: Person, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Network]:
    if why := missing():
        pytest.skip(why)
    directory, runtime = tmp_path_factory.mktemp("irc"), MemoryRuntime(script=obey)
    sections: Json = {"portals": [PORTAL], "conversations": {"envelope": ""}}
    file = homeserver.irc_registration
    with ngircd_in(directory) as port, heisenbridge_on(file, homeserver.url, LINE):
        async with (
            bridge_on(homeserver, directory, ann, runtime, **sections) as world,
            irc_client(port, "ann") as client,
        ):
            made = Network(world, await world.meet(new_agent("Ada")), client)
            await made.tell("addnetwork net")
            await made.tell(f"addserver net 127.0.0.1 {port}")
            await made.tell("open net")
            await made.tell("nick letta", "net")
            await made.tell("connect", "net")
            # It says that it connects; who is not there yet joins nothing.
            await client.meets("letta")
            client.do("JOIN #lobby")
            await made.tell("join #lobby", "net")
            await eventually(lambda: "letta" in client.members, what="the line is in the channel")
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
