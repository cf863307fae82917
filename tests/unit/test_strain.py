"""A bridge whose agents all talk at once, or whose runtime is away while people go on talking."""

from collections.abc import Iterator

from tests.builders import message
from tests.fake_homeserver import FakeHomeserver
from tests.scripts import DONE
from tests.stage import Stage
from tests.waiting import Clock

from letta_matrix.conversations import notices
from letta_matrix.runtimes.protocol import TextDelta, TurnEvent, TurnRequest

ROOMS = [f"!{number}:test" for number in range(1, 5)]


async def test_all_replies_keep_to_one_budget_of_edits(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    def stream(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        for number in range(60):
            yield TextDelta("0", f"word{number} ")
            yield 0.1
        yield DONE

    stage.runtime.script = stream
    await stage.again(edits_per_second=2)
    await stage.add(3)
    await stage.add(4)
    clock.stop()
    began = clock.now()
    await stage.admit(*(message("go on", room_id) for room_id in ROOMS))
    await clock.until(lambda: stage.dispatcher.queues.waiting == 0, step=0.05)
    seconds = clock.now() - began
    edits = 0
    for room_id in ROOMS:
        assert fake.bodies(room_id)[0].endswith("word59")
        edits += len(fake.messages(room_id)) - 1
    # Two a second, two to begin with, and the last one of each.
    assert len(ROOMS) < edits <= 2 * seconds + 2 + len(ROOMS)


async def test_a_runtime_that_is_away_is_told_of_once_and_all_is_answered_later(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    room_id = ROOMS[0]
    stage.runtime.available = False
    await stage.admit(message("one"))
    await clock.until(lambda: fake.bodies(room_id), step=0.2)
    await stage.admit(message("two"))
    later = clock.now() + 30
    await clock.until(lambda: clock.now() > later, step=0.2)
    assert fake.bodies(room_id, "m.notice") == fake.bodies(room_id) == [notices.UNAVAILABLE]
    stage.runtime.available = True
    await clock.until(lambda: stage.dispatcher.queues.waiting == 0, step=0.2)
    assert fake.bodies(room_id) == [notices.WAS_AWAY, "echo: one", "echo: two"]
