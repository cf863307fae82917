"""Commands that answer tool approvals."""

import time
from collections.abc import AsyncGenerator

import pytest
from tests.command_stage import (
    ADMIN,
    BOT_ROOM,
    ROOM,
    SHARED,
    STRANGER,
    Stage,
    crashing_at,
    stage_on,
)
from tests.fake_homeserver import FakeHomeserver

from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.approvals import ApprovalStatus
from letta_matrix.store.database import Database


@pytest.fixture
async def stage(
    database: Database, directory: AgentDirectory, homeserver: Homeserver, fake: FakeHomeserver
) -> AsyncGenerator[Stage]:
    made = await stage_on(database, directory, homeserver, fake)
    yield made
    await made.close()


async def test_the_only_approval_needs_no_name(stage: Stage) -> None:
    assert (await stage.say("approve")).startswith("No approval waits here. `!status` lists")
    await stage.asked("aaaa1111")
    assert await stage.say("approve") == "`Bash`: allowed."
    assert await stage.settled() == [("aaaa1111", ApprovalStatus.ALLOWED, "")]
    assert await stage.say("approve aaaa") == "`Bash` cannot be answered any more: allowed."


async def test_of_several_approvals_one_is_named(stage: Stage) -> None:
    turn = await stage.working()
    for key in ("aaaa1111", "bbbb2222", "cccc3333"):
        await stage.asked(key, turn)
    for line in ("approve", "deny", "deny not that"):
        which = (await stage.say(line)).splitlines()
        assert which[0] == f"Say which one is meant, as in `!{line.split()[0]} aaaa11`:"
        assert [one[:20] for one in which[2:]] == [
            "- `aaaa11`: `Bash` (",
            "- `bbbb22`: `Bash` (",
            "- `cccc33`: `Bash` (",
        ]
    assert await stage.settled() == []
    assert await stage.say("approve BBBB22") == "`Bash`: allowed."
    assert await stage.say("deny cccc too dangerous, don't") == (
        "`Bash`: denied (`too dangerous, don't`)."
    )
    for unknown in ("2", "aaa", "nope", "aaaa2"):
        assert await stage.say(f"approve {unknown}") == (
            f"No approval `{unknown}` waits here; `!status` lists their keys."
        )
    assert await stage.say("approve aaaa1111 always", sender=ADMIN) == "`Bash`: allowed for good."
    assert await stage.settled() == [
        ("aaaa1111", ApprovalStatus.ALWAYS, ""),
        ("bbbb2222", ApprovalStatus.ALLOWED, ""),
        ("cccc3333", ApprovalStatus.DENIED, "too dangerous, don't"),
    ]


async def test_a_beginning_that_two_keys_have_names_neither(stage: Stage) -> None:
    await stage.asked("aaaa1111")
    await stage.asked("aaaa2222", status=ApprovalStatus.EXPIRED)
    answer = await stage.say("approve aaaa")
    assert answer == "Several keys begin with `aaaa`; give more of one: `aaaa1111`, `aaaa2222`."
    assert await stage.status_of("aaaa1111") is ApprovalStatus.PENDING


async def test_what_was_seen_is_what_is_allowed(stage: Stage) -> None:
    """The one that was listed is settled when the answer to it comes, and another asks."""
    first = await stage.asked("aaaa1111", arguments={"command": "ls"})
    written = time.time()
    listed = await stage.say("status")
    assert "- `aaaa11`: `Bash` (`ls`) · 2 d left" in listed
    await stage.asked("bbbb2222", arguments={"command": "rm -rf /"}, asked_at=written - 40)
    await stage.approvals.store.decide(first, ApprovalStatus.EXPIRED)
    for line in ("approve 1", "approve aaaa11", "approve"):
        await stage.say(line, sent_at=written)
        assert await stage.status_of("bbbb2222") is ApprovalStatus.PENDING
    # By now they can have seen that it is the only one.
    assert await stage.say("approve", sent_at=time.time()) == "`Bash`: allowed."


async def test_a_reply_to_the_question_means_that_one(stage: Stage) -> None:
    for key in ("aaaa1111", "bbbb2222", "cccc3333"):
        await stage.asked(key)
    assert await stage.say("approve", reply_to="$asks-bbbb2222") == "`Bash`: allowed."
    assert await stage.say("deny bbbb2222 is no reason", reply_to="$asks-cccc3333") == (
        "`Bash`: denied (`bbbb2222 is no reason`)."
    )
    assert [key for key, *_ in await stage.settled()] == ["bbbb2222", "cccc3333"]


async def test_nobody_allows_what_was_asked_after_they_wrote(stage: Stage) -> None:
    asked_at = time.time()
    await stage.asked("k1", asked_at=asked_at)
    answer = await stage.say("approve", sent_at=asked_at - 5)
    assert answer.startswith("Say which one is meant, as in `!approve k1`:")
    assert await stage.status_of("k1") is ApprovalStatus.PENDING
    assert await stage.say("approve k1", sent_at=asked_at - 5) == "`Bash`: allowed."


async def test_without_a_key_it_is_that_of_the_thread(stage: Stage) -> None:
    await stage.rooms.joined(SHARED, "@agent_1:test", direct=False)
    await stage.asked("k1", await stage.working(SHARED, thread_id="$one"))
    await stage.asked("k2", await stage.working(SHARED, thread_id="$two"))
    answer = await stage.say("approve", SHARED)
    assert answer.startswith("Say which one is meant, as in `!letta approve k1`:")
    assert "`!letta approve KEY` or `!letta deny KEY`" in await stage.say("status", SHARED)
    assert [line[-20:] for line in answer.splitlines()[2:]] == [" · in another thread"] * 2
    assert await stage.say("approve", SHARED, thread_id="$two") == "`Bash`: allowed."
    assert [key for key, *_ in await stage.settled()] == ["k2"]
    assert await stage.say("approve k1", SHARED) == "`Bash`: allowed."


async def test_what_nobody_answered_in_time_cannot_be_answered(stage: Stage) -> None:
    approval = await stage.asked("k1", status=ApprovalStatus.EXPIRED)
    assert "denied, as nobody answered in time" in await stage.say(f"approve {approval.key}")


async def test_a_denial_is_one_however_long_its_reason(stage: Stage) -> None:
    await stage.asked("k1")
    told = await stage.say(f"deny {'no ' * 300}")
    assert told.startswith("`Bash`: denied (`no no")
    assert await stage.status_of("k1") is ApprovalStatus.DENIED


async def test_strangers_are_told_who_may_answer(stage: Stage) -> None:
    await stage.asked("k1")
    for line in ("approve", "deny", "approve k1", "approve k1 always"):
        assert await stage.say(line, sender=STRANGER) == (
            "`Bash` is for `@ann:test` or an admin to allow or deny."
        )
    assert await stage.settled() == []
    assert await stage.say("approve", sender=ADMIN) == "`Bash`: allowed."


async def test_always_only_where_it_is_offered(stage: Stage) -> None:
    await stage.asked("k1", always=False)
    assert "cannot be allowed for good" in await stage.say("approve always", sender=ADMIN)
    await stage.say("react-always k1", sender=ADMIN)
    assert await stage.status_of("k1") is ApprovalStatus.PENDING


async def test_always_is_for_admins(stage: Stage) -> None:
    await stage.asked("k1")
    for line in ("approve always", "approve k1 always"):
        assert await stage.say(line) == (
            "Only an admin may allow `Bash` for good: `!approve k1` lets it run this once."
        )
    assert await stage.say("react-always k1") == ""
    assert await stage.status_of("k1") is ApprovalStatus.PENDING
    assert await stage.say("approve always", sender=ADMIN) == "`Bash`: allowed for good."


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
    assert await stage.say(f"{verb} k1", "!2:test", agent_id="agent-2", sender=ADMIN) == ""
    assert await stage.say(f"{verb} k1 k2") == ""
    assert await stage.say(verb) == ""
    assert await stage.say(f"{verb} k9") == ""
    assert await stage.status_of("k1") is ApprovalStatus.PENDING
    # Nor can those who may not answer fill the audit log by tapping.
    assert await stage.audit.newest(9) == []
    assert await stage.say(f"{verb} k1", sender=ADMIN) == ""
    assert await stage.status_of("k1") is status
    assert stage.fake.messages(ROOM) == []


async def test_approvals_of_other_rooms_are_out_of_reach(stage: Stage) -> None:
    await stage.asked("k1")
    elsewhere = {"room_id": "!2:test", "agent_id": "agent-2", "sender": ADMIN}
    assert (await stage.say("approve", **elsewhere)).startswith("No approval waits here.")
    for line in ("approve k1", "deny k1"):
        await stage.say(line, **elsewhere)
        assert await stage.status_of("k1") is ApprovalStatus.PENDING


async def test_with_the_bot_users_neither_see_nor_answer(stage: Stage) -> None:
    stage.runner = stage.runner_for(approvers="users")
    await stage.asked("aaaa1111", arguments={"command": "cat secret"})
    assert "approval" not in (await stage.say("status", BOT_ROOM)).lower()
    for line in ("approve", "deny", "approve aaaa1111", "deny aaaa1111", "react-approve aaaa1111"):
        answer = await stage.say(line, BOT_ROOM)
        assert "Bash" not in answer
        assert "ROOM" not in answer
    assert await stage.settled() == []
    # In the room itself everybody may.
    assert await stage.say("approve aaaa1111", sender=STRANGER) == "`Bash`: allowed."


async def test_with_the_bot_admins_see_where_approvals_wait_and_can_deny(stage: Stage) -> None:
    for key in ("aaaa1111", "bbbb2222"):
        await stage.asked(key, arguments={"command": "cat secret"})
    shown = await stage.say("status", BOT_ROOM, sender=ADMIN)
    link = "https://matrix.to/#/%211%3Atest"
    assert f"in their rooms:\n\n- 2 approvals in [`!1:test`]({link})" in shown
    assert not any(secret in shown for secret in ("Bash", "cat", "aaaa", "bbbb"))
    assert await stage.say("approve aaaa1111", BOT_ROOM, sender=ADMIN) == (
        f"`Bash` can be allowed only in [the room where it asks]({link}), with the question in "
        "sight."
    )
    assert await stage.settled() == []
    assert await stage.say("deny aaaa1111 no", BOT_ROOM, sender=ADMIN) == "`Bash`: denied (`no`)."
    assert await stage.settled() == [("aaaa1111", ApprovalStatus.DENIED, "no")]


async def test_after_a_crash_an_answer_means_the_same_approval(stage: Stage) -> None:
    await stage.asked("k1")
    turn = await stage.turn("approve")
    await crashing_at(stage, turn, "freeze")
    assert await stage.status_of("k1") is ApprovalStatus.ALLOWED
    await stage.asked("k2")
    assert await stage.rerun(await stage.reload(turn)) == "`Bash`: allowed."
    assert await stage.status_of("k2") is ApprovalStatus.PENDING


async def test_after_a_crash_a_denial_keeps_its_whole_reason(stage: Stage) -> None:
    await stage.asked("k1")
    turn = await stage.turn("deny because of that")
    await crashing_at(stage, turn, "freeze")
    answer = await stage.rerun(await stage.reload(turn))
    assert answer == "`Bash`: denied (`because of that`)."
    assert await stage.settled() == [("k1", ApprovalStatus.DENIED, "because of that")]
