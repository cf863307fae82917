"""The tool by which an agent asks the people of a room, and waits."""

import asyncio
import time
from typing import Annotated, Any

import structlog
from mautrix.errors import MatrixRequestError
from pydantic import Field

from letta_matrix.matrix.content import edit_content, text_content, thread_relation
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.toolbox.faults import ToolError
from letta_matrix.toolbox.naming import room_of
from letta_matrix.toolbox.principal import Scope
from letta_matrix.toolbox.questions import KEYS, Answer, Question, Questions
from letta_matrix.toolbox.results import cut
from letta_matrix.toolbox.tool import LONGEST_WAIT, Caller, Line, Result, Tool, WriteParams
from letta_matrix.toolbox.writing import GIVE_UP_AFTER, spoken

log = structlog.get_logger()

_LATE = 1.0
"""Seconds after which a question may have been answered before its sending was confirmed."""

_STORING = 5.0
"""Seconds that an answer which came in time has to get into the database."""

_LONGEST_ANSWER = 3_000
_NOT_YET = (
    "Nobody answered within {seconds:g} seconds. Go on without, or end your turn: a later answer "
    "comes as a message."
)
_OVER = "*Nobody answered in time; a reply still reaches me as a message.*"


class AskHuman(WriteParams):
    question: Annotated[str, Field(min_length=1, max_length=4_000, description="as Markdown")]
    options: list[Annotated[Line, Field(max_length=200)]] = Field(
        default_factory=list[str], max_length=len(KEYS), description="answers to choose from"
    )
    timeout_seconds: float = Field(240.0, ge=1, le=LONGEST_WAIT, description="how long to wait")


class Asking:
    """Asks where the caller's turn takes place, outside of turns in the caller's own room."""

    def __init__(self, directory: AgentDirectory, questions: Questions) -> None:
        self._directory = directory
        self._questions = questions
        self._standing: dict[str, tuple[Caller, Question, AskHuman]] = {}

    def tools(self) -> list[Tool[Any]]:
        return [
            Tool(
                "ask_human",
                "Ask a human",
                "Ask the people you are talking to a question and wait for the answer.",
                Scope.AGENTS,
                AskHuman,
                dict,
                self.ask_human,
                seconds=None,
            )
        ]

    async def ask_human(self, caller: Caller, params: AskHuman) -> Result:
        deadline = time.time() + params.timeout_seconds
        async with room_of(caller, self._room(caller)) as room_id:
            event_id, look = await self._ask(caller, room_id, params)
            asked = (await caller.intent.event(room_id, event_id)).get("origin_server_ts")
        asked_at = asked if isinstance(asked, int) else 0
        question = Question(
            event_id, room_id, tuple(params.options), _thread(caller), caller.speaker, asked_at
        )
        self._standing[event_id] = caller, question, params
        with self._questions.open(question) as future:
            answer = await self._answered_already(caller, question) if look else None
            if answer is None:
                await self._offer_options(caller, question)
                again = asked_at / 1000 + params.timeout_seconds if look else deadline
                left = min(deadline, again) - time.time()
                answer = await _within(future, left)
                if answer is None and self._questions.is_being_answered(question):
                    answer = await _within(future, _STORING)
        if self._standing.pop(event_id, None) is not None:
            await self._close(caller, question, params, answer)
        return _result(question, answer, params.timeout_seconds)

    async def ended(self, turn_id: str) -> None:
        """A turn is over: nobody waits any more for what it has asked."""
        for event_id, (caller, question, params) in list(self._standing.items()):
            if caller.turn_id == turn_id:
                del self._standing[event_id]
                self._questions.withdraw(event_id)
                await self._close(caller, question, params, None)

    def _room(self, caller: Caller) -> str:
        if caller.place is not None:
            return caller.place.room_id
        agent = self._directory.get(caller.agent_id)
        if agent is None or agent.room_id is None:
            raise ToolError("You are not talking in a room now, and have none of your own yet.")
        return agent.room_id

    async def _ask(self, caller: Caller, room_id: str, params: AskHuman) -> tuple[str, bool]:
        """Post the question; its event id, and whether it may have been answered meanwhile."""
        started = time.time()
        txn = caller.txn("ask_human")
        if (known := await caller.intent.find_sent(room_id, txn)) is not None:
            return known, True
        thread = _thread(caller)
        content = text_content(
            _text(params, _how(params)),
            marker=_marker(caller, txn),
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
        over = f"*Answered by {answer.sender}.*" if answer else _OVER
        txn = caller.txn("ask_human", "over")
        content = edit_content(
            _text(params, over), target_event_id=question.event_id, marker=_marker(caller, txn)
        )
        try:
            await caller.intent.send(
                question.room_id, "m.room.message", content, txn, give_up_after=1.0
            )
        except (MatrixRequestError, HomeserverUnavailable) as error:
            log.info("a question is not shown as over", reason=str(error))


async def _within(future: asyncio.Future[Answer], seconds: float) -> Answer | None:
    done, _ = await asyncio.wait([future], timeout=max(seconds, 0.0))
    return future.result() if done and not future.cancelled() else None


def _text(params: AskHuman, closing: str) -> str:
    lines = [f"{key} {option}" for key, option in zip(KEYS, params.options, strict=False)]
    return "\n\n".join(filter(None, [spoken(params.question), "\n".join(lines), closing]))


def _how(params: AskHuman) -> str:
    if not params.options:
        return "*Reply to this message to answer.*"
    return "*React with a number, or reply to this message, to answer.*"


def _thread(caller: Caller) -> str:
    return caller.place.thread_id if caller.place is not None else ""


def _marker(caller: Caller, txn: str) -> dict[str, object]:
    return {"agent_id": caller.agent_id, "tool": "ask_human", "txn": txn}


def _result(question: Question, answer: Answer | None, seconds: float) -> Result:
    where: dict[str, object] = {"room_id": question.room_id, "event_id": question.event_id}
    if answer is None:
        return {**where, "answer": None, "note": _NOT_YET.format(seconds=seconds)}
    told = {"answer": cut(answer.text, _LONGEST_ANSWER), "by": answer.sender}
    return {**where, **told} | ({"option": answer.option} if answer.option else {})
