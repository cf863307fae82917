"""Where several bridges could act, a request has to leave before another one may; its answer may
take as long as it takes."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest
from tests.fake_homeserver import FakeHomeserver
from tests.waiting import Clock, eventually

from letta_matrix.common.clock import now
from letta_matrix.matrix.api import Leaves
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.pacing import Pacer

ROOM = "!1:test"
SEND = "PUT .*/send/"


@dataclass
class Seat:
    """Ours for so many seconds each time it is asked for; the last figure holds."""

    left: list[float]

    async def sure(self) -> float:
        left = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return now() + left


@pytest.fixture
def seat() -> Seat:
    return Seat([5.0])


@pytest.fixture
async def ghost(fake: FakeHomeserver, seat: Seat) -> AsyncGenerator[Intent]:
    client = Homeserver(fake.url, "as-secret", Pacer(edits_per_second=1000), sure=seat.sure)
    yield Intent(client, "@agent_1:test")
    await client.close()


async def test_a_slow_answer_is_waited_for(
    fake: FakeHomeserver, ghost: Intent, clock: Clock
) -> None:
    released = fake.hold(SEND)
    sending = asyncio.create_task(ghost.send(ROOM, "m.room.message", {"body": "x"}, "txn"))
    await eventually(lambda: fake.matching(SEND))
    clock.advance(20)
    released.set()
    assert await sending
    assert len(fake.matching(SEND)) == 1


@pytest.mark.parametrize("is_connected", [False, True])
async def test_what_comes_too_late_does_not_leave(
    fake: FakeHomeserver, ghost: Intent, seat: Seat, is_connected: bool
) -> None:
    if is_connected:
        await ghost.send(ROOM, "m.room.message", {"body": "before"}, "before")
    seat.left = [-1.0, 5.0]
    assert await ghost.send(ROOM, "m.room.message", {"body": "x"}, "txn")
    assert len(fake.matching(f"{SEND}m.room.message/txn")) == 1
    assert ghost.homeserver.writes == 2 + is_connected


async def test_who_stood_still_before_writing_does_not_write(clock: Clock) -> None:
    leaves = Leaves(now() + 5, asyncio.timeout(None))
    clock.advance(6)
    with pytest.raises(RuntimeError, match="late"):
        leaves.is_out()
