"""What people are asked stays as it was asked, or it counts for nothing."""

import asyncio

import pytest
from tests.builders import APPROVABLE, message
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage
from tests.waiting import Clock, eventually

from letta_matrix.common.tools import ToolCall
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import ApprovalRequested, StopReason, TurnFinished
from letta_matrix.store.approvals import Approval, ApprovalStatus

ROOM, GHOST = "!1:test", "@agent_1:test"
OFFERED = ("✅", "❌")
ASKS = ApprovalRequested("call-1", "Bash", {"command": "date"}, always=False)


@pytest.fixture
async def asked(stage: Stage, fake: FakeHomeserver) -> Approval:
    """An approval that a person in the agent's room was asked for."""
    await stage.again(destructive_tools=True)
    await stage.use(MemoryRuntime(script=lambda _: [ASKS, TurnFinished(StopReason.END_TURN)]))
    await stage.admit(message("what day is it?"))
    store = stage.stores.approvals

    async def shown() -> list[Approval]:
        return [one for one in await store.pending() if await _event_of(stage, one)]

    (approval,) = await eventually(shown)
    return approval


async def _event_of(stage: Stage, approval: Approval) -> str | None:
    entries = await stage.stores.outbox.of_turn(approval.turn_id)
    return next(one.event_id for one in entries if one.txn_id == approval.prompt_txn)


async def allow(stage: Stage, approval: Approval) -> bool:
    approvals = stage.parts.approvals
    return await approvals.answer(approval, ApprovalStatus.ALLOWED, by="@ann:test")


async def test_a_question_as_it_was_asked_is_answered(stage: Stage, asked: Approval) -> None:
    assert await allow(stage, asked)
    await stage.idle()
    assert stage.runtime.answers["call-1"].allow


@pytest.mark.parametrize("attack", ["edited", "removed"])
async def test_a_question_that_was_changed_is_denied(
    stage: Stage, fake: FakeHomeserver, asked: Approval, attack: str
) -> None:
    event_id = await _event_of(stage, asked)
    (question,) = [one for one in fake.events[ROOM] if one["event_id"] == event_id]
    if attack == "edited":
        new = {"msgtype": "m.notice", "body": "May I run `Bash`?\n\n`date`"}
        relation = {"rel_type": "m.replace", "event_id": event_id}
        content = {**new, "m.new_content": new, "m.relates_to": relation}
        edit = {**question, "event_id": "$edit", "content": content}
        fake.events[ROOM].append(edit)
    else:
        question["content"] = {}
    assert not await allow(stage, asked)
    await stage.idle()
    assert not stage.runtime.answers["call-1"].allow
    assert "nobody knows what was allowed" in stage.runtime.answers["call-1"].message


async def test_a_question_on_its_way_is_answered(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.again(destructive_tools=True)
    await stage.use(MemoryRuntime(script=lambda _: [ASKS, TurnFinished(StopReason.END_TURN)]))
    held = fake.hold("PUT .*/send/")
    await stage.admit(message("what day is it?"))
    (approval,) = await eventually(stage.stores.approvals.pending)
    assert await _event_of(stage, approval) is None
    assert await allow(stage, approval)
    held.set()
    await stage.idle()
    assert stage.runtime.answers["call-1"].allow


async def test_what_cannot_be_looked_at_waits(
    stage: Stage, fake: FakeHomeserver, asked: Approval, clock: Clock
) -> None:
    await fake.go_away()
    answer = asyncio.ensure_future(allow(stage, asked))
    await clock.until(answer.done, step=1)
    with pytest.raises(HomeserverUnavailable):
        await answer
    assert await stage.stores.approvals.pending() == [asked]
    await fake.start()
    assert await allow(stage, asked)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("matrix_edit_message", {"message": "May I run `Bash`?\n\n`date`"}),
        ("matrix_redact", {}),
        ("matrix_react", {"key": "✅"}),
    ],
)
async def test_an_agent_leaves_its_question_alone(
    stage: Stage, fake: FakeHomeserver, asked: Approval, tool: str, arguments: dict[str, str]
) -> None:
    event_id = str(await _event_of(stage, asked))
    await eventually(lambda: len(fake.messages(ROOM, "m.reaction")) == len(OFFERED))
    before = len(fake.events[ROOM])
    call = ToolCall(
        "agent-1", "c1", "t1", tool, {"room_id": ROOM, "event_id": event_id, **arguments}, "r1"
    )
    result = await stage.parts.toolbox.handler("memory")(call)
    assert (result.ok, "sent by the bridge itself" in result.text) == (False, True), result.text
    assert len(fake.events[ROOM]) == before


async def test_others_than_admins_approve_only_what_the_operator_names(stage: Stage) -> None:
    assert APPROVABLE["approver_tools"]
    await stage.again(approver_tools=[])
    await stage.use(MemoryRuntime(script=lambda _: [ASKS, TurnFinished(StopReason.END_TURN)]))
    await stage.admit(message("what day is it?"))
    (approval,) = await eventually(stage.stores.approvals.pending)
    approvals = stage.parts.approvals
    allowed = ApprovalStatus.ALLOWED
    assert not approvals.approvers.may_answer(
        approval, allowed, by=approval.requester, room_id=ROOM
    )
    assert approvals.approvers.who_may(approval) == "an admin"
