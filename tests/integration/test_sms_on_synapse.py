"""Agents on the phone, through the double of mautrix-gmessages on a real homeserver."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import aiohttp
import pytest
from tests.doubles.gmessages import Gmessages, gmessages_on
from tests.doubles.gmessages.portals import RCS, Login, Portal, Rules
from tests.integration.bridge_world import World, bridge_on, new_agent
from tests.integration.people import Json, Person, Room
from tests.scripts import obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.portals.provisioning import Provisioning
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.tools import ToolCall
from letta_matrix.store.portals import Portal as Known

LINE = "@letta_sms:localhost"
ANN, BEN, EVE = "+15550000101", "+15550000102", "+15550000103"
COOKIES: Json = dict.fromkeys(("SID", "HSID", "SSID", "OSID", "APISID", "SAPISID"), "x")
STOPPED = "You get no more messages from here. Send START to go on."
STARTED = "You get messages from here again. Send STOP to end them."


@dataclass
class Phone:
    """The phone that is paired with the line, over HTTP, and the bridges on both its sides."""

    world: World
    double: Gmessages
    http: aiohttp.ClientSession
    own: Room

    async def do(self, what: str, **body: object) -> str:
        async with self.http.post(f"{self.double.url}/phone/{what}", json=body) as answer:
            told: Json = await answer.json()
            assert answer.status == 200, told
            return str(told["event_id"])

    async def text(self, text: str, number: str = ANN) -> str:
        """Somebody sends a text."""
        return await self.do("text", number=number, text=text)

    async def sent(self, number: str = ANN) -> list[str]:
        """What somebody has got."""
        async with self.http.get(f"{self.double.url}/phone") as answer:
            texts = (await answer.json())["texts"]
        return [one["text"] for one in texts if one["to"] == number]

    async def got(self, *texts: str, number: str = ANN) -> None:
        """Wait until somebody has got just these, from the last that were waited for on."""
        expected = list(texts)

        async def last() -> list[str]:
            return (await self.sent(number))[-len(expected) :]

        await eventually(last, lambda found: found == expected, f"{expected}")

    async def command(self, line: str) -> str:
        """An admin's command in the agent's room; what it answers."""
        ann, room = self.world.person, self.own
        event_id = await ann.send(room.room_id, line)

        async def answer() -> str:
            for said in await ann.said(room):
                if said["content"].get("org.letta.matrix", {}).get("in_reply_to") == event_id:
                    return str(said["content"]["body"])
            return ""

        return await ann.watch(room.room_id, answer, what=f"an answer to {line}")

    async def silence(self) -> None:
        """Wait until all that came in was looked at, and nothing is owed."""
        marker = await self.world.person.send(self.own.room_id, "!help")
        await eventually(lambda: self.world.bridge.app.stores.inbox.known([marker]))
        await self.world.idle()

    def portal(self, number: str = ANN) -> Portal:
        return next(one for one in self.double.portals.all.values() if one.number == number)

    def known(self, number: str = ANN) -> Known | None:
        """What our side knows of the talk."""
        return self.world.bridge.app.stores.portals.portal(self.portal(number).room_id)

    async def notices(self) -> list[str]:
        bodies = await self.world.person.bodies(self.own.room_id, self.own.ghost)
        return [one for one in bodies if one.startswith("About")]


@pytest.fixture(scope="module")
async def phone(
    homeserver: Homeserver,
    ann: Person,
    http: aiohttp.ClientSession,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[Phone]:
    directory, runtime = tmp_path_factory.mktemp("sms"), MemoryRuntime(script=obey)
    rules = Rules({LINE: "user", ann.user_id: "admin", "localhost": "relay"}, relay=True)
    file = homeserver.gmessages_registration
    async with gmessages_on(file, homeserver.url, "localhost", rules) as double:
        provisioning = {"url": double.url, "secret": double.provisioning.secret}
        sms: Json = {
            "bot": double.matrix.bot,
            "ghosts": r"@gmessages_(\d+\.\d+):localhost",
            "line": LINE,
            "region": "US",
            "routes": {"(555) 000-0101": "Ada", "+15550000102": "Ada"},
            "join_messages": 0,
            "provisioning": provisioning,
        }
        # Contacts here answer as fast as programs do.
        sections: Json = {"sms": sms, "conversations": {"envelope": "", "bot_replies": 0}}
        async with bridge_on(homeserver, directory, ann, runtime, **sections) as world:
            own = await world.meet(new_agent("Ada"))
            assert world.config.sms is not None
            await pair(Provisioning(world.config.sms, "localhost"), double)
            yield Phone(world, double, http, own)


async def pair(line: Provisioning, double: Gmessages) -> None:
    """Log in by an account and an emoji."""
    step = await line.go_on(await line.start("google"), COOKIES)
    double.provisioning.tapped.set()
    assert (await line.go_on(step, {})).login


async def test_a_text_is_answered_by_one_text(phone: Phone) -> None:
    await phone.text("hello **you**")
    await phone.got("echo: hello you")
    members = await phone.double.matrix.members(phone.portal().room_id)
    assert LINE in members
    assert phone.own.ghost not in members
    told = await phone.command("!sms status")
    assert "`CONNECTED`" in told


async def test_who_has_no_route_gets_silence(phone: Phone) -> None:
    await phone.text("hello?", EVE)
    await phone.text("STOP", EVE)
    await phone.silence()
    assert await phone.sent(EVE) == []
    assert "`+15550000103` is answered by `Ada`" in await phone.command("!sms allow 5550000103 Ada")
    await phone.text("and now?", EVE)
    await phone.got("echo: and now?", number=EVE)


async def test_stop_and_start(phone: Phone) -> None:
    await phone.text("Stop.")
    await phone.got(STOPPED)
    await phone.text("unheard")
    await phone.text("start")
    await phone.got(STOPPED, STARTED)
    await phone.text("heard")
    await phone.got(STARTED, "echo: heard")


async def test_a_person_takes_over_and_lets_go(phone: Phone) -> None:
    assert "silent in 1 portal" in await phone.command("!sms hold 555-000-0101")
    await phone.text("unheard")
    await phone.silence()
    await phone.command("!sms release 555-000-0101")
    await phone.text("heard again")
    await phone.got("echo: heard", "echo: heard again")


async def test_what_is_typed_on_the_phone_silences_agents_there(phone: Phone) -> None:
    await phone.text("hi", BEN)
    await phone.got("echo: hi", number=BEN)
    await phone.do("typed", number=BEN, text="I am here myself")
    await phone.text("good", BEN)
    await phone.silence()
    assert await phone.sent(BEN) == ["echo: hi"]
    await phone.command("!sms release 555-000-0102")
    await phone.text("are you back?", BEN)
    await phone.got("echo: hi", "echo: are you back?", number=BEN)


async def test_a_text_that_fails_is_told_of_once_and_not_sent_again(phone: Phone) -> None:
    await phone.do("state", connected=False)
    await phone.text("lost")

    async def told() -> list[str]:
        return await phone.notices()

    ann, room_id = phone.world.person, phone.own.room_id
    (notice,) = await ann.watch(room_id, told, what="a notice")
    assert "Your phone is not responding" in notice
    health = await phone.world.health()
    (check,) = [one for one in health["checks"] if one["name"] == "texts"]
    assert check["state"] == "trouble"
    await phone.do("state", connected=True)
    await phone.text("and now")
    await phone.got("echo: heard again", "echo: and now")
    undelivered = phone.world.bridge.app.undelivered
    await eventually(lambda: undelivered.trouble is None, what="no trouble")
    assert len(await phone.notices()) == 1


async def test_an_agent_begins_a_talk_and_gets_the_answer_where_it_wrote_from(
    phone: Phone,
) -> None:
    await phone.command("!sms allow +15550000104 Ada")
    number, runtime = "+15550000104", phone.world.runtime
    before = len(runtime.asked)
    await phone.world.person.send(phone.own.room_id, "write to them")
    await eventually(lambda: len(runtime.asked) > before, what="it is asked")
    await phone.world.idle()
    conversation_id = runtime.asked[before].conversation_id
    handle = phone.world.bridge.app.toolbox.handler("memory")
    call = tool_call(phone.own, conversation_id, number=number, text="Is it **done**?")
    result = await handle(call)
    assert result.ok, result.text
    again = await handle(call)
    assert json.loads(again.text)["event_id"] == json.loads(result.text)["event_id"]
    await phone.text("yes", number)
    await phone.got("Is it done?", "echo: yes", number=number)
    assert runtime.asked[-1].conversation_id == conversation_id
    refused = await handle(tool_call(phone.own, conversation_id, number="+15550000999", text="x"))
    assert not refused.ok


def tool_call(room: Room, conversation_id: str, **arguments: str) -> ToolCall:
    request_id = f"call to {arguments['number']}"
    return ToolCall(room.agent.agent_id, conversation_id, "c", "sms_send", arguments, request_id)


async def test_sms_becomes_rcs(phone: Phone) -> None:
    await phone.double.portals.switch(phone.portal(), RCS)
    await eventually(lambda: (known := phone.known()) is not None and known.protocol == RCS)
    await phone.text("by other means")
    await phone.got("echo: by other means")


async def test_the_bridge_restarts_in_mid_reply(phone: Phone) -> None:
    phone.double.phone.answers.clear()
    before = len(await phone.sent())
    await phone.text("stream 200 0")
    room_id, bot = phone.portal().room_id, phone.world.as_user(LINE)

    async def parts() -> int:
        return sum("word199" in one for one in await bot.bodies(room_id, LINE))

    await eventually(parts, what="the reply stands in the room")
    await phone.double.stop()
    phone.double.phone.answers.set()
    await phone.double.start()
    await phone.text("after that")

    async def all_() -> list[str]:
        return (await phone.sent())[before:]

    texts = await eventually(all_, lambda found: "echo: after that" in found, "all of it")
    assert [one[:5] for one in texts[:-1]] == [
        f"({number}/{len(texts) - 1})" for number in range(1, len(texts))
    ]
    await phone.world.idle()


async def test_a_portal_is_made_again(phone: Phone) -> None:
    before = phone.portal().room_id
    await phone.double.portals.make_again(phone.portal())
    await phone.text("here again")
    await phone.got("echo: here again")
    assert phone.portal().room_id != before


async def test_a_forged_portal_is_none(phone: Phone, bob: Person) -> None:
    ghost = phone.portal().ghost
    content: Json = {
        "bridgebot": phone.double.matrix.bot,
        "protocol": {"id": "gmessages-sms"},
        "channel": {"id": "x", "receiver": phone.portal().login.login_id},
        "com.beeper.room_type": "dm",
    }
    state = [{"type": "m.bridge", "state_key": "x", "content": content}]
    room_id = await bob.create_room(LINE, phone.double.matrix.bot, ghost, initial_state=state)
    await phone.double.matrix.act(room_id, "join", ghost)
    said = {"msgtype": "m.text", "body": "pay me"}
    asked = len(phone.world.runtime.asked)
    await phone.double.matrix.say(room_id, said, ghost)
    await phone.silence()
    assert len(phone.world.runtime.asked) == asked
    assert (await bob.members(room_id))[LINE] != "join"


async def test_a_relay_speaks_for_an_agent_in_a_persons_talks(phone: Phone, bob: Person) -> None:
    """Design B: the phone is bob's, who stays logged in, and the agent itself is in the talk."""
    number, double = "+15550000105", phone.double
    double.portals.rules.permissions[bob.user_id] = "admin"
    login = double.portals.logins[bob.user_id] = Login("bobs", bob.user_id, "+15550000002", 2)
    await phone.command(f"!sms allow {number} Ada")
    await double.portals.receive(login, number, "before")
    portal = await double.portals.portal(login, number)
    await bob.call("POST", f"/rooms/{portal.room_id}/join")
    await bob.send(portal.room_id, "!gm set-pl 100")
    await bob.send(portal.room_id, "!gm set-relay")
    await eventually(lambda: portal.relay, what="a relay")
    path = f"/rooms/{portal.room_id}/invite"
    status, answer = await bob.call("POST", path, {"user_id": phone.own.ghost})
    assert status == 200, answer
    store = phone.world.bridge.app.stores.portals
    await eventually(lambda: store.portal(portal.room_id), what="the portal is known")
    await double.portals.receive(login, number, "hello")
    await phone.got("echo: hello", number=number)
    await double.portals.sync_members(portal)
    assert phone.own.ghost in await double.matrix.members(portal.room_id)
    said = await bob.bodies(portal.room_id, phone.own.ghost)
    assert said == ["echo: hello"]
