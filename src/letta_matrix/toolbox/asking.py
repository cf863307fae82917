"""The tool by which an agent asks the people of a room, and waits."""

import asyncio
import time
from collections.abc import Coroutine, Generator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, NotRequired

import structlog
from mautrix.errors import MatrixRequestError
from pydantic import Field

from letta_matrix.access.faults import ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.tasks import Tasks
from letta_matrix.matrix.arrivals import Arrivals
from letta_matrix.matrix.content import BESIDE, edit_content, text_content, thread_relation
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.places import Place
from letta_matrix.toolbox.naming import living_room
from letta_matrix.toolbox.progress import telling
from letta_matrix.toolbox.questions import KEYS, Answer, Question, Questions
from letta_matrix.toolbox.results import UNTRUSTED, OfEvent, cut
from letta_matrix.toolbox.tool import (
    LONGEST_WAIT,
    Caller,
    Line,
    OptionalEvent,
    OptionalRoom,
    Result,
    WriteParams,
    tool,
)
from letta_matrix.toolbox.writing import GIVE_UP_AFTER, existing, marker_of, spoken

log = structlog.get_logger()

_LATE = 1.0
"""Seconds after which a question may have been answered before its sending was confirmed."""

_STORING = 5.0
"""Seconds that an answer which came in time has to get into the database."""

_CLOSING = 1.0
"""Seconds that questions have to be closed at the end of the process."""

_LONGEST_ANSWER = 3_000
_LONGEST_SHOWN = 300
_NOT_YET = (
    "Nobody answered within {seconds:g} seconds. Go on without, or end your turn: a later answer "
    "comes as a message."
)
_NOT_IN_TIME = "Nobody answered within {seconds:g} seconds, and the question is closed."
_WAITING = "I wait for an answer: reply to my question. What else you write, I read after that."
_WAITING_OPTIONS = (
    "I wait for an answer: tap a number at my question, write one of its options, or reply to it. "
    "What else you write, I read after that."
)
_OVER = "*Nobody answered in time; a reply still reaches me as a message.*"
_OVER_FOR_BOT = "*Nobody answered in time.*"


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


class Asking:
    """Asks where the caller says, else where its turn takes place, else in its own room."""

    def __init__(self, directory: AgentDirectory, questions: Questions, arrivals: Arrivals) -> None:
        self._directory = directory
        self._questions = questions
        self._arrivals = arrivals
        self._standing: dict[str, tuple[Caller, Question, AskHuman]] = {}
        self._background = Tasks()

    @tool("ask_human", "Ask a human", Scope.AGENTS, HumanAnswer, seconds=None)
    async def ask_human(self, caller: Caller, params: AskHuman) -> Result:
        """Ask people a question, with options to choose from, and wait for the answer."""
        deadline = time.time() + params.timeout_seconds
        place = self._place(caller, params)
        async with living_room(caller, place.room_id) as room_id:
            place = place._replace(room_id=room_id)
            if place.thread_id and place != caller.place:
                await existing(caller, room_id, place.thread_id)
            event_id, look = await self._ask(caller, place, params)
            asked_at = Event(await caller.intent.event(room_id, event_id)).sent_ms
        # Elsewhere nobody in particular is spoken with.
        speaker = caller.speaker if place == caller.place else ""
        question = Question(
            event_id, room_id, tuple(params.options), place.thread_id, speaker, asked_at
        )
        self._standing[event_id] = caller, question, params
        answer: Answer | None = None
        try:
            if look:
                since = caller.intent.homeserver.clock.now() - asked_at / 1000
                deadline = min(deadline, time.time() - since + params.timeout_seconds)
            async with telling(caller, params.timeout_seconds, "waiting for somebody's answer"):
                answer = await self._wait(caller, question, deadline, look=look)
        except BaseException as error:
            # What a turn has asked is closed when the turn is over, not with this process.
            if not (caller.turn_id and isinstance(error, asyncio.CancelledError)):
                self._give_up(event_id)
            raise
        if self._standing.pop(event_id, None) is not None:
            await self._close(caller, question, params, answer)
        return _result(caller, question, answer, params.timeout_seconds)

    async def _wait(
        self, caller: Caller, question: Question, deadline: float, *, look: bool
    ) -> Answer | None:
        with self._questions.open(question) as future, self._reminding(caller, question):
            if look and (answer := await self._answered_already(caller, question)) is not None:
                return answer
            await self._offer_options(caller, question)
            answer = await _within(future, deadline - time.time())
            if answer is None and self._questions.is_being_answered(question):
                answer = await _within(future, _STORING)
            return answer

    def _give_up(self, event_id: str) -> None:
        """Nobody waits for the answer any more."""
        if (standing := self._standing.pop(event_id, None)) is None:
            return
        self._begin(self._close(*standing, None))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._background.start(work)

    @contextmanager
    def _reminding(self, caller: Caller, question: Question) -> Generator[None]:
        """Meanwhile tell, once, whoever says something else that it waits for the answer."""
        reminded = False

        def see(event: Mapping[str, Any]) -> None:
            nonlocal reminded
            if not reminded and self._questions.is_passed_over(question, event):
                reminded = True
                self._begin(self._remind(caller, question))

        with self._arrivals.listen(see):
            yield

    async def _remind(self, caller: Caller, question: Question) -> None:
        thread, txn = question.thread_id, caller.txn("ask_human", "reminder")
        content = text_content(
            _WAITING_OPTIONS if question.options else _WAITING,
            marker={**marker_of(caller, "ask_human", txn), BESIDE: "notice"},
            msgtype="m.notice",
            relation=thread_relation(thread, question.event_id) if thread else None,
        )
        await self._say(question.room_id, caller, content, txn)

    async def close(self) -> None:
        """Wait a little until the questions are closed that nobody waits for."""
        if self._background:
            await asyncio.wait(self._background, timeout=_CLOSING)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def ended(self, turn_id: str) -> None:
        """A turn is over: nobody waits any more for what it has asked."""
        for event_id, (caller, question, params) in list(self._standing.items()):
            if turn_id and caller.turn_id == turn_id:
                del self._standing[event_id]
                self._questions.withdraw(event_id)
                await self._close(caller, question, params, None)

    def _place(self, caller: Caller, params: AskHuman) -> Place:
        """Where to ask; its room as the caller names it."""
        here, agent = caller.place, self._directory.get(caller.agent_id)
        if here is not None and params.room_id in ("", here.room_id):
            return here._replace(thread_id=params.thread or here.thread_id)
        room = params.room_id or (agent.room_id if agent is not None else None)
        if room is None:
            raise ToolError("Give a `room_id`: you are not talking in a room, nor have your own.")
        return Place(caller.agent_id, room, params.thread)

    async def _ask(self, caller: Caller, place: Place, params: AskHuman) -> tuple[str, bool]:
        """Post the question; its event id, and whether it may have been answered meanwhile."""
        started = time.time()
        txn, room_id, thread = caller.txn("ask_human"), place.room_id, place.thread_id
        if (known := await caller.intent.find_sent(room_id, txn)) is not None:
            return known, True
        content = text_content(
            _text(params, _how(params)),
            marker=marker_of(caller, "ask_human", txn),
            relation=thread_relation(thread, thread) if thread else None,
        )
        event_id = await caller.intent.send(
            room_id, "m.room.message", content, txn, give_up_after=GIVE_UP_AFTER
        )
        return event_id, time.time() - started > _LATE

    async def _offer_options(self, caller: Caller, question: Question) -> None:
        """React with the numbers, so that a tap answers; the question stands without them too."""
        for key in KEYS[: len(question.options)]:
            try:
                txn = caller.txn("ask_human", key)
                await caller.intent.react(question.room_id, question.event_id, key, txn)
            except (MatrixRequestError, HomeserverUnavailable) as error:
                log.info("an option is not shown as a reaction", reason=str(error))
                return

    async def _answered_already(self, caller: Caller, question: Question) -> Answer | None:
        """The first answer among the question's reactions and what was said since."""
        reactions = await caller.intent.relations(
            question.room_id, question.event_id, "m.annotation"
        )
        recent = await caller.intent.recent_events(question.room_id)
        ids = [event.get("event_id") for event in recent]
        since = ids.index(question.event_id) + 1 if question.event_id in ids else 0
        events = [*reversed(reactions), *recent[since:]]
        in_room = ({**event, "room_id": question.room_id} for event in events)
        answers = (self._questions.answer(question, event) for event in in_room)
        return next((answer for answer in answers if answer is not None), None)

    async def _close(
        self, caller: Caller, question: Question, params: AskHuman, answer: Answer | None
    ) -> None:
        """Say in the question that it is over; nothing depends on that."""
        nobody = _OVER if caller.agent_id else _OVER_FOR_BOT
        over = _answered(answer) if answer else nobody
        txn = caller.txn("ask_human", "over", "answered" if answer else "not answered")
        content = edit_content(
            _text(params, over),
            target_event_id=question.event_id,
            marker=marker_of(caller, "ask_human", txn),
        )
        await self._say(question.room_id, caller, content, txn)

    async def _say(
        self, room_id: str, caller: Caller, content: Mapping[str, object], txn: str
    ) -> None:
        try:
            await caller.intent.send(room_id, "m.room.message", content, txn, give_up_after=1.0)
        except (MatrixRequestError, HomeserverUnavailable) as error:
            log.info("not said of a question how it stands", reason=str(error))


async def _within(future: asyncio.Future[Answer], seconds: float) -> Answer | None:
    done, _ = await asyncio.wait([future], timeout=max(seconds, 0.0))
    return future.result() if done and not future.cancelled() else None


def _text(params: AskHuman, closing: str) -> str:
    lines = [f"{key} {option}" for key, option in zip(KEYS, params.options, strict=False)]
    return "\n\n".join(
        filter(None, [spoken(params.question, "question"), "\n".join(lines), closing])
    )


def _answered(answer: Answer) -> str:
    """What was chosen, or said, and by whom."""
    words = " ".join(cut(answer.text, _LONGEST_SHOWN).split())
    said = f"**{KEYS[answer.option - 1]} {words}**" if answer.option else f"> {words}"
    return f"{said}\n\n*Answered by {answer.sender}.*"


def _how(params: AskHuman) -> str:
    if not params.options:
        return "*Reply to this message to answer.*"
    return "*React with a number, or reply to this message, to answer.*"


def _result(caller: Caller, question: Question, answer: Answer | None, seconds: float) -> Result:
    where: dict[str, object] = {"room_id": question.room_id, "event_id": question.event_id}
    if answer is None:
        note = (_NOT_YET if caller.turn_id else _NOT_IN_TIME).format(seconds=seconds)
        return {**where, "answer": None, "note": note}
    if answer.option:
        return {**where, "answer": answer.text, "option": answer.option, "by": answer.sender}
    told = cut(answer.text, _LONGEST_ANSWER)
    return {**where, **UNTRUSTED, "answer": told, "by": answer.sender}
