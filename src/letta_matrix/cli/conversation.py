"""A person, or a script, in conversation with an agent: one message after the other."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, contextmanager, nullcontext
from typing import Any

from letta_matrix.cli.exchange import Exchange, Left, Session
from letta_matrix.cli.transcript import Transcript, Update, open_questions

_PROMPT = "you> "


class Conversation:
    """Says what is typed, and shows what is answered."""

    def __init__(self, session: Session, agent: str) -> None:
        """`agent` is the agent's Matrix user."""
        self._session = session
        self._agent = agent
        self._exchange: Exchange | None = None

    async def run(self, message: str | None) -> None:
        """Say `message`, or else all that is typed. Raises Failure, Left."""
        client, room_id = self._session.client, self._session.room_id
        keyboard = self._session.keyboard
        with self._interruptible(), keyboard.held() if keyboard is not None else nullcontext():
            await self._take_up(await client.catch_up(room_id), message or "")
            async with aclosing(self._texts(message)) as texts:
                async for text in texts:
                    await client.catch_up(room_id)
                    prompt = await client.send(room_id, text)
                    await self._follow(Transcript(self._agent, prompt))

    async def _take_up(self, past: list[Mapping[str, Any]], message: str) -> None:
        """What the agent waits for already is told first: what is said now would wait behind it."""
        view, transcript = self._session.view, Transcript(self._agent)
        with_person = self._session.is_with_person
        for question in open_questions(past, self._agent):
            if with_person and not message.startswith("!"):
                view.show(Update(question.event_id, question.text))
            else:
                view.remark(f"{self._session.agent} waits for an answer to this:\n{question.text}")
            # A script speaks outside of threads, and does not wait for what happens in them.
            if not message.startswith("!") and (with_person or not question.thread):
                transcript.resume(question)
        if transcript.questions:
            await self._follow(transcript, message)

    async def _follow(self, transcript: Transcript, unsaid: str = "") -> None:
        self._exchange = Exchange(self._session, transcript, unsaid)
        try:
            await self._exchange.run()
        except Left:
            self._session.view.remark(f"{self._session.agent} goes on, and answers in its room")
            raise
        finally:
            self._exchange = None

    async def _texts(self, message: str | None) -> AsyncGenerator[str]:
        """What to say: the one message, else the lines of the terminal or of stdin."""
        view, keyboard = self._session.view, self._session.keyboard
        if message is not None:
            yield message
            return
        while keyboard is not None:
            keyboard.listen()
            typed_before = keyboard.has_line
            if keyboard.is_terminal:
                view.prompt(_PROMPT)
                view.echo(keyboard.begun, end="")
            line = await keyboard.line()
            if line is None:
                view.withdraw()
                return
            if keyboard.is_terminal and typed_before:
                view.echo(line)
            view.answered()
            if line:
                yield line

    @contextmanager
    def _interruptible(self) -> Generator[None]:
        """Ctrl-C of a person is for the exchange that is going on; elsewhere it leaves, as other
        signals to end do everywhere: the terminal is left as it was."""
        keyboard = self._session.keyboard
        if keyboard is None or not keyboard.is_terminal:
            yield
            return
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def interrupted() -> None:
            if self._exchange is not None:
                self._exchange.interrupt()
            elif task is not None:
                self._session.view.withdraw()
                task.cancel()

        def ended() -> None:
            if task is not None:
                task.cancel()

        handlers = {signal.SIGINT: interrupted, signal.SIGCONT: keyboard.resumed}
        handlers |= dict.fromkeys((signal.SIGTERM, signal.SIGHUP), ended)
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)
