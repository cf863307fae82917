"""Which events end a wait for the next message."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import PERSON, message
from tests.tool_arguments import JSON

from letta_matrix.matrix.content import edit_content, text_content
from letta_matrix.operations.toolbox.waiting import _Watch

ME, ROOM = "@letta:test", "!1:test"
LIVELY = text_content("grow", marker={}, live=True)


def watch(from_user: str = "") -> _Watch:
    return _Watch(ROOM, ME, from_user)


def edit(target: str, *, live: bool = False) -> dict[str, Any]:
    return message(content=edit_content("grown", target_event_id=target, marker={}, live=live))


@pytest.mark.parametrize(
    "event",
    [
        message(sender=ME),
        message(sender="@other:test"),
        message(room_id="!2:test"),
        message(type="m.reaction"),
        message(content={}),
        message(content="x"),
        message(sender=7),
        edit("$other"),
    ],
)
async def test_what_is_no_message_of_whom_we_wait_for(event: dict[str, Any]) -> None:
    waiting = watch(PERSON)
    waiting.see(event)
    assert waiting.event_id == ""


async def test_the_first_message_counts() -> None:
    waiting = watch()
    waiting.see(message("one", event_id="$1"))
    waiting.see(message("two", event_id="$2"))
    assert (waiting.event_id, waiting._done.is_set()) == ("$1", True)


async def test_a_message_that_grows_counts_when_it_is_whole() -> None:
    waiting = watch()
    waiting.see(message(content=LIVELY, event_id="$1"))
    waiting.see(edit("$1", live=True))
    waiting.see(edit("$2"))
    assert (waiting.event_id, waiting._done.is_set()) == ("$1", False)
    waiting.see(edit("$1"))
    assert waiting._done.is_set()


async def test_what_comes_while_we_look_comes_after_what_is_found() -> None:
    waiting = watch()
    with waiting.looking():
        waiting.see(message("newer", event_id="$2"))
        waiting.see(edit("$1"))
        assert waiting.event_id == ""
        assert waiting.take(message(content=LIVELY, event_id="$1"))
        assert not waiting._done.is_set()
    assert (waiting.event_id, waiting._done.is_set()) == ("$1", True)


async def test_what_was_before_is_not_taken_though_it_comes_again() -> None:
    waiting, known = watch(), message(event_id="$1", origin_server_ts=2_000)
    waiting.begin_after(known)
    waiting.see(known)
    waiting.see(message(event_id="$0", origin_server_ts=1_000))
    assert waiting.event_id == ""
    waiting.see(message(event_id="$2", origin_server_ts=2_000))
    assert waiting.event_id == "$2"


async def test_what_is_known_is_not_taken_and_other_servers_clocks_may_be_late() -> None:
    waiting = watch()
    known = [message(event_id=f"${at}", origin_server_ts=at) for at in (1_000, 2_000, 3_000)]
    waiting.begin_after(*known)
    for event in [*known, message(event_id="$0", origin_server_ts=999)]:
        waiting.see(event)
    assert waiting.event_id == ""
    waiting.see(message(event_id="$late", origin_server_ts=1_500))
    assert waiting.event_id == "$late"


@given(JSON, JSON, st.dictionaries(st.sampled_from(["sender", "room_id", "event_id"]), JSON))
async def test_no_event_breaks_a_wait(content: Any, relation: Any, fields: Any) -> None:
    waiting = watch()
    waiting.see({**message(content=content), **fields})
    waiting.see({**message(content={"m.relates_to": relation, "m.new_content": content}), **fields})
    waiting.see({**message(content={**LIVELY, "m.relates_to": relation}), **fields})
    assert isinstance(waiting.event_id, str)
