"""What one of our users reads and does, against canned answers of a homeserver."""

from typing import Any

import pytest
from mautrix.errors import MatrixRequestError
from tests.fake_homeserver import FakeHomeserver, Fault

from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent

ROOM = "!1:test"
GHOST = "@agent_1:test"
NOT_FOUND = Fault(404, {"errcode": "M_NOT_FOUND", "error": "not there"})


@pytest.fixture
def ghost(homeserver: Homeserver) -> Intent:
    return Intent(homeserver, GHOST)


def answer(**body: Any) -> Fault:
    return Fault(200, body)


async def test_members_without_a_display_name_go_by_their_localpart(
    fake: FakeHomeserver, ghost: Intent
) -> None:
    members = {"@ann:test": {"display_name": "Ann"}, "@bob:test": {"display_name": None}}
    fake.fail("GET .*/joined_members", answer(joined={**members, "@eve:test": "odd"}))
    names = {"@ann:test": "Ann", "@bob:test": "bob", "@eve:test": "eve"}
    assert await ghost.joined_members(ROOM) == names
    assert fake.requests[0].user_id == GHOST


@pytest.mark.parametrize(
    ("given", "name"),
    [(answer(name="Plans"), "Plans"), (answer(name=None), ""), (answer(), ""), (NOT_FOUND, "")],
)
async def test_a_room_without_a_name_has_none(
    fake: FakeHomeserver, ghost: Intent, given: Fault, name: str
) -> None:
    fake.fail("GET .*/state/m.room.name", given)
    assert await ghost.room_name(ROOM) == name


async def test_state_that_may_not_be_read_is_not_taken_for_missing(
    fake: FakeHomeserver, ghost: Intent
) -> None:
    fake.fail("GET .*/state/", Fault(403, {"errcode": "M_FORBIDDEN", "error": "no"}))
    with pytest.raises(MatrixRequestError):
        await ghost.room_name(ROOM)


async def test_a_page_of_messages_tells_where_the_next_one_begins(
    fake: FakeHomeserver, ghost: Intent
) -> None:
    newest = [{"event_id": "$2"}, {"event_id": "$1"}]
    fake.fail("GET .*/messages", answer(chunk=newest, start="t0", end="t1"))
    fake.fail("GET .*/messages", answer(chunk=[]))
    page = await ghost.messages(ROOM, limit=2, filters={"types": ["m.room.message"]})
    assert (page.events, page.start, page.end) == (newest, "t0", "t1")
    assert (await ghost.messages(ROOM, before=page.end)).end == ""
    first, second = (request.query for request in fake.requests)
    assert (first["limit"], first["filter"], "from" in first) == (
        "2",
        '{"types": ["m.room.message"]}',
        False,
    )
    assert second["from"] == "t1"


async def test_a_reaction_that_stands_already_is_no_fault(
    fake: FakeHomeserver, ghost: Intent
) -> None:
    event_id = await ghost.react(ROOM, "$1", "👍", "txn1")
    (event,) = fake.messages(ROOM, "m.reaction")
    assert event["event_id"] == event_id
    assert event["content"] == {
        "m.relates_to": {"rel_type": "m.annotation", "event_id": "$1", "key": "👍"},
        MARKER: {"txn": "txn1"},
    }
    fake.fail("PUT .*/send/", Fault(400, {"errcode": "M_DUPLICATE_ANNOTATION", "error": "twice"}))
    assert await ghost.react(ROOM, "$1", "👍", "txn2") == ""
    fake.fail("PUT .*/send/", Fault(400, {"errcode": "M_INVALID_PARAM", "error": "bad"}))
    with pytest.raises(MatrixRequestError):
        await ghost.react(ROOM, "$1", "👍", "txn3")


async def test_relations_of_one_kind_or_all(fake: FakeHomeserver, ghost: Intent) -> None:
    fake.fail("GET .*/relations/", *[answer(chunk=[{"event_id": "$2"}])] * 2)
    assert await ghost.relations(ROOM, "$1") == [{"event_id": "$2"}]
    await ghost.relations(ROOM, "$1", "m.annotation")
    assert [request.path.partition("/relations/")[2] for request in fake.requests] == [
        "$1",
        "$1/m.annotation",
    ]


async def test_the_rest_goes_where_the_specification_says(
    fake: FakeHomeserver, ghost: Intent
) -> None:
    fake.fail("GET .*/event/", answer(content={}))
    fake.fail("GET .*/joined_rooms", answer(joined_rooms=[ROOM]))
    fake.fail("POST .*/leave", answer())
    assert await ghost.event(ROOM, "$1") == {"content": {}}
    assert await ghost.joined_rooms() == [ROOM]
    await ghost.leave(ROOM)
    rooms = f"/_matrix/client/v3/rooms/{ROOM}"
    assert [request.line for request in fake.requests] == [
        f"GET {rooms}/event/$1",
        "GET /_matrix/client/v3/joined_rooms",
        f"POST {rooms}/leave",
    ]
