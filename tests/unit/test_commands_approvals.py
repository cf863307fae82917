"""Commands that answer tool approvals."""

import time

import pytest
from tests.command_stage import ADMIN, BOT_ROOM, ROOM, STRANGER, Stage, crashing_at, stage_on
from tests.fake_homeserver import FakeHomeserver

from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.approvals import ApprovalStatus
from letta_matrix.store.database import Database


@pytest.fixture
async def stage(
    database: Database, directory: AgentDirectory, homeserver: Homeserver, fake: FakeHomeserver
) -> Stage:
    return await stage_on(database, directory, homeserver, fake)


async def test_the_only_approval_needs_no_name(stage: Stage) -> None:
    assert await stage.say("approve") == "No approval waits here."
    await stage.asked("k1")
    assert await stage.say("approve") == "`Bash`: allowed."
    assert stage.approvals.told == [("k1", ApprovalStatus.ALLOWED, "")]
    assert await stage.say("approve k1") == "`Bash` cannot be answered any more: allowed."


async def test_of_several_approvals_one_is_named(stage: Stage) -> None:
    turn = await stage.working()
    for number in (1, 2, 3):
        await stage.asked(f"k{number}", turn, asked_at=time.time() - 60 + number)
    which = await stage.say("approve")
    assert which.startswith("3 approvals wait here: say which, `!approve N`.")
    assert await stage.say("approve 1 always") == "`Bash`: allowed for good."
    # The numbers stay when one is answered, so that nobody allows what they did not see.
    assert "cannot be answered any more: allowed for good" in await stage.say("approve 1")
    assert await stage.say("deny 2 too dangerous, don't") == (
        "`Bash`: denied (too dangerous, don't)."
    )
    assert await stage.say("approve 9") == "No approval `9` waits here; `!status` numbers them."
    assert await stage.say("deny 9 x") == "No approval `9` waits here; `!status` numbers them."
    assert await stage.say("approve nope") == (
        "No approval `nope` waits here; `!status` numbers them."
    )
    assert await stage.say("deny not that") == "`Bash`: denied (not that)."
    assert stage.approvals.told == [
        ("k1", ApprovalStatus.ALWAYS, ""),
        ("k2", ApprovalStatus.DENIED, "too dangerous, don't"),
        ("k3", ApprovalStatus.DENIED, "not that"),
    ]


async def test_a_reply_to_the_question_means_that_one(stage: Stage) -> None:
    for key in ("k1", "k2", "k3"):
        await stage.asked(key)
    assert await stage.say("approve", reply_to="$asks-k2") == "`Bash`: allowed."
    assert await stage.say("deny k2 is no reason", reply_to="$asks-k3") == (
        "`Bash`: denied (k2 is no reason)."
    )
    assert [key for key, *_ in stage.approvals.told] == ["k2", "k3"]


async def test_nobody_allows_what_was_asked_after_they_wrote(stage: Stage) -> None:
    await stage.asked("k1", asked_at=time.time())
    answer = await stage.say("approve", sent_at=time.time() - 5)
    assert answer == "`Bash` was asked for after you wrote that; to allow it: `!approve k1`."
    assert await stage.status_of("k1") is ApprovalStatus.PENDING
    assert await stage.say("approve k1", sent_at=time.time() - 5) == "`Bash`: allowed."


async def test_what_nobody_answered_in_time_cannot_be_answered(stage: Stage) -> None:
    approval = await stage.asked("k1", status=ApprovalStatus.EXPIRED)
    assert "denied, as nobody answered in time" in await stage.say(f"approve {approval.key}")


async def test_strangers_are_told_who_may_answer(stage: Stage) -> None:
    await stage.asked("k1")
    for line in ("approve", "deny", "approve k1", "approve 1 always"):
        assert await stage.say(line, sender=STRANGER) == (
            "`Bash` is for @ann:test alone to allow or deny."
        )
    assert stage.approvals.told == []
    assert await stage.say("approve", sender=ADMIN) == "`Bash`: allowed."


async def test_always_only_where_it_is_offered(stage: Stage) -> None:
    await stage.asked("k1", always=False)
    assert "cannot be allowed for good" in await stage.say("approve always")
    await stage.say("react-always k1")
    assert await stage.status_of("k1") is ApprovalStatus.PENDING


@pytest.mark.parametrize(
    ("verb", "status"),
    [
        ("react-approve", ApprovalStatus.ALLOWED),
        ("react-always", ApprovalStatus.ALWAYS),
        ("react-deny", ApprovalStatus.DENIED),
    ],
)
async def test_reactions_are_silent(stage: Stage, verb: str, status: ApprovalStatus) -> None:
    await stage.asked("k1")
    assert await stage.say(f"{verb} k1", sender=STRANGER) == ""
    assert await stage.say(f"{verb} k1", "!2:test", agent_id="agent-2") == ""
    assert await stage.say(f"{verb} k1 k2") == ""
    assert await stage.say(verb) == ""
    assert await stage.say(f"{verb} k9") == ""
    assert await stage.status_of("k1") is ApprovalStatus.PENDING
    assert await stage.say(f"{verb} k1") == ""
    assert await stage.status_of("k1") is status
    assert stage.fake.messages(ROOM) == []


async def test_approvals_of_other_rooms_are_out_of_reach(stage: Stage) -> None:
    await stage.asked("k1")
    elsewhere = {"room_id": "!2:test", "agent_id": "agent-2", "sender": ADMIN}
    assert await stage.say("approve", **elsewhere) == "No approval waits here."
    assert "No approval `k1` waits here" in await stage.say("approve k1", **elsewhere)


async def test_with_the_bot_one_answers_what_one_may(stage: Stage) -> None:
    await stage.asked("k1")
    assert await stage.say("approve", BOT_ROOM, sender=STRANGER) == "No approval waits here."
    assert "No approval `k1`" in await stage.say("approve k1", BOT_ROOM, sender=STRANGER)
    assert await stage.say("approve 1", BOT_ROOM) == "`Bash`: allowed."


async def test_after_a_crash_a_number_means_the_same_approval(stage: Stage) -> None:
    await stage.asked("k1", asked_at=time.time() - 100)
    await stage.asked("k2")
    turn = await stage.turn("approve 1")
    await crashing_at(stage, turn, "freeze")
    assert await stage.status_of("k1") is ApprovalStatus.ALLOWED
    assert await stage.rerun(await stage.reload(turn)) == "`Bash`: allowed."
    assert await stage.status_of("k2") is ApprovalStatus.PENDING


async def test_after_a_crash_a_denial_keeps_its_whole_reason(stage: Stage) -> None:
    await stage.asked("k1")
    turn = await stage.turn("deny because of that")
    await crashing_at(stage, turn, "freeze")
    answer = await stage.rerun(await stage.reload(turn))
    assert answer == "`Bash`: denied (because of that)."
    assert stage.approvals.told == [("k1", ApprovalStatus.DENIED, "because of that")]
