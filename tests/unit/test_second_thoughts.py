"""People write, edit, remove and stop in any order, with restarts in between: whatever happens, no
message is lost, none is asked twice, none after it was removed, and each as it was last corrected.
"""

import asyncio
import shutil
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    rule,
    run_state_machine_as_test,
)
from tests.builders import edit, message, reaction, redaction
from tests.fake_homeserver import FakeHomeserver
from tests.scripts import DONE, until
from tests.stage import Stage
from tests.waiting import eventually, settled

from letta_matrix.runtimes.protocol import TextDelta, TurnEvent, TurnRequest
from letta_matrix.store.turns import Turn, TurnKind

ROOM = "!1:test"
PEOPLE = st.sampled_from(["@ann:test", "@bob:test"])


@dataclass(eq=False)
class Said:
    """A message as it should be asked: its texts so far, and whether it was removed in time."""

    event: dict[str, Any]
    texts: list[str]
    removed: bool = False
    fixed: bool = field(default=False)
    """It is asked already, or may be: what is said of it now comes too late."""

    @property
    def event_id(self) -> str:
        return str(self.event["event_id"])

    @property
    def sender(self) -> str:
        return str(self.event["sender"])


class RoomMachine(RuleBasedStateMachine):
    """An agent's room; the agent works on its first message until it is let go."""

    messages = Bundle("messages")
    empty: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = TemporaryDirectory()
        self.said: list[Said] = []
        self.counts = 0

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        self.do(self._open())

    async def _open(self) -> None:
        self.fake = FakeHomeserver()
        await self.fake.start()
        database = Path(self.directory.name) / "test.db"
        shutil.copy(self.empty, database)
        self.stage = Stage(self.fake, database)
        await self.stage.open()
        await self.stage.add(1)
        self.free = asyncio.Event()
        self.stage.runtime.script = self._work
        await self._admit(message("work"))
        self.said[0].fixed = True
        await eventually(lambda: self.stage.runtime.asked)

    def _work(self, request: TurnRequest) -> Iterator[TurnEvent | float]:
        yield from until(self.free)
        yield TextDelta("0", f"Done: {request.text}.")
        yield DONE

    async def _admit(self, event: dict[str, Any]) -> Said:
        said = Said(event, [event["content"]["body"]])
        self.said.append(said)
        await self.stage.admit(event)
        return said

    @rule(target=messages, sender=PEOPLE)
    def write(self, sender: str) -> Said:
        self.counts += 1
        return self.do(self._admit(message(f"text {self.counts}", sender=sender)))

    @rule(said=messages, sender=PEOPLE)
    def edit(self, said: Said, sender: str) -> None:
        self.counts += 1
        text = f"text {self.counts}"
        self.do(self.stage.admit(edit(said.event_id, text, sender=sender)))
        if sender == said.sender and not said.fixed and not said.removed:
            said.texts.append(text)

    @rule(said=messages, sender=PEOPLE)
    def redact(self, said: Said, sender: str) -> None:
        self.do(self.stage.admit(redaction(said.event_id, sender=sender)))
        if sender == said.sender and not said.fixed:
            said.removed = True

    @rule(said=messages)
    def again(self, said: Said) -> None:
        """The homeserver sends it once more."""
        self.do(self.stage.admit(said.event))

    @rule(said=messages, sender=PEOPLE)
    def ask_again(self, said: Said, sender: str) -> None:
        """Nothing, as nothing of it was answered."""
        self.do(self.stage.admit(reaction(said.event_id, "🔁", sender=sender)))

    @rule(said=consumes(messages))
    def stop(self, said: Said) -> None:
        self.do(self.stage.admit(reaction(said.event_id, "🛑", sender=said.sender)))
        if not said.fixed:
            said.removed = True

    @rule()
    def restart(self) -> None:
        self.do(self.stage.recover())
        self.do(settled())

    def teardown(self) -> None:
        try:
            if hasattr(self, "stage"):
                self.do(self._end())
        finally:
            self.runner.close()
            self.directory.cleanup()

    def _left(self) -> list[Turn]:
        return self.stage.dispatcher.queues.unfinished()

    async def _end(self) -> None:
        try:
            # A stop sign is seen to beside the queue: what it stops must not be its turn by then.
            await eventually(lambda: all(one.kind != TurnKind.COMMAND for one in self._left()))
            self.free.set()
            await self.stage.idle()
            asked = {one.message_id: one.text for one in self.stage.runtime.asked}
            assert len(asked) == len(self.stage.runtime.asked), "asked twice"
            wanted = {one.event_id: one.texts[-1] for one in self.said if not one.removed}
            assert {key: self._words(text) for key, text in asked.items()} == wanted
            for text in wanted.values():
                told = [body for body in self.fake.bodies(ROOM) if f"{text}." in body]
                assert len(told) == 1, "one answer to each"
        finally:
            await self.stage.close()
            await self.fake.stop()

    def _words(self, text: str) -> str:
        return text.rpartition("\n")[2]


@pytest.mark.usefixtures("migrated")
def test_whatever_people_do(migrated: Path) -> None:
    class Machine(RoomMachine):
        empty = migrated

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=8,
            stateful_step_count=14,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
