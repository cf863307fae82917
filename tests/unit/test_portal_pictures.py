"""Pictures that agents send to whoever they answer on another network."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from PIL import Image
from tests.builders import PERSON, message
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.portal_kit import AGENT, opened, out, said, with_bridge
from tests.portal_kit import PORTAL as ROOM
from tests.scripts import held
from tests.sms_kit import BOT, CONTACT, LINE, NUMBER, PORTAL, texts_with, with_line
from tests.stage import Stage
from tests.waiting import eventually

from letta_matrix.access.faults import Fault as Why
from letta_matrix.access.faults import ToolError
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.common.pictures import PictureFault, prepare
from letta_matrix.common.tools import ToolCall, ToolResult
from letta_matrix.portals.plain_text import plain
from letta_matrix.runtimes.protocol import TurnRequest
from letta_matrix.store.audit import AuditEntry
from letta_matrix.store.portals import Contact

TOOL = "portal_send_image"
LEAST = 50_000
"""The smallest limit of bytes that can be configured."""


def picture(side: int = 40, kind: str = "PNG", *, noisy: bool = False) -> bytes:
    file = io.BytesIO()
    flat = Image.new("RGB", (side, side), "red")
    (Image.effect_noise((side, side), 100).convert("RGB") if noisy else flat).save(file, kind)
    return file.getvalue()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Talk:
    """A contact whose question the agent works on."""

    def __init__(self, line: Stage) -> None:
        self.line = line

    async def send(self, request_id: str = "r1", **arguments: str) -> ToolResult:
        """The agent sends a picture."""
        given = {"content_base64": encoded(picture())} | arguments
        conversation_id = self.line.runtime.asked[-1].conversation_id
        call = ToolCall("agent-1", conversation_id, "c", TOOL, given, request_id)
        return await self.line.parts.toolbox.handler("memory")(call)


@asynccontextmanager
async def talking(line: Stage, event: Any = None) -> AsyncGenerator[Talk]:
    """While the agent works on what a contact has asked."""
    release = asyncio.Event()

    def script(_: TurnRequest) -> Any:
        return held(release)

    line.runtime.script, before = script, len(line.runtime.asked)
    await line.admit(event or message("show me", PORTAL, sender=CONTACT))
    await eventually(lambda: len(line.runtime.asked) > before)
    yield Talk(line)
    release.set()
    await line.idle()


@pytest.fixture
async def line(stage: Stage) -> Stage:
    stage._sections |= {"permissions": {"test": "user", PERSON: "admin"}}
    line = await with_line(stage, image_bytes=LEAST)
    await texts_with(line)
    return line


async def test_a_picture_goes_out_before_the_answer(line: Stage, fake: FakeHomeserver) -> None:
    assert TOOL in {one.name for one in line.parts.toolbox.specs()}
    async with talking(line) as talk:
        result = await talk.send(name="plan", caption="the **plan**")
    assert result.ok, result.text
    shown, answer = fake.messages(PORTAL)
    assert shown["sender"] == LINE
    content = shown["content"]
    assert {key: content[key] for key in ("msgtype", "body", "filename", "info")} == {
        "msgtype": "m.image",
        "body": "the plan",
        "filename": "plan.png",
        "info": {"mimetype": "image/png", "size": len(picture()), "w": 40, "h": 40},
    }
    assert content["url"].startswith("mxc://test/")
    assert content["com.beeper.per_message_profile"]["displayname"] == "Agent 1"
    assert content["org.letta.matrix"]["agent_id"] == "agent-1"
    assert answer["content"]["body"].startswith("word0")
    told = json.loads(result.text)
    assert (told["event_id"], "note" in told) == (shown["event_id"], False)


async def test_a_large_picture_is_made_smaller(line: Stage, fake: FakeHomeserver) -> None:
    large = picture(600, noisy=True)
    assert len(large) > LEAST
    async with talking(line) as talk:
        result = await talk.send(content_base64=encoded(large))
    assert "at most 50 kB go out" in json.loads(result.text)["note"]
    (upload,) = fake.matching("POST /_matrix/media/v3/upload")
    info = fake.messages(PORTAL)[0]["content"]["info"]
    assert info["mimetype"] == "image/jpeg"
    assert info["size"] == upload.body["bytes"] <= LEAST


async def test_what_no_phone_takes_is_refused_in_words(line: Stage, fake: FakeHomeserver) -> None:
    large = picture(600, noisy=True)
    cases = {
        encoded(b"%PDF-1.7 and more"): "no picture",
        encoded(large[: LEAST + 1]): "could not be made smaller: it is damaged",
        encoded(b""): "Give either",
    }
    async with talking(line) as talk:
        for number, (data, why) in enumerate(cases.items()):
            result = await talk.send(f"r{number}", content_base64=data)
            assert (result.ok, why in result.text) == (False, True), result.text
        result = await talk.send("long", caption="word " * 200)
        assert "longer than one message" in result.text
    assert [one["content"]["msgtype"] for one in fake.messages(PORTAL)] == ["m.text"]


async def test_it_cannot_be_made_as_small_as_nothing() -> None:
    with pytest.raises(PictureFault, match="small enough"):
        await prepare(picture(300, noisy=True), 2048, 100)


async def test_with_rcs_words_go_by_themselves(line: Stage, fake: FakeHomeserver) -> None:
    told = {"bridgebot": BOT, "protocol": {"id": "gmessages-rcs"}, "channel": {"id": PORTAL}}
    told |= {"com.beeper.room_type": "dm"}
    await line.tell(fake.set_state(PORTAL, "m.bridge", told, "fi.mau.gmessages", BOT))
    async with talking(line) as talk:
        result = await talk.send(caption="the plan")
    assert result.ok, result.text
    shown, words, _ = fake.messages(PORTAL)
    assert [one["content"]["body"] for one in (shown, words)] == ["image.png", "the plan"]
    assert json.loads(result.text)["more_event_ids"] == [words["event_id"]]


async def test_only_while_somebody_there_is_answered(line: Stage, fake: FakeHomeserver) -> None:
    given = {"content_base64": encoded(picture())}
    program = Principal("token:1", "agent-1", frozenset({Scope.WRITE}))
    with pytest.raises(ToolError, match="answering nobody"):
        await line.parts.toolbox.call(program, TOOL, given, door="mcp")
    async with talking(line, message("draw", sender=PERSON)) as talk:
        assert "answering nobody" in (await talk.send()).text
    async with talking(line) as talk:
        pass
    assert "answering nobody" in (await talk.send()).text
    assert len(fake.messages(PORTAL)) == 1


async def test_nothing_goes_out_where_the_answer_would_not(
    line: Stage, fake: FakeHomeserver
) -> None:
    book = line.stores.portals
    async with talking(line) as talk:
        await book.hold(book.all(), held=True)
        assert "Nothing may go out" in (await talk.send("r1")).text
        await book.hold(book.all(), held=False)
        await book.decide(Contact("sms", NUMBER, stopped=True))
        assert "Nothing may go out" in (await talk.send("r2")).text
        await book.decide(Contact("sms", NUMBER, "agent-2"))
        assert "Nothing may go out" in (await talk.send("r3")).text
    assert fake.messages(PORTAL) == []


async def test_pictures_count_as_texts(stage: Stage, fake: FakeHomeserver) -> None:
    line = await with_line(stage, contact_per_day=3)
    await texts_with(line)
    async with talking(line) as talk:
        assert [(await talk.send(f"r{number}")).ok for number in range(3)] == [True, True, False]
        assert "used up" in (await talk.send("r4")).text
    assert len(fake.messages(PORTAL)) == 3


@pytest.mark.parametrize("budget", ["contact_per_day", "per_day"])
async def test_pictures_and_texts_share_a_day_also_after_a_crash(stage: Stage, budget: str) -> None:
    changes: dict[str, Any] = {budget: 3}
    line = await with_line(stage, **changes)
    await texts_with(line)

    async def text(transaction_id: str) -> Any:
        arguments = {"number": NUMBER, "text": "hello", "transaction_id": transaction_id}
        program = Principal("token:1", "agent-1", frozenset({Scope.WRITE}))
        return await line.parts.toolbox.call(program, "sms_send", arguments, door="mcp")

    audit = line.stores.audit
    async with talking(line) as talk:
        assert (await talk.send("r1")).ok
        told = await text("t1")
        assert "used up" in (await talk.send("r2")).text
        calls = await eventually(lambda: audit.newest(3), all_ended)
    # As where the bridge has died before it had stored that they went well, and one comes again.
    for call in calls:
        await audit.end(call.seq, "cancelled")
    await line.again()
    assert await text("t1") == told
    with pytest.raises(ToolError, match="used up"):
        await text("t2")


def all_ended(calls: list[AuditEntry]) -> bool:
    return len(calls) == 3 and all(call.outcome for call in calls)


async def test_the_same_call_sends_once(line: Stage, fake: FakeHomeserver) -> None:
    fake.forgetful = True
    fake.fail("PUT .*sms:test/send/", Fault(502, takes_effect=True))
    async with talking(line) as talk:
        told = (await talk.send()).text
        assert (await talk.send()).text == told
    assert [one["content"]["msgtype"] for one in fake.messages(PORTAL)] == ["m.image", "m.text"]


async def test_a_call_that_was_cut_short_sends_once(line: Stage, fake: FakeHomeserver) -> None:
    async with talking(line) as talk:
        assert (await talk.send(caption="once")).ok
        newest = line.stores.audit.newest
        (entry,) = await eventually(lambda: newest(1), lambda found: found[0].outcome == "ok")
        # As where the bridge has died before it had stored that.
        await line.stores.audit.end(entry.seq, "cancelled")
        again = await talk.send(caption="once")
    assert again.ok, again.text
    assert len(fake.matching("POST /_matrix/media/v3/upload")) == 1
    assert out(fake, PORTAL)[:1] == ["once"]
    assert len(fake.messages(PORTAL)) == 2


async def test_an_agent_that_is_in_a_portal_itself_has_no_other_way(
    stage: Stage, fake: FakeHomeserver
) -> None:
    bridged = await with_bridge(stage, line=None)
    await opened(bridged, invited=AGENT)
    fake.members[ROOM].add(AGENT)
    async with talking(bridged, said("show me", room_id=ROOM)) as talk:
        given = {"room_id": ROOM, "content_base64": encoded(picture())}
        conversation_id = bridged.runtime.asked[-1].conversation_id
        handler = bridged.parts.toolbox.handler("memory")
        call = ToolCall("agent-1", conversation_id, "c", "matrix_send_image", given, "r0")
        assert TOOL in (await handler(call)).text
        words = {"room_id": ROOM, "message": "one more"}
        call = ToolCall("agent-1", conversation_id, "c", "matrix_send_message", words, "r2")
        assert "a talk on another network" in (await handler(call)).text
        assert (await talk.send()).ok
    assert [one["sender"] for one in fake.messages(ROOM)] == [AGENT, AGENT]
    assert "com.beeper.per_message_profile" not in fake.messages(ROOM)[0]["content"]


async def test_programs_without_leave_cannot(line: Stage) -> None:
    reader = Principal("token:2", "agent-1", frozenset({Scope.READ}))
    with pytest.raises(ToolError) as caught:
        await line.parts.toolbox.call(reader, TOOL, {}, door="mcp")
    assert caught.value.fault is Why.FORBIDDEN


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("See ![a plan](https://a.test/plan.png).", "See a plan (https://a.test/plan.png)."),
        ("![](https://a.test/plan.png)", "https://a.test/plan.png"),
        ("[![icon](https://a.test/i.png)](https://a.test)", "icon (https://a.test/i.png)"),
        ("![a plan](data:image/png;base64,AAAA)", "a plan"),
        ("![](data:image/png;base64,AAAA)", "(a picture)"),
        ("![a plan](mxc://test/1)", "a plan"),
    ],
)
def test_pictures_in_an_answer_are_words_with_a_link(markdown: str, text: str) -> None:
    assert plain(markdown).startswith(text)
