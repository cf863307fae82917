"""The tool by which an agent asks the people of a room, and waits."""

import asyncio
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, NotRequired

import structlog
from mautrix.errors import MatrixRequestError
from pydantic import Field

from letta_matrix.access.faults import ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.tasks import Tasks
from letta_matrix.matrix.content import BESIDE, edit_content, text_content, thread_relation
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.server_clock import ServerClock
from letta_matrix.operations.toolbox.arguments import OptionalEvent, OptionalRoom
from letta_matrix.operations.toolbox.naming import living_room
from letta_matrix.operations.toolbox.outcome import told_as
from letta_matrix.operations.toolbox.progress import telling
from letta_matrix.operations.toolbox.question_text import (
    answered,
    how_to_answer,
    question_text,
    unanswered,
    waiting,
)
from letta_matrix.operations.toolbox.questions import KEYS, Answer, Question, Questions
from letta_matrix.operations.toolbox.results import UNTRUSTED, OfEvent, cut
from letta_matrix.operations.toolbox.tool import (
    LONGEST_WAIT,
    Caller,
    Line,
    Result,
    WriteParams,
    tool,
)
from letta_matrix.operations.toolbox.writing import GIVE_UP_AFTER, existing, marker_of
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.places import Place

log = structlog.get_logger()

_UNSURE = 1.0
"""Seconds by which a homeserver's clock that is not ours may be known wrongly."""

_STORING = 5.0
"""Seconds that an answer which came in time has to get into the database."""

_CLOSING = 1.0
"""Seconds that questions have to be closed at the end of the process."""

_LONGEST_ANSWER = 3_000
_NOT_YET = (
    "Nobody answered within {seconds:g} seconds. Go on without, or end your turn: a later answer "
    "comes as a message."
)
_NOT_IN_TIME = "Nobody answered within {seconds:g} seconds, and the question is closed."


class AskHuman(WriteParams):
    question: Annotated[str, Field(min_length=1, max_length=4_000, description="as Markdown")]
    options: list[Annotated[Line, Field(max_length=200)]] = Field(
        default_factory=list[str], max_length=len(KEYS), description="answers to choose from"
    )
    room_id: OptionalRoom = Field(
        "", description="where to ask; without it where you are talking, or in your own room"
    )
    thread: OptionalEvent = Field("", description="first message ($...) of the thread to ask in")
    timeout_seconds: float = Field(240.0, ge=1, le=LONGEST_WAIT, description="how long to wait")


class HumanAnswer(OfEvent):
    """What somebody answered: `option` counts from 1 and is there for the options alone;
    `answer` is null if nobody did."""

    answer: str | None
    option: NotRequired[int]
    by: NotRequired[str]
    untrusted: NotRequired[str]
    note: NotRequired[str]


@dataclass(slots=True)
class _Asked:
    """A question that stands in a room, who asks it, and with what."""

    caller: Caller
    question: Question
    params: AskHuman

    async def say(self, content: Mapping[str, object], txn: str) -> None:
        """Say how it stands; nothing depends on that."""
        room_id, intent = self.question.room_id, self.caller.intent
        try:
            await intent.send(room_id, "m.room.message", content, txn, give_up_after=1.0)
        except (MatrixRequestError, HomeserverUnavailable, StoreUnavailable) as error:
            log.info("not said of a question how it stands", reason=str(error))

    async def close(self, answer: Answer | None) -> None:
        """Say in the question that it is over."""
        over = answered(answer) if answer else unanswered(hears=bool(self.caller.agent_id))
        txn = self.caller.txn("ask_human", "over", "answered" if answer else "not answered")
        marker = marker_of(self.caller, "ask_human", txn)
        event_id = self.question.event_id
        text = question_text(self.params.question, self.params.options, over)
        await self.say(edit_content(text, target_event_id=event_id, marker=marker), txn)

    async def remind(self) -> None:
        """Say that it waits for an answer."""
        thread, txn = self.question.thread_id, self.caller.txn("ask_human", "reminder")
        content = text_content(
            waiting(self.question.options),
            marker={**marker_of(self.caller, "ask_human", txn), BESIDE: "notice"},
            msgtype="m.notice",
            relation=thread_relation(thread, self.question.event_id) if thread else None,
        )
        await self.say(content, txn)

    async def offer_options(self) -> None:
        """React with the numbers, so that a tap answers; the question stands without them too."""
        room_id, event_id = self.question.room_id, self.question.event_id
        for key in KEYS[: len(self.question.options)]:
            try:
                txn = self.caller.txn("ask_human", key)
                await self.caller.intent.react(room_id, event_id, key, txn)
            except (MatrixRequestError, HomeserverUnavailable) as error:
                log.info("an option is not shown as a reaction", reason=str(error))
                return


class _Early:
    """What comes to a room while a question is being asked there: words that answer it, and all
    else."""

    def __init__(self, room_id: str, words: asyncio.Future[Answer]) -> None:
        self.words = words
        self.events: list[Mapping[str, Any]] = []
        self._room_id: str | None = room_id

    def see(self, event: Mapping[str, Any]) -> None:
        if event.get("room_id") == self._room_id:
            self.events.append(event)

    def end(self) -> list[Mapping[str, Any]]:
        """What has come; nothing more is noted."""
        self._room_id, events, self.events = None, self.events, []
        return events


class AskingPeople:
    """Asks where the caller says, else where its turn takes place, else in its own room, as in a
    turn for another network."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._standing: dict[str, _Asked] = {}
        self._background = Tasks()

    @tool("ask_human", "Ask a human", Scope.AGENTS, HumanAnswer, seconds=None)
    async def ask_human(self, caller: Caller, params: AskHuman) -> Result:
        """Ask people a question, with options to choose from, and wait for the answer."""
        deadline = time.time() + params.timeout_seconds
        place = self._place(caller, params)
        with ExitStack() as listening:
            async with living_room(caller, place.room_id) as room_id:
                place = place._replace(room_id=room_id)
                if place.thread_id and place != caller.place:
                    await existing(caller, room_id, place.thread_id)
                # Elsewhere nobody in particular is spoken with.
                speaker = caller.speaker if place == caller.place else ""
                asked_at = _time_in(caller.intent.homeserver.clock)
                options, thread = tuple(params.options), place.thread_id
                question = Question("", room_id, options, thread, speaker, asked_at)
                # Whoever is quick answers before we know where it stands.
                early = listening.enter_context(self._listening(caller, params, question))
                event_id, known = await self._ask(caller, place, params)
            asked = _Asked(caller, replace(question, event_id=event_id, asked_at=0), params)
            return await self._answer(asked, early, deadline, known=known)

    @contextmanager
    def _listening(self, caller: Caller, params: AskHuman, question: Question) -> Generator[_Early]:
        with self._questions.expect(question) as future:
            early = _Early(question.room_id, future)
            try:
                with caller.house.event_bus.listen(early.see):
                    yield early
            except Exception as error:
                heard, told = self._questions.heard(future), told_as(error, caller, params)
                if heard is None or told is None:
                    raise
                told.args = (f'{told} Meanwhile {heard.sender} wrote "{heard.text}".',)
                raise told from error.__cause__

    async def _answer(
        self, asked: _Asked, early: _Early, deadline: float, *, known: bool
    ) -> Result:
        """What comes of a question that stands in its room; `known`: for longer than this call."""
        caller, params, question = asked.caller, asked.params, asked.question
        room_id, event_id = question.room_id, question.event_id
        self._standing[event_id] = asked
        answer: Answer | None = None
        try:
            asked_at = Event(await caller.intent.event(room_id, event_id)).sent_ms
            question = asked.question = replace(question, asked_at=asked_at)
            if known:
                since = caller.intent.homeserver.clock.now() - asked_at / 1000
                deadline = min(deadline, time.time() - since + params.timeout_seconds)
            async with telling(caller, params.timeout_seconds, "waiting for somebody's answer"):
                answer = await self._wait(asked, early, deadline, look=known)
        except BaseException as error:
            # What a turn has asked is closed when the turn is over, not with this process.
            is_cancelled = isinstance(error, asyncio.CancelledError)
            of_turn = caller.turn_id and is_cancelled
            # Where it could not be looked at the next try takes it up.
            is_over = is_cancelled or asked.question.asked_at
            if not of_turn and self._standing.pop(event_id, None) is not None and is_over:
                self._background.start(asked.close(None))
            raise
        if self._standing.pop(event_id, None) is not None:
            await asked.close(answer)
        return _result(caller, question, answer, params.timeout_seconds)

    async def _wait(
        self, asked: _Asked, early: _Early, deadline: float, *, look: bool
    ) -> Answer | None:
        question = asked.question
        with (
            self._questions.open(question, early.words) as future,
            self._reminding(asked, early.end()),
        ):
            if look and (answer := await self._answered_already(asked)) is not None:
                return answer
            await asked.offer_options()
            answer = await _within(future, deadline - time.time())
            if answer is None and self._questions.is_being_answered(question):
                answer = await _within(future, _STORING)
            return answer

    @contextmanager
    def _reminding(self, asked: _Asked, before: Sequence[Mapping[str, Any]]) -> Generator[None]:
        """Meanwhile, and of what has come `before`, tell once whoever says something else that it
        waits for the answer."""
        reminded = False

        def see(event: Mapping[str, Any]) -> None:
            nonlocal reminded
            # What came before we knew to what it answers is stored by now.
            if (resolve := self._questions.match(event)) is not None:
                resolve()
            if not reminded and self._questions.is_passed_over(asked.question, event):
                reminded = True
                self._background.start(asked.remind())

        for event in before:
            see(event)
        with asked.caller.house.event_bus.listen(see):
            yield

    async def close(self) -> None:
        """Wait a little until the questions are closed that nobody waits for."""
        if self._background:
            await asyncio.wait(self._background, timeout=_CLOSING)
        await self._background.cancel()

    async def ended(self, turn_id: str) -> None:
        """A turn is over: nobody waits any more for what it has asked."""
        for event_id, asked in list(self._standing.items()):
            if turn_id and asked.caller.turn_id == turn_id:
                del self._standing[event_id]
                self._questions.withdraw(event_id)
                await asked.close(None)

    def _place(self, caller: Caller, params: AskHuman) -> Place:
        """Where to ask; its room as the caller names it."""
        here, agent = caller.place, caller.house.directory.get(caller.agent_id)
        if here is not None and not params.room_id and caller.house.is_portal(here.room_id):
            # Whoever writes from another network is not who is asked.
            here = None
        if here is not None and params.room_id in ("", here.room_id):
            return here._replace(thread_id=params.thread or here.thread_id)
        room = params.room_id or (agent.room_id if agent is not None else None)
        if room is None:
            raise ToolError("Give a `room_id`: you are not talking in a room, nor have your own.")
        return Place(caller.agent_id, room, params.thread)

    async def _ask(self, caller: Caller, place: Place, params: AskHuman) -> tuple[str, bool]:
        """Post the question; its event id, and whether it stood there already."""
        txn, room_id, thread = caller.txn("ask_human"), place.room_id, place.thread_id
        if (known := await caller.intent.find_sent(room_id, txn)) is not None:
            return known, True
        content = text_content(
            question_text(params.question, params.options, how_to_answer(params.options)),
            marker=marker_of(caller, "ask_human", txn),
            relation=thread_relation(thread, thread) if thread else None,
        )
        event_id = await caller.intent.send(
            room_id, "m.room.message", content, txn, give_up_after=GIVE_UP_AFTER
        )
        return event_id, False

    async def _answered_already(self, asked: _Asked) -> Answer | None:
        """The first answer among the question's reactions and what was said since."""
        intent, question = asked.caller.intent, asked.question
        room_id, event_id = question.room_id, question.event_id
        reactions = await intent.relations(room_id, event_id, "m.annotation")
        recent = await intent.recent_events(room_id)
        ids = [event.get("event_id") for event in recent]
        since = ids.index(event_id) + 1 if event_id in ids else 0
        in_room = ({**event, "room_id": room_id} for event in [*reactions[::-1], *recent[since:]])
        answers = (self._questions.answer(question, event) for event in in_room)
        return next((answer for answer in answers if answer is not None), None)


def _time_in(server: ServerClock) -> int:
    """From when on what a homeserver dates was surely sent after now, in ms."""
    return int((server.now() + (_UNSURE if server.ahead else 0.0)) * 1000)


async def _within(future: asyncio.Future[Answer], seconds: float) -> Answer | None:
    done, _ = await asyncio.wait([future], timeout=max(seconds, 0.0))
    return future.result() if done and not future.cancelled() else None


def _result(caller: Caller, question: Question, answer: Answer | None, seconds: float) -> Result:
    where = {"room_id": question.room_id, "event_id": question.event_id}
    if answer is None:
        note = (_NOT_YET if caller.turn_id else _NOT_IN_TIME).format(seconds=seconds)
        return {**where, "answer": None, "note": note}
    if answer.option:
        return {**where, "answer": answer.text, "option": answer.option, "by": answer.sender}
    return {**where, **UNTRUSTED, "answer": cut(answer.text, _LONGEST_ANSWER), "by": answer.sender}
