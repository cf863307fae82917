"""A word that an admin says to somebody else, lured by whoever wants a tool to run, allows none."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.builders import edit, message, said_in
from tests.fake_homeserver import FakeHomeserver
from tests.scripts import obey
from tests.security.test_taps_launder_nothing import run_ls
from tests.stage import Stage
from tests.waiting import Clock, eventually, settled

from letta_matrix.matrix.content import MARKER
from letta_matrix.store.turns import TurnKind

ROOM, GHOST, ADMIN, BOB = "!1:test", "@agent_1:test", "@root:test", "@bob:test"


@pytest.fixture
async def stage(fake: FakeHomeserver, database_file: Path) -> AsyncGenerator[Stage]:
    """An agent's own room with an admin, and a tool that asks."""
    made = Stage(fake, database_file, permissions={"test": "user", ADMIN: "admin"})
    made.runtime.script = run_ls
    await made.open()
    await made.add(1)
    fake.members[ROOM] = {GHOST, ADMIN}
    yield made
    await made.close()


async def asked(stage: Stage, event: dict[str, Any]) -> None:
    """Let somebody ask for a tool, up to where its question can have been seen."""
    await stage.admit(event)
    await eventually(stage.stores.approvals.pending)
    (approval,) = await stage.stores.approvals.pending()
    await eventually(lambda: stage.stores.approvals.shown_since(approval.key) < 2**40)


async def said(stage: Stage, event: dict[str, Any]) -> bool:
    """Whether a word allowed it; else it waits, as words to the agent do."""
    await stage.admit(event)

    def waits() -> bool:
        mine = (t for t in stage.dispatcher.queues.unfinished() if t.event_id == event["event_id"])
        return any(turn.kind is TurnKind.MESSAGE for turn in mine)

    await eventually(lambda: waits() or "Ran it." in stage.fake.bodies(ROOM))
    return not waits()


def by_tool(body: str, edits: str = "") -> dict[str, Any]:
    event = edit(edits, body, sender=GHOST) if edits else message(body, sender=GHOST)
    event["content"][MARKER] = {"agent_id": "agent-1", "tool": "matrix_send_message", "txn": "t"}
    return event


async def test_a_word_counts_where_it_is_for_the_question_alone(stage: Stage) -> None:
    await asked(stage, message("look", sender=ADMIN))
    assert await said(stage, message("yes", sender=ADMIN))


async def test_a_word_may_come_in_the_millisecond_of_its_question(stage: Stage) -> None:
    """Messages are dated in whole milliseconds, rounded down."""
    stage.stores.approvals.shown("key", 100.0007)
    assert stage.stores.approvals.shown_since("key") == 100.0


async def test_a_word_that_crossed_the_question_is_none(stage: Stage, fake: FakeHomeserver) -> None:
    """The homeserver tells its time in whole seconds, and dates messages to the millisecond."""
    await asked(stage, message("look", sender=ADMIN))
    (question,) = [one for one in fake.messages(ROOM) if "May I run" in one["content"]["body"]]
    at = int(time.time() * 1000) + 900
    own = message(sender=GHOST, content=question["content"], origin_server_ts=at)
    word = message("ok", sender=ADMIN, origin_server_ts=at - 1)
    await stage.admit(own)
    assert not await said(stage, word)


async def test_in_a_thread_of_ones_own_it_counts(stage: Stage, fake: FakeHomeserver) -> None:
    fake.members[ROOM].add(BOB)
    await asked(stage, said_in("$root", "look", sender=ADMIN))
    assert await said(stage, said_in("$root", "ok", sender=ADMIN))


@pytest.mark.parametrize("thread", [False, True])
async def test_among_several_a_word_may_be_for_another(
    stage: Stage, fake: FakeHomeserver, thread: bool
) -> None:
    """Nobody has looked yet who is in the room."""
    fake.members[ROOM].add(BOB)
    wished = said_in("$root", "look", sender=BOB) if thread else message("look", sender=BOB)
    await asked(stage, wished)
    word = said_in("$root", "ok", sender=ADMIN) if thread else message("ok", sender=ADMIN)
    assert not await said(stage, word)


@pytest.mark.parametrize(
    "lure",
    [
        message("lunch at twelve?", sender=BOB),
        by_tool("Shall I water the plants?"),
        message("lunch?", sender="@blocked:elsewhere"),
    ],
    ids=["a person", "an agent's tool", "who may not talk to agents"],
)
async def test_who_speaks_in_between_takes_the_word_for_themselves(
    stage: Stage, lure: dict[str, Any]
) -> None:
    await asked(stage, message("look", sender=ADMIN))
    await stage.admit(lure)
    assert not await said(stage, message("ok", sender=ADMIN))


@pytest.mark.parametrize("other", [BOB, "@agent_2:test"])
async def test_who_spoke_before_a_restart_takes_it_too(
    stage: Stage, fake: FakeHomeserver, other: str
) -> None:
    """This process has heard nothing of it."""
    await stage.add(2)
    fake.members[ROOM].add(other)
    await asked(stage, said_in("$root", "look", sender=ADMIN))
    lure = said_in("$root", "Shall I water the plants?", sender=other)
    if other != BOB:
        lure["content"][MARKER] = {"agent_id": "agent-2", "tool": "matrix_send_message", "txn": "t"}
    await stage.admit(lure)
    await stage.recover()
    assert not await said(stage, said_in("$root", "ok", sender=ADMIN))


async def test_in_a_room_for_two_it_counts_after_a_restart(stage: Stage) -> None:
    await asked(stage, said_in("$root", "look", sender=ADMIN))
    await stage.recover()
    assert await said(stage, said_in("$root", "ok", sender=ADMIN))


async def test_so_does_who_edits(stage: Stage) -> None:
    await asked(stage, message("look", sender=ADMIN))
    await stage.admit(by_tool("Shall I water the plants?", "$before"))
    assert not await said(stage, message("ok", sender=ADMIN))


async def test_where_nobody_is_known_a_word_is_no_answer(
    stage: Stage, fake: FakeHomeserver
) -> None:
    stage.refuse("joined_members", times=100)
    await asked(stage, message("look", sender=ADMIN))
    assert not await said(stage, message("yes", sender=ADMIN))


async def test_a_homeserver_that_does_not_tell_holds_up_no_transaction(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    await asked(stage, message("look", sender=ADMIN))
    stage.parts.prompts.roster.forget(ROOM)
    clock.stop()
    fake.hold("joined_members")
    word = asyncio.create_task(said(stage, message("yes", sender=ADMIN)))
    await settled(word)
    clock.advance(2)
    assert not await word


async def test_an_edit_adds_nothing_in_another_room(stage: Stage) -> None:
    """Of a message elsewhere, whose words nobody here has seen."""
    await stage.add(2)
    stage.runtime.script = obey
    there = message("hello", "!2:test", sender=BOB)
    await stage.tell(there)
    changed = edit(there["event_id"], "hi @agent_1:test", ROOM, sender=BOB)
    changed["content"]["m.new_content"]["m.mentions"] = {"user_ids": [GHOST]}
    await stage.tell(changed)
    assert stage.fake.messages(ROOM) == []
