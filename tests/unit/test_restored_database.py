"""A database that was put back: what was forbidden stays so, and what was answered is not answered
again."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.builders import message
from tests.fake_homeserver import FakeHomeserver
from tests.restore_kit import Restored
from tests.scripts import DONE, until
from tests.stage import Stage
from tests.waiting import eventually

from letta_matrix.cli.backup.copies import copy_database
from letta_matrix.cli.backup.stored import Ended, prepare
from letta_matrix.conversations.answered import ended_in
from letta_matrix.conversations.gap import RestoreGap
from letta_matrix.matrix.content import ALSO, BESIDE, LIVE, MARKER, OPEN
from letta_matrix.runtimes.memory import echo
from letta_matrix.runtimes.protocol import ApprovalRequested, TextDelta, TurnEvent, TurnRequest
from letta_matrix.store.database import Database, database_url
from letta_matrix.store.meta import Meta
from letta_matrix.store.portals import BLOCKED, Contact, Portal, PortalBook
from letta_matrix.store.restored import Gap, gap_of
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.tokens import AccessToken, TokenStore
from letta_matrix.store.turn_ids import turn_id_of

ROOM = "!1:test"


@pytest.fixture
async def restored(fake: FakeHomeserver, database_file: Path) -> AsyncGenerator[Restored]:
    stage = Stage(fake, database_file)
    await stage.open()
    await stage.add(1, created_at=time.time() - 7200)
    await stage.parts.catch_up.run()
    yield Restored(stage, database_file)
    await stage.close()


async def test_what_was_answered_since_is_not_answered_again_and_the_rest_is(
    restored: Restored, fake: FakeHomeserver
) -> None:
    """One is being answered and one waits while the backup is taken; both, and two later ones, are
    answered then, and one is not."""
    goes_on = asyncio.Event()

    def slow(request: TurnRequest) -> Iterable[TurnEvent | float]:
        yield from until(goes_on)
        yield from echo(request)

    restored.answer = slow
    await restored.arrives(ROOM, message("begun"), message("waits"))
    await eventually(lambda: restored.begun == ["begun"])
    restored.take()
    goes_on.set()
    await restored.arrives(ROOM, message("new"))
    await restored.stage.idle()
    await restored.arrives(ROOM, message("newer"))
    await restored.stage.idle()
    missed = message("missed")
    fake.events[ROOM].append(missed)
    before = fake.bodies(ROOM)
    await restored.put_back()
    assert restored.begun == ["begun", "waits", "new", "newer", "missed"]
    assert fake.bodies(ROOM) == [*before, "echo: missed"]
    await restored.stage.recover()
    await restored.stage.parts.catch_up.run()
    await restored.stage.idle()
    assert restored.begun[5:] == []


async def test_a_reply_that_was_only_begun_since_is_completed(
    restored: Restored, fake: FakeHomeserver
) -> None:
    never = asyncio.Event()

    def cut_off(_: TurnRequest) -> Iterable[TurnEvent | float]:
        yield TextDelta("0", "This is the beginning of a longer answer, ")
        yield from until(never)

    def whole(_: TurnRequest) -> Iterable[TurnEvent | float]:
        yield TextDelta("0", "This is the beginning of a longer answer, and this is its end.")
        yield DONE

    restored.take()
    restored.answer = cut_off
    await restored.arrives(ROOM, message("tell me"))
    await eventually(lambda: fake.messages(ROOM)[1:])
    restored.answer = whole
    await restored.put_back()
    told = [one for one in fake.messages(ROOM) if "m.new_content" not in one["content"]]
    assert len(told) == 2
    last = fake.messages(ROOM)[-1]["content"]
    assert last["m.relates_to"] == {"rel_type": "m.replace", "event_id": told[1]["event_id"]}
    assert last["m.new_content"]["body"].endswith("and this is its end.")
    assert LIVE not in last["m.new_content"]


@pytest.mark.parametrize("grows", [False, True])
async def test_a_reply_that_waits_for_an_approval_is_not_taken_for_whole(
    restored: Restored, fake: FakeHomeserver, grows: bool
) -> None:
    has_begun = asyncio.Event()
    if not grows:
        has_begun.set()

    def asks(_: TurnRequest) -> Iterable[TurnEvent | float]:
        yield TextDelta("0", "I look at your files first, ")
        yield from until(has_begun)
        yield TextDelta("0", "if I may.")
        yield ApprovalRequested("a-1", "Bash", {"command": "ls"})

    restored.take()
    restored.answer = asks
    await restored.arrives(ROOM, message("what is in there?"))
    if grows:
        await eventually(lambda: fake.messages(ROOM)[1:])
        has_begun.set()
    await eventually(lambda: any("May I run" in body for body in fake.bodies(ROOM)))
    restored.answer = echo
    await restored.put_back()
    assert restored.begun == ["what is in there?"] * 2
    assert fake.bodies(ROOM)[-1] == "echo: what is in there?"


@pytest.mark.parametrize("waited", [False, True])
async def test_a_file_and_words_that_were_answered_together_are_not_answered_again(
    restored: Restored, fake: FakeHomeserver, waited: bool
) -> None:
    """Whether they came after the backup, or waited while it was taken."""
    goes_on = asyncio.Event()

    def slow(request: TurnRequest) -> Iterable[TurnEvent | float]:
        yield from until(goes_on)
        yield from echo(request)

    restored.answer = slow
    await restored.arrives(ROOM, message("first of all"))
    await eventually(lambda: restored.begun)
    if not waited:
        restored.take()
    file = message("notes.pdf", msgtype="m.file", url="mxc://test/notes")
    file["content"] |= {"msgtype": "m.file", "url": "mxc://test/notes"}
    await restored.arrives(ROOM, file, message("what does it say?"))
    if waited:
        restored.take()
    goes_on.set()
    await restored.stage.idle()
    assert len(restored.begun) == 2
    before = fake.bodies(ROOM)
    await restored.put_back()
    assert len(restored.begun) == 2
    assert fake.bodies(ROOM) == before


async def _heard(stage: Stage) -> None:
    """What agents said unasked is noticed, and told."""
    watch = stage.parts.listings.watches["memory"]
    assert watch is not None
    await watch.listed(await stage.runtime.list_agents())
    for agent_id, last_run in [*watch._due.items()]:
        await watch._look(agent_id, last_run)
    await stage.idle()


async def test_a_command_and_words_unasked_are_not_repeated(
    restored: Restored, fake: FakeHomeserver
) -> None:
    await _heard(restored.stage)
    restored.take()
    await restored.arrives(ROOM, message("!whoami"))
    await restored.stage.idle()
    restored.stage.runtime.say("agent-1", "by the way")
    await _heard(restored.stage)
    restored.stage.runtime.say("agent-1", "not told yet")
    before = fake.bodies(ROOM)
    assert before[-1].endswith("by the way")
    await restored.put_back()
    await _heard(restored.stage)
    (told,) = fake.bodies(ROOM)[len(before) :]
    assert told.endswith("not told yet")


def test_what_grows_or_stands_beside_ends_nothing() -> None:
    def said(event_id: str, marker: dict[str, Any], **content: Any) -> dict[str, Any]:
        return {"event_id": event_id, "content": {MARKER: marker, **content}}

    def edit(of: str, marker: dict[str, Any], **new: Any) -> dict[str, Any]:
        relation = {"rel_type": "m.replace", "event_id": of}
        more = {"m.relates_to": relation, "m.new_content": {"body": "x", **new}}
        return said(f"{of} edited", marker, **more)

    about = {"in_reply_to": "$a", "turn_id": "turn-a", "agent_id": "agent-1", ALSO: ["$b", 7]}
    whole = said("$1", about)
    of_b = turn_id_of("$b", "agent-1")
    assert ended_in([whole, {}, {"content": 3}]) == {"$a", "$b", "turn-a", of_b}
    assert ended_in([said("$2", {"in_reply_to": "$c", BESIDE: "notice"})]) == set()
    begun = said("$3", {"in_reply_to": "$d"}, **{LIVE: {}})
    assert ended_in([begun]) == set()
    assert ended_in([edit("$3", {"in_reply_to": "$d"}, **{LIVE: {}}), begun]) == set()
    assert ended_in([edit("$3", {"in_reply_to": "$d"}), begun]) == {"$d"}
    # Of two parts one still grows.
    first = said("$4", {"in_reply_to": "$d"})
    assert ended_in([begun, first]) == set()
    # A question that waits for its answer, or tools that run, stand below what was said.
    beside = {"in_reply_to": "$e", BESIDE: "approval"}
    before, asks = said("$6", {"in_reply_to": "$e"}), said("$7", {**beside, OPEN: True})
    assert ended_in([asks, before]) == set()
    assert ended_in([edit("$7", beside, **{MARKER: beside}), asks, before]) == {"$e"}
    bundled = begun | {"unsigned": {"m.relations": {"m.replace": edit("$3", {})}}}
    assert ended_in([bundled, first]) == {"$d"}


async def test_of_a_room_only_what_was_begun_is_kept(
    restored: Restored, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begins(_: TurnRequest) -> Iterable[TurnEvent | float]:
        yield TextDelta("0", "This is the beginning of a longer answer, ")
        yield from until(asyncio.Event())

    restored.take()
    await restored.arrives(ROOM, message("one"), message("two"))
    await restored.stage.idle()
    restored.answer = begins
    await restored.arrives(ROOM, message("three"))
    shown = await eventually(lambda: fake.messages(ROOM)[5:])
    restored.answer = echo
    await restored.put_back()
    parts = restored.stage.parts
    directory, rooms, stores = parts.stores.directory, parts.stores.rooms, parts.stores
    bot = parts.homeserver.acting_as(restored.stage.config.bot_user_id)
    # As it looks once more, before this turn has come to its end.
    fake.events[ROOM] = fake.events[ROOM][: fake.events[ROOM].index(shown[0]) + 1]
    gap = RestoreGap(bot, directory, rooms, stores.meta, stores.outbox)
    turn = next(one for one in await stores.turns.newest(1) if one.prompt == "three")
    assert await gap.has_answer(turn) is False
    (kept,) = gap._said.values()
    assert [one.event_id for one in kept.begun.values()] == [shown[0]["event_id"]]
    monkeypatch.setattr("letta_matrix.conversations.gap._LASTS", -60.0)
    assert not await gap.has_answer(turn)
    assert gap._said == {}


def _token(token_id: str) -> AccessToken:
    return AccessToken(token_id, "digest", "", ("read",), None, token_id, time.time())


async def _opened(file: Path) -> Database:
    database = Database(database_url(f"sqlite:///{file}", file.parent))
    await database.open()
    return database


async def _prepared(file: Path, present: Path | None, *, keeps_tokens: bool = False) -> Ended:
    how = {"same_moment": False, "keeps_tokens": keeps_tokens}
    return await asyncio.to_thread(prepare, file, present, Gap(1.0, 2.0), **how)


async def _valid(file: Path) -> set[str]:
    database = await _opened(file)
    found = {one.token_id for one in await TokenStore(database).all() if one.revoked_at is None}
    assert await gap_of(Meta(database)) == Gap(1.0, 2.0)
    await database.close()
    return found


async def test_what_was_forbidden_since_stays_forbidden(database_file: Path) -> None:
    present = await _opened(database_file)
    store, book, rooms = TokenStore(present), PortalBook(present), Rooms(present)
    for token_id in ("kept", "leaked"):
        await store.add(_token(token_id))
    portal = Portal("!sms:test", "sms")
    await book.learn(portal)
    await book.decide(Contact("sms", "+49 1", "agent-1"))
    backup = database_file.with_name("backup.db")
    copy_database(database_file, backup)
    await store.add(_token("later"))
    await store.revoke("leaked", time.time())
    later, loud = Portal("!later:test", "sms", channel="+49 4"), Portal("!loud:test", "sms")
    for one in (later, loud):
        await book.learn(one)
    await book.hold([portal, later], held=True)
    await book.decide(replace(Contact("sms", "+49 1", "agent-1"), stopped=True, word="STOP"))
    await book.decide(Contact("sms", "+49 2", BLOCKED))
    await book.decide(Contact("sms", "+49 3", "agent-2"))
    await rooms.change_settings("agent-1", ROOM, paused=True)
    await present.close()
    assert await _prepared(backup, database_file) == Ended(1, seen=True)
    assert await _valid(backup) == {"kept"}
    database = await _opened(backup)
    book, rooms = PortalBook(database), Rooms(database)
    await book.load()
    await rooms.load()
    stopped, blocked = book.contact("sms", "+49 1"), book.contact("sms", "+49 2")
    assert stopped is not None
    assert (stopped.stopped, stopped.agent_id) == (True, "agent-1")
    assert blocked is not None
    assert blocked.agent_id == BLOCKED
    assert book.contact("sms", "+49 3") is None
    assert {*book.all()} == {replace(portal, held=True), replace(later, held=True)}
    assert rooms.settings("agent-1", ROOM).paused
    await database.close()


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("damaged", [False, True])
async def test_where_nobody_can_tell_no_token_counts_unless_that_is_said(
    database_file: Path, keeps: bool, damaged: bool
) -> None:
    database = await _opened(database_file)
    await TokenStore(database).add(_token("kept"))
    await database.close()
    other = database_file.with_name("other.db")
    other.write_bytes(b"no database, but as long as one" * 1000)
    ended = await _prepared(database_file, other if damaged else None, keeps_tokens=keeps)
    assert ended == Ended(0 if keeps else 1, seen=False)
    assert await _valid(database_file) == ({"kept"} if keeps else set())
