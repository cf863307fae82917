"""What must hold in a room after everything is over."""

import secrets
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from tests.crash.bridges import Bridges, Room
from tests.crash.points import EDITING_POINTS, ENDING_POINTS

from letta_matrix.matrix.reactions import ALLOW


@dataclass(frozen=True)
class Words:
    """A message nobody said before, and the stub model's answer to it."""

    text: str
    answer: str

    @classmethod
    def quick(cls) -> Self:
        text = f"hello {secrets.token_hex(6)}"
        return cls(text, f"echo: {text}")

    @classmethod
    def held(cls, words: int = 9) -> Self:
        """Of the answer comes one word, until the test lets it go on."""
        answer = " ".join(f"word{number}" for number in range(1, words + 1))
        return cls(f"{secrets.token_hex(6)} steps:{words}", answer)


async def growth(bridges: Bridges, room: Room, words: Words, edits: int = 1) -> None:
    """Let the room's last reply, the answer to held `words`, grow word by word until it has been
    edited so often."""

    async def edited() -> int:
        replies = await bridges.replies(room)
        return replies[-1].edits if replies and replies[-1].live else -1

    watch = partial(bridges.person.watch, room.room_id, edited)
    done = await watch((-1).__lt__, "a reply begins")
    while done < edits:
        bridges.steps.step(words.text)
        done = await watch(done.__lt__, "the reply grows")


async def tell_and_die(bridges: Bridges, room: Room, words: Words, point: str) -> str:
    """Say held `words` and see the bridge die at a point of their turn; the message's id. Where
    it dies before the end, no more than the answer's first words has been said by then."""
    bridges.set_trap(point, words.text)
    event_id = await bridges.say(room, words.text)
    if point in EDITING_POINTS | ENDING_POINTS:
        await growth(bridges, room, words, 0)
    if point in EDITING_POINTS:
        bridges.steps.step(words.text)
    if point in ENDING_POINTS:
        bridges.steps.finish(words.text)
    await bridges.dead(point)
    return event_id


async def assert_answered_once(
    bridges: Bridges, room: Room, *told: tuple[str, Words], asked: int = 1
) -> None:
    """Wait for the end of these turns, by event id; then the room must hold exactly their
    answers in order, complete and once, nothing may be owed, and the model must have been
    asked once for each: for the first of them `asked` times at most."""
    await bridges.settled(room, *(event_id for event_id, _ in told))
    replies = await bridges.replies(room)
    assert [reply.text for reply in replies] == [words.answer for _, words in told]
    assert [reply.answers for reply in replies] == [event_id for event_id, _ in told]
    assert not any(reply.live for reply in replies), "a reply still counts as growing"
    first, *others = [bridges.count(words.text) for _, words in told]
    assert 1 <= first <= asked
    assert others == [1] * len(others)
    assert bridges.turns(room) == [(event_id, "done") for event_id, _ in told]
    assert bridges.unsettled(room) == []


async def assert_goes_on(
    bridges: Bridges, room: Room, *told: tuple[str, Words], asked: int = 1
) -> None:
    """Say one more thing after `told` and have it answered. Transactions come in order, so
    all that the homeserver may have delivered again has been seen by then."""
    words = Words.quick()
    event_id = await bridges.say(room, words.text)
    await assert_answered_once(bridges, room, *told, (event_id, words), asked=asked)


@dataclass(frozen=True)
class Task:
    """A message that makes the stub model use Bash, which adds a line to `file`."""

    text: str
    file: Path

    @classmethod
    def new(cls, directory: Path) -> Self:
        file = directory / secrets.token_hex(6)
        return cls(f"tool:Bash:echo ran >> {file}", file)

    @property
    def runs(self) -> int:
        return len(self.file.read_text().splitlines()) if self.file.exists() else 0


async def asked(bridges: Bridges, room: Room, number: int = 1) -> str:
    """Wait until the agent has asked its `number`-th question in a room; the event's id."""

    async def is_asked() -> bool:
        return len(await bridges.questions(room)) >= number

    await bridges.person.watch(room.room_id, is_asked, what="the agent asks")
    return (await bridges.questions(room))[number - 1].event_id


async def pending(bridges: Bridges, task: Task) -> tuple[Room, str, str]:
    """A new thread, the task's message in it, and the question that waits for an answer."""
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await bridges.say(room, task.text)
    return room, event_id, await asked(bridges, room)


async def assert_done_once(bridges: Bridges, room: Room, event_id: str, task: Task) -> None:
    """Wait for the end of a turn whose tool was allowed; then the tool must have run once, for
    one question and one answer, and the model must have been asked once and told once."""
    await bridges.settled(room, event_id)
    assert task.runs == 1
    (question,) = await bridges.questions(room)
    assert question.text.startswith(ALLOW), question.text
    (reply,) = await bridges.replies(room)
    assert reply.text.startswith("tool said:"), reply.text
    assert (reply.answers, reply.live) == (event_id, False)
    rounds = [request for request in bridges.model.requests if task.text in request.text]
    assert [request.after_tool for request in rounds] == [False, True]
    assert bridges.unsettled(room) == []
