"""One person writes far more than one person may; everybody else is answered as ever."""

import io
import signal
import time
from asyncio.subprocess import Process
from typing import Any

import pytest
from PIL import Image
from tests.builders import invite, message, reaction, said_in
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage
from tests.waiting import Clock, eventually, settled

from letta_matrix.conversations import notices, prompts
from letta_matrix.matrix.reactions import STOP
from letta_matrix.matrix.server_clock import ServerClock

FLOOD = 600
OTHER, ADMIN = "@bob:test", "@root:test"
ROOM, SHARED = "!1:test", "!shared:test"


def told(fake: FakeHomeserver, room_id: str = ROOM) -> int:
    return fake.bodies(room_id).count(notices.OVER_BUDGET)


async def answered(stage: Stage, clock: Clock) -> None:
    """The runtime is back, and takes what waits for it."""
    stage.runtime.available = True
    await clock.until(lambda: stage.dispatcher.queues.waiting == 0)


@pytest.fixture
async def flooded(stage: Stage) -> Stage:
    """Three may wait, and a minute knows no limit; nothing is answered until it is let go."""
    await stage.again(person_waiting=3, person_per_minute=0)
    stage.runtime.available = False
    return stage


async def test_a_flood_is_no_flood_of_model_calls(stage: Stage, fake: FakeHomeserver) -> None:
    flood = [message(str(number)) for number in range(FLOOD)]
    for begin in range(0, FLOOD, 100):
        await stage.admit(*flood[begin : begin + 100])
    await stage.admit(message("and me?", sender=OTHER))
    await stage.idle()
    limits = stage.config.conversations
    asked = [turn.text for turn in stage.runtime.asked if turn.text != "and me?"]
    assert asked[: limits.person_waiting] == [str(n) for n in range(limits.person_waiting)]
    assert len(asked) <= limits.person_per_minute
    assert stage.stores.inbox.refused == FLOOD - len(asked)
    assert "echo: and me?" in fake.bodies(ROOM)
    assert told(fake)


async def test_it_is_said_once_and_at_once(
    flooded: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    """Before any of what waits is answered."""
    await flooded.admit(*(message(str(number)) for number in range(FLOOD)))
    await eventually(lambda: told(fake))
    await answered(flooded, clock)
    assert [turn.text for turn in flooded.runtime.asked] == ["0", "1", "2"]
    assert told(fake) == 1


async def test_once_it_eases_they_are_answered_and_told_again(
    flooded: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    await flooded.admit(*(message(str(number)) for number in range(9)))
    await answered(flooded, clock)
    await flooded.tell(message("now"))
    assert fake.bodies(ROOM)[-1] == "echo: now"
    flooded.runtime.available = False
    await flooded.admit(*(message(str(number)) for number in range(9)))
    await eventually(lambda: told(fake) == 2)


async def test_a_minute_has_its_limit_too(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = [time.time()]

    def now(_: ServerClock) -> float:
        return at[0]

    monkeypatch.setattr(ServerClock, "now", now)
    await stage.again(person_per_minute=4)

    def sent(words: str) -> dict[str, Any]:
        return message(words, origin_server_ts=int(at[0] * 1000))

    for number in range(9):
        await stage.tell(sent(str(number)))
    assert (len(stage.runtime.asked), told(fake)) == (4, 1)
    at[0] += 61
    await stage.tell(sent("later"))
    assert fake.bodies(ROOM)[-1] == "echo: later"


async def test_what_is_asked_and_what_is_not_do_not_alternate(
    stage: Stage, fake: FakeHomeserver
) -> None:
    """Half of the budget has to be free again first."""
    await stage.again(person_waiting=3)
    await stage.admit(*(said_in(f"$root{number}", "hang") for number in range(3)))
    await stage.admit(message("a", "!2:test"))
    for left, answers in ((2, []), (1, ["echo: b"])):
        await stage.runner.cancel(stage.dispatcher.queues.unfinished()[0])
        await eventually(lambda left=left: stage.dispatcher.queues.waiting == left)
        await stage.admit(message("b", "!2:test"))
        await eventually(lambda left=left: stage.dispatcher.queues.waiting == left)
        assert fake.bodies("!2:test")[1:] == answers
    assert told(fake, "!2:test") == 1


async def test_a_restart_forgets_nothing_that_waits(
    flooded: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    await flooded.admit(message("a"), message("b"), message("c"))
    await flooded.recover()
    await flooded.admit(message("d", "!2:test"))
    await eventually(lambda: told(fake, "!2:test"))
    await flooded.recover()
    await flooded.admit(message("e", "!2:test"))
    await answered(flooded, clock)
    assert [turn.text for turn in flooded.runtime.asked] == ["a", "b", "c"]
    assert told(fake, "!2:test") == 1


async def test_what_is_pushed_again_costs_nothing(
    flooded: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    events = [message("a"), message("b"), message("c")]
    for _ in range(5):
        await flooded.admit(*events, *events)
    await answered(flooded, clock)
    assert len(flooded.runtime.asked) == 3
    assert not told(fake)


async def test_rooms_do_not_add_up(flooded: Stage, fake: FakeHomeserver, clock: Clock) -> None:
    """Agents' rooms, a room with several agents, and one that was not known."""
    await flooded.stores.rooms.joined(SHARED, "@agent_1:test", direct=False)
    await flooded.stores.rooms.joined(SHARED, "@agent_2:test", direct=False)
    await flooded.admit(*(message(str(number), "!3:test") for number in range(9)))
    await flooded.admit(message("a"), message("@agent_1 @agent_2 b", SHARED))
    await flooded.admit(message("c", "!2:test"), message("@agent_1 @agent_2 d", SHARED))
    await flooded.add(3)
    await flooded.dispatcher.room_known("!3:test")
    rooms = (SHARED, "!2:test", "!3:test")
    await eventually(lambda: all(told(fake, room_id) for room_id in rooms))
    await answered(flooded, clock)
    assert len(flooded.runtime.asked) == 3
    assert [told(fake, room_id) for room_id in rooms] == [1, 1, 1]


async def test_a_word_is_said_in_the_thread(flooded: Stage, fake: FakeHomeserver) -> None:
    await flooded.admit(message("a"), message("b"), message("c"))
    await flooded.admit(said_in("$root", "d"))
    await eventually(lambda: told(fake))
    (said,) = [
        event for event in fake.messages(ROOM) if "more than one" in event["content"]["body"]
    ]
    assert said["content"]["m.relates_to"]["event_id"] == "$root"
    assert said["content"]["msgtype"] == "m.notice"


async def test_commands_count_and_what_makes_room_does_not(
    flooded: Stage, fake: FakeHomeserver
) -> None:
    first = message("a")
    await flooded.admit(first, message("b"), message("c"))
    await flooded.admit(*(message("!help") for _ in range(9)))
    await eventually(lambda: told(fake))
    await flooded.admit(reaction(first["event_id"], STOP))
    await eventually(lambda: "Stopped." in fake.bodies(ROOM))
    await flooded.admit(message("!cancel"))
    await flooded.idle()
    assert not [body for body in fake.bodies(ROOM) if "!help" in body]
    assert told(fake) == 1


async def test_admins_have_no_limit(flooded: Stage, fake: FakeHomeserver, clock: Clock) -> None:
    flooded._sections["permissions"] = {"test": "user", ADMIN: "admin"}  # pyright: ignore
    await flooded.again()
    await flooded.admit(*(message(str(number), sender=ADMIN) for number in range(9)))
    await answered(flooded, clock)
    assert len(flooded.runtime.asked) == 9
    assert not told(fake)


async def test_invitations_and_what_people_cannot_count(flooded: Stage) -> None:
    """What is no asking: an invitation, and what is not for an agent."""
    await flooded.admit(*(invite("@agent_1:test", f"!new{number}:test") for number in range(5)))
    await flooded.admit(*(message("x", "!2:test", sender="@letta:test") for _ in range(5)))
    await flooded.admit(message("a"), message("b"), message("c"))
    assert flooded.stores.inbox.refused == 0


async def test_pictures_of_one_person_hold_up_nobody_elses(
    stage: Stage,
    fake: FakeHomeserver,
    decoders: list[Process],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though each takes its decoder for as long as it may."""
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "PNG")

    async def download(*_args: object, **_options: object) -> bytes:
        return file.getvalue()

    monkeypatch.setattr(prompts, "download", download)

    def sent(event: dict[str, Any]) -> dict[str, Any]:
        event["content"] |= {"msgtype": "m.image", "url": "mxc://test/1"}
        return event

    await stage.admit(*(sent(said_in(f"$root{number}", "huge.png")) for number in range(9)))
    await eventually(lambda: decoders)
    await stage.admit(sent(message("small.png", "!2:test", sender=OTHER)))
    await eventually(lambda: len(decoders) == 2)
    decoders[1].send_signal(signal.SIGCONT)
    await eventually(lambda: fake.bodies("!2:test"))
    await settled()
    assert len(decoders) == 2
    assert not fake.bodies(ROOM)
