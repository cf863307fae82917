"""Requests that meet a slow, failing or forgetful homeserver."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from mautrix.api import ClientPath, Method
from mautrix.errors import MatrixRequestError, MForbidden
from structlog.testing import capture_logs
from structlog.typing import EventDict
from tests.fake_homeserver import (
    LOST_ANSWER,
    LOST_REQUEST,
    FakeHomeserver,
    Fault,
    failing,
    rate_limited,
)
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.requests import _LONGEST_PAUSE
from letta_matrix.matrix.retries import _LONG

T = TypeVar("T")

ROOM = "!1:test"
GHOST = "@agent_1:test"
SEND = "PUT .*/send/"
JITTER = 1.3


@pytest.fixture
def ghost(homeserver: Homeserver) -> Intent:
    return Intent(homeserver, GHOST)


class Pauses:
    """Moves a clock that stands still where a request waits to be tried again, and only there.

    `logs` is what was logged.
    """

    def __init__(self, clock: Clock, logs: list[EventDict]) -> None:
        self._clock = clock
        self.logs = logs
        self._skipped = 0

    @property
    def begun(self) -> int:
        return sum("again" in line["event"] for line in self.logs)

    async def skipped_until(self, condition: Callable[[], object]) -> None:
        def look() -> object:
            while self._skipped < self.begun:
                self._skipped += 1
                self._clock.advance(_LONGEST_PAUSE * JITTER)
            return condition()

        await eventually(look)

    async def skipped(self, work: Coroutine[Any, Any, T]) -> T:
        """What becomes of it at last."""
        task = asyncio.create_task(work)
        await self.skipped_until(task.done)
        return await task


@pytest.fixture
def pauses(fake: FakeHomeserver, clock: Clock) -> Iterator[Pauses]:
    clock.stop()
    with capture_logs() as logs:
        yield Pauses(clock, logs)


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


@pytest.mark.parametrize(
    ("faults", "seconds"),
    [
        ([rate_limited(300)], [0.3]),
        ([Fault(429, {"retry_after_ms": "soon"}, headers={"Retry-After": "7"})], [7.0]),
        ([failing(502)] * 8, [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]),
    ],
    ids=["told", "told in the header", "growing"],
)
async def test_a_try_waits_as_long_as_told_or_ever_longer(
    fake: FakeHomeserver,
    ghost: Intent,
    clock: Clock,
    pauses: Pauses,
    faults: list[Fault],
    seconds: list[float],
) -> None:
    fake.fail(SEND, *faults)
    sending = asyncio.create_task(send(ghost))
    for number, pause in enumerate(seconds, 1):
        await eventually(lambda: pauses.begun, number.__eq__)
        clock.advance(pause - 0.01)
        await settled(sending)
        assert len(fake.matching(SEND)) == number
        clock.advance(pause * JITTER - pause + 0.02)
    await within(sending)
    assert len(fake.matching(SEND)) == len(faults) + 1
    assert len(fake.messages(ROOM)) == 1


async def test_every_try_carries_the_same_txn_id(
    fake: FakeHomeserver, ghost: Intent, pauses: Pauses
) -> None:
    fake.fail(SEND, failing(500), failing(503), rate_limited(5), LOST_REQUEST)
    await pauses.skipped(send(ghost))
    tries = fake.matching(SEND)
    assert len(tries) == 5
    assert len({request.path for request in tries}) == 1
    assert len(fake.messages(ROOM)) == 1


async def test_a_lost_answer_is_looked_up_before_a_resend(
    fake: FakeHomeserver, ghost: Intent, pauses: Pauses
) -> None:
    # A restart made the homeserver forget the txn id, so a blind resend would say it twice.
    fake.forgetful = True
    # The second is for aiohttp, which tries a broken connection's request again by itself.
    fake.fail(SEND, LOST_ANSWER, LOST_REQUEST)
    event_id = await pauses.skipped(send(ghost))
    assert [e["event_id"] for e in fake.messages(ROOM)] == [event_id]


async def test_what_did_not_arrive_is_sent_again(
    fake: FakeHomeserver, ghost: Intent, pauses: Pauses
) -> None:
    fake.forgetful = True
    await send(ghost, "before")
    fake.fail(SEND, LOST_REQUEST, LOST_REQUEST)
    await pauses.skipped(send(ghost, "txn2"))
    assert [e["content"][MARKER]["txn"] for e in fake.messages(ROOM)] == ["before", "txn2"]


async def test_a_look_up_that_fails_does_not_stop_the_resend(
    fake: FakeHomeserver, ghost: Intent, pauses: Pauses
) -> None:
    fake.fail(SEND, LOST_REQUEST, LOST_REQUEST)
    fake.fail("GET .*/messages", Fault(403, {"errcode": "M_FORBIDDEN"}))
    await pauses.skipped(send(ghost))
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
    fake: FakeHomeserver, ghost: Intent, pauses: Pauses
) -> None:
    await fake.go_away()
    sending = asyncio.create_task(send(ghost))
    await eventually(ghost.homeserver.outage.is_set)
    await fake.start()
    await pauses.skipped_until(sending.done)
    await sending
    assert len(fake.messages(ROOM)) == 1


async def test_patience_has_an_end_where_one_is_given(
    fake: FakeHomeserver, ghost: Intent, clock: Clock, pauses: Pauses
) -> None:
    await fake.go_away()
    began = clock.now()
    asking = ghost.homeserver.request(Method.GET, ClientPath.v3.capabilities, give_up_after=60)
    with pytest.raises(HomeserverUnavailable, match="does not answer"):
        await pauses.skipped(asking)
    assert 50 < clock.now() - began < 60 + _LONGEST_PAUSE * JITTER


async def test_a_refusal_is_not_tried_again(fake: FakeHomeserver, ghost: Intent) -> None:
    fake.fail(SEND, Fault(403, {"errcode": "M_FORBIDDEN", "error": "not in the room"}))
    with pytest.raises(MForbidden, match="not in the room"):
        await send(ghost)
    assert len(fake.matching(SEND)) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [(400, {"errcode": "M_NEW", "error": ["x"]}), (418, {"errcode": "M_NEW"}), (413, {})],
)
async def test_a_refusal_of_any_shape_is_a_request_error(
    fake: FakeHomeserver, ghost: Intent, status: int, body: dict[str, object]
) -> None:
    fake.fail(SEND, Fault(status, body))
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
    fake: FakeHomeserver,
    ghost: Intent,
    pauses: Pauses,
    status: int,
    body: dict[str, object],
    word: str,
) -> None:
    fake.fail(SEND, *[Fault(status, body)] * 3)
    both = asyncio.gather(send(ghost, "one"), send(ghost, "two"))
    await pauses.skipped_until(both.done)
    await both
    assert len(fake.messages(ROOM)) == 2
    (line,) = [line for line in pauses.logs if line["log_level"] == "warning"]
    assert word in line["reason"]
    fake.fail(SEND, Fault(status, body))
    with pytest.raises(HomeserverUnavailable, match=word):
        await ghost.send_interim(ROOM, "m.room.message", {"body": "x"}, "t")


async def test_a_request_that_fails_for_long_is_told_and_counted(
    fake: FakeHomeserver, ghost: Intent, clock: Clock, pauses: Pauses
) -> None:
    retries = ghost.homeserver.retries
    fake.fail(SEND, *[failing(500)] * 6)
    sending = asyncio.create_task(send(ghost))
    await eventually(lambda: pauses.begun)
    assert retries.stuck == 0
    clock.advance(_LONG)
    assert retries.stuck == 1
    await pauses.skipped_until(sending.done)
    assert retries.stuck == 0
    (line,) = [line for line in pauses.logs if line["log_level"] == "warning"]
    assert line["request"] == "PUT client/v3/rooms/*/send/m.room.message/*"
    assert "HTTP 500" in line["reason"]
    assert "as-secret" not in str(pauses.logs)


async def test_a_message_that_alone_fails_is_given_up(
    fake: FakeHomeserver, ghost: Intent, pauses: Pauses
) -> None:
    fake.fail(f"{SEND}.*/poison", *[failing(500)] * 100)
    poison = asyncio.create_task(send(ghost, "poison"))
    await pauses.skipped_until(lambda: len(fake.matching("poison")) > 12)
    assert not poison.done()
    await send(ghost, "sound")
    await pauses.skipped_until(poison.done)
    with pytest.raises(MatrixRequestError):
        await poison


async def test_gateway_errors_are_never_given_up(
    fake: FakeHomeserver, ghost: Intent, pauses: Pauses
) -> None:
    fake.fail(f"{SEND}.*/held", *[failing(503)] * 15)
    held = asyncio.create_task(send(ghost, "held"))
    for number in range(15):
        await send(ghost, f"sound {number}")
        await pauses.skipped_until(lambda tries=number + 1: len(fake.matching("held")) > tries)
    await pauses.skipped_until(held.done)
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


@pytest.mark.parametrize(
    ("faults", "is_new"),
    [
        ([], False),
        ([rate_limited(10)], False),
        ([Fault(403, {"errcode": "M_RESOURCE_LIMIT_EXCEEDED"})], False),
        ([failing(502)], None),
        ([Fault(404)], None),
        ([LOST_REQUEST, LOST_REQUEST], None),
        ([failing(503), rate_limited(10)], None),
    ],
)
async def test_an_account_that_is_there_may_be_ours_only_if_an_answer_was_lost(
    fake: FakeHomeserver, ghost: Intent, clock: Clock, faults: list[Fault], is_new: bool | None
) -> None:
    fake.users.add(GHOST)
    fake.fail("register", *faults)
    assert await clock.through(ghost.register()) is is_new


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


async def test_an_alias_on_a_server_that_does_not_answer(
    fake: FakeHomeserver, ghost: Intent
) -> None:
    away = Fault(502, {"errcode": "M_UNKNOWN", "error": "Failed to fetch alias"})
    fake.fail("directory", away)
    assert await ghost.resolve_alias("#a:elsewhere") is None
    assert len(fake.matching("directory")) == 1


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


async def test_provisioning_yields_to_a_message(
    fake: FakeHomeserver, ghost: Intent, clock: Clock
) -> None:
    released = fake.hold(SEND)
    sending = asyncio.create_task(send(ghost))
    await eventually(lambda: fake.matching(SEND))
    clock.stop()
    naming = asyncio.create_task(ghost.set_displayname("Ada"))
    await settled(naming)
    assert not fake.matching("displayname")
    released.set()
    await within(asyncio.gather(sending, naming))
    assert fake.profiles[GHOST] == {"displayname": "Ada"}
