"""Agents on the phone, through the double of mautrix-gmessages on a real homeserver."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import contextmanager

import aiohttp
import pytest
from PIL import Image
from tests.doubles.gmessages import gmessages_on
from tests.doubles.gmessages.portals import RCS, Login, Rules
from tests.integration.bridge_world import bridge_on, new_agent
from tests.integration.people import Json, Person, Room
from tests.integration.phone_stage import ANN, BEN, EVE, LINE, Phone, pair
from tests.scripts import held, obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.common.tools import ToolCall
from letta_matrix.portals.provisioning import Provisioning
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest

STOPPED = "You get no more messages from here. Send START to go on."
STARTED = "You get messages from here again. Send STOP to end them."


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
    await phone.silence()
    await phone.text("STOP", EVE)
    await phone.silence()
    assert await phone.sent(EVE) == []
    assert "`+15550000103` is answered by `Ada`" in await phone.command("!sms allow 5550000103 Ada")
    # Whoever wanted nothing before they had a route wants nothing with one, until they say so.
    await phone.text("and now?", EVE)
    await phone.silence()
    assert await phone.sent(EVE) == []
    await phone.text("start", EVE)
    await phone.got(STARTED, number=EVE)
    await phone.text("and now?", EVE)
    await phone.got(STARTED, "echo: and now?", number=EVE)


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


def picture(side: int = 40, *, noisy: bool = False) -> bytes:
    file = io.BytesIO()
    flat = Image.new("RGB", (side, side), "red")
    (Image.effect_noise((side, side), 100).convert("RGB") if noisy else flat).save(file, "PNG")
    return file.getvalue()


@contextmanager
def working(phone: Phone) -> Generator[None]:
    """The agent works on what it is asked as long as this lasts."""
    release = asyncio.Event()

    def script(_: TurnRequest) -> Iterable[TurnEvent | float]:
        return held(release)

    phone.world.runtime.script = script
    try:
        yield
    finally:
        phone.world.runtime.script = obey
        release.set()


async def test_a_contacts_picture_reaches_the_agent(phone: Phone) -> None:
    double, asked = phone.double, phone.world.runtime.asked
    login, before = double.portals.logins[LINE], len(asked)
    words = {"body": "what is this?", "filename": "cat.png"}
    await double.portals.receive_file(login, ANN, picture(), "image/png", **words)
    await eventually(lambda: len(asked) > before, what="it is asked")
    (seen,) = asked[before].images
    assert (seen.name, seen.media_type) == ("cat.png", "image/png")
    assert asked[before].text.startswith("what is this?\n\n[image: cat.png, image/png, ")
    await double.portals.receive_file(login, ANN, b"%PDF-1.7", "application/pdf", body="a.pdf")
    await eventually(lambda: len(asked) > before + 1, what="it is asked")
    assert asked[before + 1].text == "[file: a.pdf, application/pdf, 8 B: content not shown]"
    await phone.world.idle()
    await phone.got(*(f"echo: {one.text}" for one in asked[before:]))


async def test_an_agents_picture_goes_out_as_large_as_carriers_take_it(phone: Phone) -> None:
    runtime, large = phone.world.runtime, picture(900, noisy=True)
    assert len(large) > 600_000
    before, handle = len(runtime.asked), phone.world.bridge.app.toolbox.handler("memory")
    given = {"content_base64": base64.b64encode(large).decode(), "caption": "the **plan**"}
    with working(phone):
        await phone.text("show me")
        await eventually(lambda: len(runtime.asked) > before, what="it is asked")
        agent_id, conversation_id = phone.own.agent.agent_id, runtime.asked[before].conversation_id
        call = ToolCall(agent_id, conversation_id, "c", "portal_send_image", given, "a picture")
        result = await handle(call)
        assert result.ok, result.text
        assert (await handle(call)).text == result.text
    await phone.world.idle()
    (sent,) = await eventually(lambda: phone.double.phone.pictures, what="a picture")
    assert (sent.number, sent.name, sent.caption) == (ANN, "image.jpg", "the plan")
    assert len(sent.data) <= 600_000
    assert Image.open(io.BytesIO(sent.data)).format == "JPEG"


async def test_sms_becomes_rcs(phone: Phone) -> None:
    await phone.double.portals.switch(phone.portal(), RCS)
    await eventually(lambda: (known := phone.known()) is not None and known.protocol == RCS)
    shown = phone.double.phone.shown
    with working(phone):
        await phone.text("by other means")
        await eventually(lambda: {(RCS, "m.typing"), (RCS, "m.receipt")} <= {*shown}, what="both")
    await phone.text("and again")
    await phone.got("echo: and again")
    # Before, nothing of the kind.
    assert {protocol for protocol, _ in shown} == {RCS}


async def test_a_phone_that_is_away_and_a_bridge_that_is_are_told_of(phone: Phone) -> None:
    watch = phone.world.bridge.app.phone_line.watch
    assert watch is not None

    async def told() -> str:
        await watch.look()
        health = await phone.world.health()
        (check,) = [one for one in health["checks"] if one["name"] == "phone line"]
        return check["says"]

    assert await told() == ""
    await phone.do("state", connected=False)
    assert "does not answer its bridge" in await told()
    await phone.do("state", connected=True)
    assert await told() == ""
    await phone.double.stop()
    assert "cannot be reached" in await told()
    await phone.double.start()
    assert await told() == ""


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
