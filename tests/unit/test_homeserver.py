"""Requests that meet a slow, failing or forgetful homeserver."""

import asyncio
import time

import pytest
from mautrix.api import ClientPath, Method
from mautrix.errors import MatrixRequestError, MForbidden
from structlog.testing import capture_logs
from tests.fake_homeserver import (
    LOST_ANSWER,
    LOST_REQUEST,
    FakeHomeserver,
    Fault,
    failing,
    rate_limited,
)
from tests.waiting import eventually

from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent

ROOM = "!1:test"
GHOST = "@agent_1:test"
SEND = "PUT .*/send/"


@pytest.fixture
def ghost(homeserver: Homeserver) -> Intent:
    return Intent(homeserver, GHOST)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letta_matrix.matrix.homeserver._FIRST_PAUSE", 0.01)


async def send(ghost: Intent, txn_id: str = "txn1", *, look_first: bool = False) -> str:
    content = {"msgtype": "m.text", "body": "hi", MARKER: {"txn": txn_id}}
    return await ghost.send(ROOM, "m.room.message", content, txn_id, look_first=look_first)


async def test_requests_go_out_as_the_user_with_the_token_in_the_header(
    fake: FakeHomeserver, ghost: Intent
) -> None:
    event_id = await send(ghost)
    assert fake.requests[0].user_id == GHOST
    assert [e["event_id"] for e in fake.messages(ROOM)] == [event_id]
    assert "as-secret" not in fake.requests[0].path


async def test_a_429_is_waited_out_as_long_as_it_says(fake: FakeHomeserver, ghost: Intent) -> None:
    fake.fail(SEND, rate_limited(300))
    started = time.monotonic()
    await send(ghost)
    assert 0.3 <= time.monotonic() - started < 1.0
    assert len(fake.messages(ROOM)) == 1


async def test_a_429_may_say_it_in_the_header(fake: FakeHomeserver, ghost: Intent) -> None:
    fake.fail(SEND, Fault(429, {"retry_after_ms": "soon"}, headers={"Retry-After": "1"}))
    started = time.monotonic()
    await send(ghost)
    assert 1.0 <= time.monotonic() - started < 2.0


async def test_every_try_carries_the_same_txn_id(fake: FakeHomeserver, ghost: Intent) -> None:
    fake.fail(SEND, failing(500), failing(503), rate_limited(5), LOST_REQUEST)
    await send(ghost)
    tries = fake.matching(SEND)
    assert len(tries) == 5
    assert len({request.path for request in tries}) == 1
    assert len(fake.messages(ROOM)) == 1


async def test_pauses_grow(fake: FakeHomeserver, ghost: Intent) -> None:
    fake.fail(SEND, *[failing(502)] * 4)
    started = time.monotonic()
    await send(ghost)
    assert 0.15 <= time.monotonic() - started < 1.0


async def test_a_lost_answer_is_looked_up_before_a_resend(
    fake: FakeHomeserver, ghost: Intent
) -> None:
    # A restart made the homeserver forget the txn id, so a blind resend would say it twice.
    fake.forgetful = True
    # The second is for aiohttp, which tries a broken connection's request again by itself.
    fake.fail(SEND, LOST_ANSWER, LOST_REQUEST)
    event_id = await send(ghost)
    assert [e["event_id"] for e in fake.messages(ROOM)] == [event_id]


async def test_what_did_not_arrive_is_sent_again(fake: FakeHomeserver, ghost: Intent) -> None:
    fake.forgetful = True
    await send(ghost, "before")
    fake.fail(SEND, LOST_REQUEST, LOST_REQUEST)
    await send(ghost, "txn2")
    assert [e["content"][MARKER]["txn"] for e in fake.messages(ROOM)] == ["before", "txn2"]


async def test_a_look_up_that_fails_does_not_stop_the_resend(
    fake: FakeHomeserver, ghost: Intent
) -> None:
    fake.fail(SEND, LOST_REQUEST, LOST_REQUEST)
    fake.fail("GET .*/messages", Fault(403, {"errcode": "M_FORBIDDEN"}))
    await send(ghost)
    assert len(fake.messages(ROOM)) == 1


async def test_after_a_crash_the_room_is_searched_first(
    fake: FakeHomeserver, ghost: Intent
) -> None:
    fake.forgetful = True
    sent = await send(ghost)
    assert await send(ghost, look_first=True) == sent
    assert await send(ghost, "another", look_first=True) != sent
    assert len(fake.messages(ROOM)) == 2


async def test_markers_of_others_and_odd_ones_are_not_mistaken(
    fake: FakeHomeserver, ghost: Intent
) -> None:
    for content in ({MARKER: "txn1"}, {MARKER: {"txn": 1}}, {MARKER: None}, {}):
        await ghost.send(ROOM, "m.room.message", content, f"odd {content}")
    other = Intent(ghost.homeserver, "@agent_2:test")
    await send(other)
    assert await ghost.find_sent(ROOM, "txn1") is None


async def test_a_homeserver_that_is_away_and_comes_back(
    fake: FakeHomeserver, ghost: Intent
) -> None:
    await fake.stop()
    sending = asyncio.create_task(send(ghost))
    await eventually(ghost.homeserver.outage.is_set)
    await fake.start()
    await sending
    assert len(fake.messages(ROOM)) == 1


async def test_patience_has_an_end_where_one_is_given(fake: FakeHomeserver, ghost: Intent) -> None:
    await fake.stop()
    with pytest.raises(HomeserverUnavailable, match="does not answer"):
        await ghost.homeserver.request(
            Method.GET, ClientPath.v3.capabilities, user_id=GHOST, give_up_after=0.1
        )


async def test_a_refusal_is_not_tried_again(fake: FakeHomeserver, ghost: Intent) -> None:
    fake.fail(SEND, Fault(403, {"errcode": "M_FORBIDDEN", "error": "not in the room"}))
    with pytest.raises(MForbidden, match="not in the room"):
        await send(ghost)
    assert len(fake.matching(SEND)) == 1


@pytest.mark.parametrize("body", [{}, {"errcode": 7}, {"errcode": "M_NEW", "error": ["x"]}])
async def test_a_refusal_of_any_shape_is_a_request_error(
    fake: FakeHomeserver, ghost: Intent, body: dict[str, object]
) -> None:
    fake.fail(SEND, Fault(400, body))
    with pytest.raises(MatrixRequestError):
        await send(ghost)


NOT_OF_MATRIX = {"html": "404 Not Found"}


@pytest.mark.parametrize(
    ("status", "body", "word"),
    [
        (401, {"errcode": "M_UNKNOWN_TOKEN", "error": "x"}, "registration.yaml"),
        (401, {"errcode": "M_MISSING_TOKEN", "error": "x"}, "Authorization"),
        (403, NOT_OF_MATRIX, "HTTP 403"),
        (404, NOT_OF_MATRIX, "HTTP 404"),
        (408, NOT_OF_MATRIX, "HTTP 408"),
    ],
)
async def test_a_4xx_that_is_no_refusal_passes(
    fake: FakeHomeserver, ghost: Intent, status: int, body: dict[str, object], word: str
) -> None:
    fake.fail(SEND, *[Fault(status, body)] * 3)
    with capture_logs() as logs:
        await asyncio.gather(send(ghost, "one"), send(ghost, "two"))
    assert len(fake.messages(ROOM)) == 2
    (line,) = [line for line in logs if line["log_level"] == "warning"]
    assert word in line["reason"]
    fake.fail(SEND, Fault(status, body))
    with pytest.raises(HomeserverUnavailable, match=word):
        await ghost.send_interim(ROOM, "m.room.message", {"body": "x"}, "t")


async def test_a_request_that_fails_for_long_is_told_and_counted(
    fake: FakeHomeserver, ghost: Intent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.matrix.retries._LONG", 0.02)
    retries = ghost.homeserver.retries
    fake.fail(SEND, *[failing(500)] * 6)
    with capture_logs() as logs:
        sending = asyncio.create_task(send(ghost))
        await eventually(lambda: retries.stuck)
        await sending
    assert retries.stuck == 0
    (line,) = [line for line in logs if line["log_level"] == "warning"]
    assert line["request"] == "PUT client/v3/rooms/*/send/*/*"
    assert "HTTP 500" in line["reason"]
    assert "as-secret" not in str(logs)


async def test_a_message_that_alone_fails_is_given_up(
    fake: FakeHomeserver, ghost: Intent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.matrix.homeserver._LONGEST_PAUSE", 0.05)
    fake.fail(f"{SEND}.*/poison", *[failing(500)] * 100)
    poison = asyncio.create_task(send(ghost, "poison"))
    await eventually(lambda: len(fake.matching("poison")) > 12)
    assert not poison.done()
    async with asyncio.timeout(3):
        while not poison.done():
            await send(ghost, f"sound {time.monotonic_ns()}")
    with pytest.raises(MatrixRequestError):
        await poison


async def test_gateway_errors_are_never_given_up(
    fake: FakeHomeserver, ghost: Intent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.matrix.homeserver._LONGEST_PAUSE", 0.02)
    fake.fail(f"{SEND}.*/held", *[failing(503)] * 15)
    held = asyncio.create_task(send(ghost, "held"))
    while not held.done():
        await send(ghost, f"sound {time.monotonic_ns()}")
    await held


async def test_interim_edits_get_one_try(fake: FakeHomeserver, ghost: Intent) -> None:
    fake.fail(SEND, failing(503))
    with pytest.raises(HomeserverUnavailable):
        await ghost.send_interim(ROOM, "m.room.message", {"body": "x"}, "t")
    fake.fail(SEND, rate_limited(60_000))
    with pytest.raises(HomeserverUnavailable):
        await ghost.send_interim(ROOM, "m.room.message", {"body": "x"}, "t")
    assert len(fake.matching(SEND)) == 2


async def test_hints_get_one_try(fake: FakeHomeserver, ghost: Intent) -> None:
    fake.fail("typing|receipt", failing(500), failing(500))
    with pytest.raises(HomeserverUnavailable):
        await ghost.typing(ROOM, 30_000)
    with pytest.raises(HomeserverUnavailable):
        await ghost.read_receipt(ROOM, "$1")
    assert len(fake.requests) == 2


async def test_registering_twice_is_no_error(fake: FakeHomeserver, ghost: Intent) -> None:
    await ghost.register()
    await ghost.register()
    assert fake.users == {GHOST}
    assert fake.requests[0].body == {
        "type": "m.login.application_service",
        "username": "agent_1",
        "inhibit_login": True,
    }


async def test_an_alias_nobody_has(ghost: Intent) -> None:
    assert await ghost.resolve_alias("#nobody:test") is None


async def test_writes_are_counted_and_reads_are_not(ghost: Intent) -> None:
    await send(ghost)
    await ghost.members(ROOM)
    await ghost.resolve_alias("#nobody:test")
    assert ghost.homeserver.writes == 1


async def test_typing_says_for_how_long(fake: FakeHomeserver, ghost: Intent) -> None:
    await ghost.typing(ROOM, 30_000)
    await ghost.typing(ROOM, 0)
    assert [r.body for r in fake.requests] == [
        {"typing": True, "timeout": 30_000},
        {"typing": False},
    ]


async def test_provisioning_yields_to_a_message(fake: FakeHomeserver, ghost: Intent) -> None:
    fake.slow[SEND] = 0.2
    sending = asyncio.create_task(send(ghost))
    await eventually(lambda: fake.matching(SEND))
    naming = asyncio.create_task(ghost.set_displayname("Ada"))
    await asyncio.sleep(0.05)
    assert not fake.matching("displayname")
    await asyncio.gather(sending, naming)
    assert fake.profiles[GHOST] == {"displayname": "Ada"}
