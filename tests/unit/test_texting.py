"""Texts that agents begin: to whom, when, how often, and where the answer comes."""

import asyncio
from typing import Any

import pytest
from tests.builders import PERSON, message
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.portal_kit import out
from tests.sms_kit import CONTACT, LINE, NUMBER, PORTAL, texts_with, with_line
from tests.stage import Stage
from tests.waiting import eventually

from letta_matrix.access.faults import Fault as Why
from letta_matrix.access.faults import ToolError
from letta_matrix.access.principal import TOOL_SCOPES, Principal, Scope
from letta_matrix.common.tools import ToolCall
from letta_matrix.portals.provisioning import Known, Provisioning, ProvisioningFault
from letta_matrix.portals.provisioning import Why as Refusal
from letta_matrix.store.portals import BLOCKED, Contact

OTHER = "+15550000009"
PROGRAM = Principal("token:1", "agent-1", frozenset({Scope.WRITE}))


class Played(Provisioning):
    """A bridge that makes talks as it is asked to; `fault` is what it says instead."""

    def __init__(self) -> None:
        self.stage: Stage | None = None
        self.begun: list[str] = []
        self.fault: ProvisioningFault | None = None

    async def talk_with(self, number: str) -> Known:
        assert self.stage is not None
        if self.fault is not None:
            raise self.fault
        self.begun.append(number)
        await texts_with(self.stage, number=number)
        return Known(CONTACT, "", (number,), PORTAL)


@pytest.fixture
def bridge(monkeypatch: pytest.MonkeyPatch) -> Played:
    one = Played()

    def make(*_: object, **_how: object) -> Played:
        return one

    monkeypatch.setattr("letta_matrix.app.phone_line.Provisioning", make)
    return one


async def line_of(stage: Stage, bridge: Played, **changes: Any) -> Stage:
    routes = {NUMBER: "agent-1", OTHER: "agent-2"}
    settings: dict[str, Any] = {"default_agent": None, "routes": routes}
    bridge.stage = await with_line(stage, **settings | changes)
    return bridge.stage


async def send(
    line: Stage,
    text: str = "hello **you**",
    number: str = NUMBER,
    principal: Principal = PROGRAM,
    **more: str,
) -> Any:
    arguments = {"number": number, "text": text, **more}
    return await line.parts.toolbox.call(principal, "sms_send", arguments, door="mcp")


async def refusal(line: Stage, **arguments: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        await send(line, **arguments)
    return caught.value


def call_by(agent_id: str, conversation_id: str, **arguments: str) -> ToolCall:
    given = {"number": NUMBER, "text": "hello", **arguments}
    return ToolCall(agent_id, conversation_id, "c1", "sms_send", given, "r1")


async def test_without_a_phone_line_nobody_is_offered_it(stage: Stage) -> None:
    assert "sms_send" not in {one.name for one in stage.parts.toolbox.specs()}


async def test_a_text_goes_out_as_one_and_is_noted(
    stage: Stage, bridge: Played, fake: FakeHomeserver
) -> None:
    line = await line_of(stage, bridge)
    assert "sms_send" in {one.name for one in line.parts.toolbox.specs()}
    told = await send(line, number="tel:+1 (555) 123-4567")
    (text,) = fake.messages(PORTAL)
    assert told == {"number": NUMBER, "room_id": PORTAL, "event_id": text["event_id"]}
    assert (text["sender"], text["content"]["body"]) == (LINE, "hello you")
    assert text["content"]["com.beeper.per_message_profile"]["displayname"] == "Agent 1"
    again = await send(line, "and again")
    assert bridge.begun == [NUMBER]
    assert again["room_id"] == PORTAL
    newest = line.stores.audit.newest
    noted = await eventually(
        lambda: newest(2), lambda found: [one.outcome for one in found] == ["ok", "ok"]
    )
    assert [(one.tool, one.room_id) for one in noted] == [("sms_send", PORTAL)] * 2


async def test_a_long_text_is_numbered(stage: Stage, bridge: Played, fake: FakeHomeserver) -> None:
    line = await line_of(stage, bridge)
    told = await send(line, "word " * 200)
    assert len(told["more_event_ids"]) == 2
    assert [one[:5] for one in out(fake, PORTAL)] == ["(1/3)", "(2/3)", "(3/3)"]


async def test_only_numbers_with_a_route_to_the_agent_are_written_to(
    stage: Stage, bridge: Played, fake: FakeHomeserver
) -> None:
    line = await line_of(stage, bridge)
    for number in (OTHER, "+15557777777"):
        assert (await refusal(line, number=number)).fault is Why.FORBIDDEN
    assert (await refusal(line, number="Ann")).fault is Why.INVALID
    assert (await refusal(line, number="0170 1234567")).fault is Why.INVALID
    # A route for everybody is no leave to write to anybody.
    line = await line_of(stage, bridge, default_agent="agent-1", routes={})
    assert (await refusal(line)).fault is Why.FORBIDDEN
    assert bridge.begun == []
    await texts_with(line)
    assert (await send(line))["room_id"] == PORTAL


async def test_who_may_not_be_written_to_now(
    stage: Stage, bridge: Played, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = await line_of(stage, bridge)
    book = line.stores.portals
    await book.decide(Contact("sms", NUMBER, stopped=True))
    assert "wants no more" in str(await refusal(line))
    await book.decide(Contact("sms", NUMBER))
    await send(line, "one")
    await book.hold(book.all(), held=True)
    assert (await refusal(line)).fault is Why.CONFLICT
    await book.hold(book.all(), held=False)

    def until_open(*_: object) -> float:
        return 600.0

    monkeypatch.setattr("letta_matrix.operations.toolbox.texting.until_open", until_open)
    quiet = await refusal(line)
    assert (quiet.fault, quiet.retry_after) == (Why.RATE_LIMITED, 600.0)
    assert out(fake, PORTAL) == ["one"]


async def test_texts_that_are_begun_count(stage: Stage, bridge: Played) -> None:
    line = await line_of(stage, bridge, contact_per_day=3)
    await texts_with(line)
    await line.tell(message("hello", PORTAL, sender=CONTACT))
    await send(line, "one")
    await send(line, "two")
    assert "used up" in str(await refusal(line))
    once = {"transaction_id": "again"}
    for _ in range(2):
        assert "used up" in str(await refusal(line, **once))


async def test_a_call_that_was_refused_at_first_counts_when_it_comes_again(
    stage: Stage, bridge: Played
) -> None:
    line = await line_of(stage, bridge, contact_per_day=1)
    bridge.fault = ProvisioningFault("the bridge cannot be reached", Refusal.UNAVAILABLE)
    assert (await refusal(line, transaction_id="t1")).fault is Why.UNAVAILABLE
    bridge.fault = None
    await send(line, transaction_id="t1")
    assert "used up" in str(await refusal(line))


async def test_what_is_under_way_counts(stage: Stage, bridge: Played, fake: FakeHomeserver) -> None:
    line = await line_of(stage, bridge, contact_per_day=1)
    await texts_with(line)
    slow = fake.hold("PUT .*/send/m.room.message")
    sending = [asyncio.create_task(send(line, f"text {number}")) for number in range(3)]
    await eventually(lambda: fake.matching("PUT .*/send/m.room.message"))
    slow.set()
    done = await asyncio.gather(*sending, return_exceptions=True)
    assert sorted(isinstance(one, ToolError) for one in done) == [False, True, True]
    assert len(out(fake, PORTAL)) == 1


async def test_what_is_decided_by_another_name_holds(
    stage: Stage, bridge: Played, fake: FakeHomeserver
) -> None:
    line = await line_of(stage, bridge)
    await texts_with(line)
    ghost = line.parts.portals.bridges["sms"].remote_id(CONTACT)
    for agent_id in (BLOCKED, "agent-2"):
        await line.stores.portals.decide(Contact("sms", ghost, agent_id, stopped=False))
        assert (await refusal(line)).fault is Why.FORBIDDEN
    assert out(fake, PORTAL) == []


async def test_people_begin_texts_by_a_command(
    stage: Stage, bridge: Played, fake: FakeHomeserver
) -> None:
    stage._sections |= {"permissions": {"test": "user", PERSON: "admin"}}
    line = await line_of(stage, bridge)
    await line.tell(message("!sms send +1-555-123-4567 good morning"))
    assert fake.bodies("!1:test", "m.notice") == [f"Sent to `{NUMBER}`."]
    assert out(fake, PORTAL) == ["good morning"]
    await line.tell(message("!sms send +15557777777 hello"))
    assert "may not write" in fake.bodies("!1:test", "m.notice")[-1]


async def test_the_same_call_texts_once(stage: Stage, bridge: Played, fake: FakeHomeserver) -> None:
    line = await line_of(stage, bridge)
    await texts_with(line)
    fake.forgetful = True
    fake.fail("PUT .*sms:test/send/", Fault(502, takes_effect=True))
    told = await send(line, transaction_id="t1")
    assert await send(line, transaction_id="t1") == told
    await line.again()
    assert await send(line, transaction_id="t1") == told
    assert out(fake, PORTAL) == ["hello you"]


async def test_the_answer_comes_to_the_conversation_that_the_text_was_written_in(
    stage: Stage, bridge: Played, fake: FakeHomeserver
) -> None:
    line = await line_of(stage, bridge)
    asked = line.runtime.asked
    await line.tell(message("text them", sender=PERSON))
    conversation = asked[0].conversation_id
    handle = line.parts.toolbox.handler("memory")
    result = await handle(call_by("agent-1", conversation))
    assert result.ok, result.text
    await line.tell(message("hi", PORTAL, sender=CONTACT))
    assert asked[1].conversation_id == conversation
    assert out(fake, PORTAL) == ["hello", "echo: hi"]
    # What is asked in the agent's own room goes on there.
    await line.tell(message("and?", sender=PERSON))
    assert asked[2].conversation_id == conversation
    refused = await handle(call_by("agent-2", conversation))
    assert "may not write" in refused.text


async def test_a_bridge_that_does_not_do_it_is_told_of(
    stage: Stage, bridge: Played, fake: FakeHomeserver
) -> None:
    line = await line_of(stage, bridge)
    bridge.fault = ProvisioningFault("no phone is paired with the line", Refusal.LOGGED_OUT)
    assert "no phone is paired" in str(await refusal(line))
    bridge.fault = ProvisioningFault("the bridge cannot be reached", Refusal.UNAVAILABLE)
    assert (await refusal(line)).fault is Why.UNAVAILABLE
    assert fake.messages(PORTAL) == []


async def test_scopes_and_rooms_hold(stage: Stage, bridge: Played) -> None:
    line = await line_of(stage, bridge)
    reader = Principal("token:2", "agent-1", frozenset({Scope.READ}))
    assert (await refusal(line, principal=reader)).fault is Why.FORBIDDEN
    bound = Principal("token:3", "agent-1", frozenset({Scope.WRITE}), rooms=frozenset({"!x:test"}))
    assert (await refusal(line, principal=bound)).fault is Why.FORBIDDEN
    assert bridge.begun == []
    outsider = Principal("token:4", "", TOOL_SCOPES)
    assert (await refusal(line, principal=outsider)).fault is Why.FORBIDDEN
    bot = Principal("token:5", "", frozenset(Scope))
    assert (await send(line, principal=bot))["number"] == NUMBER
