"""Something said to an agent, until its answer is whole; meanwhile the person is asked what only
a person can answer."""

import asyncio
import sys
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from letta_matrix.cli.decisions import Decision, asking, decided, said_plainly
from letta_matrix.cli.faults import Failure, Unreachable
from letta_matrix.cli.keyboard import Keyboard
from letta_matrix.cli.transcript import Question, Transcript, Update
from letta_matrix.cli.views import View
from letta_matrix.common import clock
from letta_matrix.common.identifiers import persons
from letta_matrix.common.program import typed
from letta_matrix.common.waiting import ended
from letta_matrix.matrix.content import reply_relation

if TYPE_CHECKING:
    from letta_matrix.cli.matrix_client import MatrixClient

T = TypeVar("T")

_POLL = 10.0
_HOMESERVER_AWAY = 60.0
_OFFER = "the offer to stop"
_ANSWERS = ("!approve", "!deny", "!cancel")
"""Commands after which a question waits no more."""


class Left(Exception):
    """The person has left; what the agent does goes on."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who talks with an agent in a room. `keyboard` is None where nothing is typed,
    `timeout` is in seconds of silence, `options` are what the command was given, `bot` is the
    bridge's own user."""

    client: "MatrixClient"
    room_id: str
    agent: str
    view: View
    keyboard: Keyboard | None
    timeout: float
    options: Sequence[str] = ()
    bot: str = ""

    def typed(self, *message: str) -> str:
        """The command that says something to the same agent."""
        return typed(["chat", self.agent, *message, *self.options])

    @property
    def is_with_person(self) -> bool:
        """Whether somebody is there to be asked."""
        return self.keyboard is not None and self.keyboard.is_terminal


class Exchange:
    """Shows the answers that a transcript follows as they grow, and takes what is typed meanwhile.

    What is typed counts while a tool asks to be run; anything else waits until the answer is
    whole. `interrupt` is Ctrl-C: the first offers to stop the agent, the second leaves.
    """

    def __init__(self, session: Session, transcript: Transcript, unsaid: str = "") -> None:
        """`unsaid` is what is to be said once this is over."""
        self._session = session
        self._transcript = transcript
        self._unsaid = unsaid
        self._happened: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
        self._news: asyncio.Task[list[Mapping[str, Any]]] | None = None
        self._reading: asyncio.Task[str | None] | None = None
        self._heard = clock.now()
        self._asked = ""
        self._settled: set[str] = set()
        self._unshown: list[Update] = []
        self._offers_stop = False
        self._is_away = False
        self._read_up_to = ""

    def interrupt(self) -> None:
        self._happened.put_nowait(None)

    async def run(self) -> None:
        """See it through.

        Raises:
            Failure: nothing came for too long, the homeserver refuses, or a question is left to
                others.
            Left: the person wants no more of it.
        """
        self._session.view.heard()
        self._listen()
        try:
            await self._turn_to_person()
            while (left := self._left()) is None or left > 0:
                await self._next(left)
            await self._show_as_read()
        finally:
            self._session.view.withdraw()
            self._session.view.settle()
            await self._read_no_more()
            if self._news is not None:
                await ended(self._news)
        if self._transcript.patience is None:
            raise Failure(f"no answer for {self._session.timeout:g} s")

    def _left(self) -> float | None:
        """Seconds of silence still to be waited; None as long as a person has to think, or the
        homeserver is away, which has a limit of its own."""
        if self._session.view.prompting or self._is_away:
            return None
        patience = self._transcript.patience
        silence = self._session.timeout if patience is None else patience
        return silence - (clock.now() - self._heard)

    async def _next(self, left: float | None) -> None:
        """Wait for something to happen, and deal with it."""
        try:
            async with asyncio.timeout(left):
                happened = await self._happened.get()
        except TimeoutError:
            return
        if happened is None:
            await self._interrupted()
        elif happened is self._news:
            self._take(happened.result())
            self._listen()
        elif happened is self._reading:
            self._reading, self._heard = None, clock.now()
            await self._typed(happened.result())
        await self._turn_to_person()

    def _listen(self) -> None:
        self._news = self._started(self._new_events())

    async def _new_events(self) -> list[Mapping[str, Any]]:
        """The room's new events, also across a restart of the homeserver."""
        gone_at = clock.now()
        while True:
            try:
                news = await self._session.client.news(self._session.room_id, _POLL)
            except Unreachable:
                if clock.now() - gone_at > _HOMESERVER_AWAY + _POLL:
                    raise
                if not self._is_away:
                    _remark("\n(the homeserver is away; trying again for a minute)")
                    self._is_away = True
                await asyncio.sleep(0.5)
            else:
                if self._is_away:
                    _remark("(the homeserver is back)")
                    self._is_away, self._heard = False, clock.now()
                return news

    def _started(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._happened.put_nowait)
        return task

    def _take(self, events: list[Mapping[str, Any]]) -> None:
        before = self._transcript.patience
        updates = [one for event in events for one in self._transcript.take(event)]
        self._unshown += updates
        if updates or self._transcript.patience != before:
            self._heard = clock.now()

    async def _turn_to_person(self) -> None:
        """Show what is new, and have the person asked what is open, nothing else."""
        view, keyboard = self._session.view, self._session.keyboard
        asked, text = self._open()
        # What goes on growing would tear the offer to stop it apart.
        while self._unshown and not self._offers_stop:
            view.show(self._unshown.pop(0))
        if keyboard is None or keyboard.ended:
            self._leave_to_others()
            return
        if asked != self._asked:
            await self._read_no_more()
            self._asked = asked
            view.withdraw()
        if not asked:
            return
        if self._reading is None:
            keyboard.set_aside()
            keyboard.listen()
        if keyboard.is_terminal and not view.prompting:
            view.prompt(text)
        if self._reading is None:
            line = keyboard.new_line() if keyboard.is_terminal else keyboard.line()
            self._reading = self._started(line)
            await self._show_as_read()

    async def _show_as_read(self) -> None:
        """Let other clients know what the person has seen here; not where others talk too: what
        they said before it is not shown here, and would count as read with it."""
        session, newest = self._session, self._transcript.newest
        if newest == self._read_up_to or not session.is_with_person:
            return
        self._read_up_to = newest
        with suppress(Failure):  # it is unread there, and nothing else
            members = await session.client.members(session.room_id)
            if len(persons(members, session.bot)) <= 1:
                await session.client.read(session.room_id, newest)

    async def _read_no_more(self) -> None:
        task, keyboard = self._reading, self._session.keyboard
        self._reading = None
        if task is None:
            return
        await ended(task)
        if keyboard is not None and task.cancelled():
            keyboard.set_aside()
        if keyboard is None or task.cancelled():
            return
        # A person's line was an answer to what is not asked any more; a script's has its turn yet.
        if not keyboard.is_terminal and (line := task.result()) is not None:
            keyboard.put_back(line)

    def _open(self) -> tuple[str, str]:
        """What the person is to be asked now, by which id and in which words; "" for nothing."""
        if self._offers_stop and self._transcript.patience is None:
            return _OFFER, f"Stop {self._session.agent}? [Y/n] (Ctrl-C again leaves) "
        self._offers_stop = False
        question = self._question()
        if question is None:
            return "", ""
        return question.event_id, asking(always=question.offers_always)

    def _question(self) -> Question | None:
        questions = self._transcript.questions.values()
        return next((one for one in questions if one.event_id not in self._settled), None)

    async def _interrupted(self) -> None:
        self._session.view.withdraw()
        if self._offers_stop:
            raise Left
        self._offers_stop = True

    async def _typed(self, line: str | None) -> None:
        with_person, question = self._session.is_with_person, self._question()
        if line is None:
            if with_person:
                raise Left
            return
        self._session.view.answered()
        if self._offers_stop:
            self._offers_stop = False
            if line.lower() in ("", "y", "yes"):
                await self._stop()
        elif line.startswith("!"):
            if question is not None and line.split()[0] in _ANSWERS:
                self._settled.add(question.event_id)
            self._transcript.follow(await self._session.client.send(self._session.room_id, line))
        elif question is not None and with_person:
            await self._answer(question, line)
        elif question is not None:
            await self._answer_of_script(question, line)

    async def _answer(self, question: Question, line: str) -> None:
        decision = decided(line, always=question.offers_always)
        if decision is None:
            self._session.view.remark("it cannot be allowed for good, only this once")
        else:
            await self._settle(question, decision)

    async def _answer_of_script(self, question: Question, line: str) -> None:
        """Whoever writes into a pipe may have written before there was a question: what is no
        answer to it would wait behind it."""
        if (decision := said_plainly(line, always=question.offers_always)) is not None:
            await self._settle(question, decision)
        elif line:
            self._leave_to_others(line)

    def _leave_to_others(self, line: str = "") -> None:
        """Raise Failure where a question is open and nobody here answers it: `line` does not."""
        question, agent, line = self._question(), self._session.agent, line or self._unsaid
        if question is None or self._session.is_with_person:
            return
        say = self._session.typed
        yes, no = say(f"!approve {question.key}"), say(f"!deny {question.key}")
        raise Failure(
            f"{agent} waits for an answer to its question"
            + (f", and was not told {line!r}" if line else "")
            + f": `{yes}` and `{no}` give one, `{say()}` asks for it in a terminal"
        )

    async def _settle(self, question: Question, decision: Decision) -> None:
        client, room_id = self._session.client, self._session.room_id
        self._settled.add(question.event_id)
        self._transcript.answered(question.event_id, decision.reaction)
        if decision.reason:
            relation = reply_relation(question.event_id, question.thread)
            await client.send(room_id, f"no: {decision.reason}", relation)
        else:
            await client.react(room_id, question.event_id, decision.reaction)

    async def _stop(self) -> None:
        # Loads much of the bridge: not at the start of every chat.
        from letta_matrix.matrix.reactions import STOP

        for prompt in self._transcript.prompts:
            await self._session.client.react(self._session.room_id, prompt, STOP)


def _remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
