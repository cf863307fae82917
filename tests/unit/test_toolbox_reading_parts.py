"""What the reading tools are made of: pages, unread messages, power, what is remembered."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from letta_matrix.access.faults import ToolError
from letta_matrix.common.json_fields import Json
from letta_matrix.matrix.content import edit_content, text_content
from letta_matrix.matrix.event_bus import EventBus
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.room_reading import Page, Snapshot
from letta_matrix.operations.toolbox import known_rooms
from letta_matrix.operations.toolbox.downloads import MAX_BYTES, _File, _told
from letta_matrix.operations.toolbox.known_rooms import Card, KnownRooms
from letta_matrix.operations.toolbox.paging import collect
from letta_matrix.operations.toolbox.results import LIMIT, fit_texts, size
from letta_matrix.operations.toolbox.room_info import power
from letta_matrix.operations.toolbox.timeline import as_edited, entry
from letta_matrix.operations.toolbox.unread import unread

OWN = "@own:test"


class Timeline:
    """A room whose tokens are numbers of events; `asked` counts requests."""

    def __init__(self, said: Sequence[bool]) -> None:
        self.events: list[Json] = [{"number": n, "said": one} for n, one in enumerate(said)]
        self.asked = 0
        self.last_has_end = True

    async def page(self, token: str, limit: int) -> Page:
        self.asked += 1
        start = int(token or "0")
        events = self.events[start : start + limit]
        more = start + limit < len(self.events) or (self.last_has_end and bool(events))
        return Page(events, str(start + len(events)) if more else "", str(start))


def was_said(event: Json) -> bool:
    return bool(event["said"])


@given(st.lists(st.booleans(), max_size=300), st.integers(1, 50), st.sampled_from("bf"))
async def test_pages_have_every_message_once_and_in_order(
    said: list[bool], limit: int, way: str
) -> None:
    room, seen, place = Timeline(said), list[int](), ""
    while True:
        read = await collect(room.page, place, limit, way=way, wanted=was_said)
        assert len(read.found) <= limit
        seen += [event["number"] for event in read.found]
        place = read.end
        if not place:
            break
    assert seen == [number for number, one in enumerate(said) if one]


@given(st.lists(st.lists(st.booleans(), max_size=9), max_size=9), st.integers(1, 6), st.booleans())
async def test_news_are_told_once_however_they_come(
    batches: list[list[bool]], limit: int, last_has_end: bool
) -> None:
    room, said, seen, place = Timeline([]), list[bool](), list[int](), "0"
    room.last_has_end = last_has_end
    # Nothing more comes in the last ones, which read what is left.
    for batch in [*batches, *[list[bool]()] * 90]:
        said += batch
        room.events = Timeline(said).events
        read = await collect(room.page, place, limit, way="f", wanted=was_said)
        seen += [event["number"] for event in read.found]
        place = read.reached
    assert seen == [number for number, one in enumerate(said) if one]


async def test_a_page_full_of_messages_is_one_request() -> None:
    room = Timeline([True] * 30)
    read = await collect(room.page, "", 10, wanted=was_said)
    assert (room.asked, read.end, read.start) == (1, "10", "0")


async def test_a_room_with_nothing_said_is_not_read_for_ever() -> None:
    room = Timeline([False] * 5_000)
    read = await collect(room.page, "", 10, wanted=was_said)
    assert (read.found, room.asked) == ([], 8)
    assert read.end


async def test_a_place_is_for_one_direction() -> None:
    room = Timeline([True, *[False] * 4] * 20)
    read = await collect(room.page, "", 3, wanted=was_said)
    assert read.end.endswith("~b8")
    with pytest.raises(ToolError, match="Give a place back"):
        await collect(room.page, read.end, 3, way="f", wanted=was_said)


def said(event_id: str, sender: str = "@ann:test", thread: str = "") -> Json:
    relation = {"m.relates_to": {"rel_type": "m.thread", "event_id": thread}} if thread else {}
    content = {"msgtype": "m.text", "body": "x", **relation}
    return {"event_id": event_id, "type": "m.room.message", "sender": sender, "content": content}


def member(event_id: str, previous: str = "invite") -> Json:
    unsigned = {"prev_content": {"membership": previous}}
    event = {"event_id": event_id, "type": "m.room.member", "sender": OWN, "state_key": OWN}
    return {**event, "content": {"membership": "join"}, "unsigned": unsigned}


def receipt(event_id: str, thread: str = "", kind: str = "m.read", who: str = OWN) -> Any:
    return {event_id: {kind: {who: {"ts": 1, **({"thread_id": thread} if thread else {})}}}}


ABC = [said("$a"), said("$b"), said("$c")]
THREADS = [said("$a"), said("$t", thread="$a"), said("$b"), said("$u", thread="$a")]


@pytest.mark.parametrize(
    ("events", "receipts", "marker", "unread_ids"),
    [
        (ABC, {}, "", "abc"),
        (ABC, receipt("$b"), "", "c"),
        (ABC, receipt("$b", kind="m.read.private"), "", "c"),
        (ABC, receipt("$b", who="@ann:test"), "", "abc"),
        (ABC, {}, "$b", "c"),
        (ABC, receipt("$c") | receipt("$a"), "$b", ""),
        (ABC, receipt("$older"), "", "abc"),
        ([*ABC, said("$d", OWN)], {}, "", ""),
        ([*ABC, said("$d", OWN), said("$e")], receipt("$a"), "", "e"),
        ([said("$a"), member("$b"), said("$c")], {}, "", "c"),
        ([said("$a"), member("$b", "join"), said("$c")], {}, "", "ac"),
        (THREADS, receipt("$b", "main"), "", "tu"),
        (THREADS, receipt("$t", "$a"), "", "abu"),
        (THREADS, receipt("$t", "$a") | receipt("$b", "main"), "", "u"),
        (THREADS, receipt("$t"), "", "bu"),
        (ABC, {"$a": 1, "$b": {"m.read": [OWN]}, "$c": {"m.read": {OWN: "x"}}}, "", "abc"),
    ],
)
def test_unread_is_what_came_after_what_was_read(
    events: list[Json], receipts: Any, marker: str, unread_ids: str
) -> None:
    found = unread(Snapshot(events, receipts, marker), OWN)
    assert "".join(str(event["event_id"])[1:] for event in found.messages) == unread_ids
    assert found.whole


def test_that_older_ones_may_be_unread_is_told() -> None:
    many = [said(f"${number}") for number in range(30)]
    assert not unread(Snapshot(many, {}, ""), OWN).whole
    assert unread(Snapshot(many, receipt("$0"), ""), OWN).whole
    created: Json = {
        "event_id": "$x",
        "type": "m.room.create",
        "sender": "@ann:test",
        "content": {},
    }
    assert unread(Snapshot([created, *many[1:]], {}, ""), OWN).whole


@pytest.mark.parametrize(
    ("version", "levels", "yours", "may"),
    [
        ("11", {"users": {OWN: 50}}, 50, ["send", "invite", "kick", "ban", "redact", "set_state"]),
        ("11", {"users_default": 10, "invite": 20}, 10, ["send"]),
        ("11", {"users": {OWN: "100"}, "ban": "101"}, 100, ["kick", "redact", "set_state"]),
        ("11", {"events": {"m.room.message": 1}, "events_default": 0}, 0, ["invite"]),
        ("11", {"users": [OWN], "kick": None, "ban": True}, 0, ["send", "invite"]),
        ("12", {}, 0, ["send", "invite", "kick", "ban", "redact", "set_state"]),
        ("org.matrix.hydra.11", {}, 0, ["send", "kick", "ban", "redact", "set_state"]),
        ("org.example.odd", {}, 0, ["send", "invite"]),
    ],
)
def test_power_tells_what_one_may_do(
    version: str, levels: dict[str, Any], yours: int, may: list[str]
) -> None:
    create = {"room_version": version, "sender": "@ann:test", "additional_creators": [OWN, 7]}
    state = {("m.room.create", ""): create, ("m.room.power_levels", ""): levels}
    told = power(state, OWN)
    assert told["yours"] == yours
    assert set(may) <= set(told["you_may"])  # pyright: ignore[reportArgumentType]
    assert ("creators" in told) == (version in ("12", "org.matrix.hydra.11"))


def test_an_edit_is_shown_as_the_message_it_makes() -> None:
    new = {"msgtype": "m.text", "body": "new"}
    relation = {"rel_type": "m.replace", "event_id": "$a"}
    content = {"msgtype": "m.text", "body": "* new", "m.new_content": new, "m.relates_to": relation}
    shown = entry(as_edited({**said("$e"), "content": content}), {}, 100)
    assert (shown["event_id"], shown["text"], shown["edited"]) == ("$a", "new", True)
    assert as_edited(said("$a")) == said("$a")


@pytest.mark.parametrize(("live", "text"), [(True, "I see"), (False, "I see \u258d")])
def test_what_still_grows_is_unfinished_and_has_no_cursor(live: bool, text: str) -> None:
    words = text if live else f"{text}\n"
    new = text_content(words, marker={}, live=live)
    for content in (new, edit_content(words, target_event_id="$a", marker={}, live=live)):
        edit = {"type": "m.room.message", "content": content}
        unsigned = {"m.relations": {"m.replace": edit}} if "m.new_content" in content else {}
        shown = entry({**said("$a"), "content": new, "unsigned": unsigned}, {}, 100)
        assert shown["text"] == text
        assert shown.get("unfinished", False) is live


@pytest.mark.parametrize("text", ["\U0001f600", '"', "a"])
def test_the_most_messages_of_the_longest_texts_fit(text: str) -> None:
    events = [said(f"${number:043}") for number in range(50)]
    for event in events:
        # Longer than any that is shown whole.
        event["content"]["body"] = text * 12_001
    told = fit_texts(lambda length: {"messages": [entry(e, {}, length) for e in events]}, "Cut.")
    assert size(told) <= LIMIT
    assert told["note"] == "Cut."


@given(st.binary(max_size=3_000) | st.text(max_size=3_000).map(str.encode), st.integers(4, 9_000))
def test_pieces_make_the_whole_file(data: bytes, most: int) -> None:
    is_text, whole, offset = True, "", 0
    while True:
        piece = _told(_File("mxc://x/y", {}), data, offset, most)
        is_text = is_text and "content" in piece
        whole += str(piece.get("content", "")) if is_text else ""
        if "next" not in piece:
            break
        assert isinstance(piece["next"], int)
        assert piece["next"] > offset
        offset = piece["next"]
    assert not is_text or whole.encode() == data


@given(st.text(alphabet="\n\x01aü\U0001f600", max_size=4_000))
def test_what_fits_by_default_stays_small(text: str) -> None:
    data = text.encode() * 5
    assert size(_told(_File("mxc://x/y", {}), data, 0, 10_000)) <= LIMIT
    assert size(_told(_File("mxc://x/y", {}), data, 0, MAX_BYTES)) >= len(data)


async def test_a_name_that_changes_while_it_is_asked_for_is_not_kept(
    homeserver: Homeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_bus, intent = EventBus(), Intent(homeserver, OWN)
    known, names = KnownRooms(event_bus), iter(["old", "new"])
    begun, answered = asyncio.Event(), asyncio.Event()

    async def asked(_intent: Intent, _room_id: str) -> Card:
        name = next(names)
        begun.set()
        await answered.wait()
        return Card(name, "", {})

    monkeypatch.setattr(known_rooms, "_card", asked)
    asking = asyncio.create_task(known.card(intent, "!1:test"))
    await begun.wait()
    event_bus.publish({"type": "m.room.name", "room_id": "!1:test", "state_key": ""})
    answered.set()
    assert (await asking).name == "old"
    assert [(await known.card(intent, "!1:test")).name for _ in range(2)] == ["new", "new"]


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": "m.room.name"},
        {"type": ["m.room.name"], "room_id": "!1:test"},
        {"type": "m.room.name", "room_id": ["!1:test"]},
        {"type": "m.room.member", "room_id": "!1:test", "state_key": []},
    ],
)
def test_odd_events_are_nothing_to_what_is_known(event: Any) -> None:
    event_bus = EventBus()
    known = KnownRooms(event_bus)
    known._cards["!2:test"] = known_rooms._Known(0.0)
    # What a listener fails at is logged and goes no further.
    with capture_logs() as logs:
        event_bus.publish(event)
    assert logs == []
    assert list(known._cards) == ["!2:test"]


def test_a_nameless_room_is_called_after_the_others() -> None:
    people = {OWN: "Own", **{f"@{letter}:test": letter for letter in "edcba"}}
    assert Card("", "", people).title(OWN) == "a, b, c, d, ..."
    assert Card("Name", "", people).title(OWN) == "Name"
