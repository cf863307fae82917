"""Contacts write, stop and start again, admins allow, block and hold, people take over by hand,
rooms are made anew, ghosts claim others' numbers, nights and budgets pass, in any order and with
restarts in between: who is not to be answered never is, and everybody else just once.
"""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.portal_model import ANN, BEN, EVE, GROUP, NUMBERS
from tests.portal_world import PERSON, PHONE, WORDS, PortalWorld

from letta_matrix.matrix.server_clock import ServerClock

WHO = st.sampled_from([ANN, ANN, BEN, EVE])
AGENTS = st.sampled_from(["agent-1", "agent-2"])
WRITTEN = st.sampled_from(["{}", "tel:{}", "00{1}", "({2}) {3}-{4}", "+1 {2}.{3}.{4}"])


def written(number: str, form: str) -> str:
    """A number in another notation."""
    return form.format(number, number[1:], number[2:5], number[5:8], number[8:])


class Texts(RuleBasedStateMachine):
    """What happens around a phone line, in a `PortalWorld`."""

    empty: Path
    patch: pytest.MonkeyPatch

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = TemporaryDirectory()
        self.world = PortalWorld(Path(self.directory.name) / "test.db", self.empty)
        self.patch.setattr(ServerClock, "now", self.now)

    def now(self, *_: object) -> float:
        return self.world.talks.now

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.do(self.world.begin())

    @rule(number=WHO)
    def write(self, number: str) -> None:
        self.do(self.world.write(number, number, self.world.text()))

    @rule(number=WHO, addressed=st.booleans())
    def write_to_all(self, number: str, addressed: bool) -> None:
        """In the group; both agents hear it if they are called."""
        agent_id = self.world.talks.agent_of(number)
        self.world.said += 1
        called = f"Agent {agent_id[-1:] or 1}: " if addressed else ""
        text = f"{called}w{self.world.said}"
        self.do(self.world.write(number, GROUP, text, addressed=addressed))

    @rule(number=WHO, word=st.sampled_from(sorted(WORDS)))
    def say_a_word(self, number: str, word: str) -> None:
        if word == "Start." and not self.world.talks.is_stopped(number):
            # It is a word like any other then.
            return
        self.do(self.world.write(number, number, word))

    @rule(number=WHO, what=st.sampled_from(["", "stop", "block", "hold", "typed", "again"]))
    def write_meanwhile(self, number: str, what: str) -> None:
        talks = self.world.talks
        is_asked = talks.hears(number, number, addressed=True) and not talks.is_quiet
        if is_asked and not talks.is_spent(number) and not talks.waiting:
            self.do(self.world.answer_meanwhile(number, what))

    @rule(number=WHO, form=WRITTEN, agent_id=AGENTS)
    def allow(self, number: str, form: str, agent_id: str) -> None:
        self.do(self.world.allow(number, written(number, form), agent_id))

    @rule(number=WHO, form=WRITTEN)
    def block(self, number: str, form: str) -> None:
        self.do(self.world.block(number, written(number, form)))

    @rule(number=WHO, form=WRITTEN, held=st.booleans())
    def hold(self, number: str, form: str, held: bool) -> None:
        self.do(self.world.hold(number, written(number, form), held=held))

    @rule(talk=st.sampled_from([*NUMBERS, GROUP]), sender=st.sampled_from([PHONE, PERSON]))
    def write_by_hand(self, talk: str, sender: str) -> None:
        self.do(self.world.by_hand(talk, sender))

    @rule(agent_id=AGENTS, number=WHO, form=WRITTEN)
    def text(self, agent_id: str, number: str, form: str) -> None:
        self.do(self.world.send(agent_id, number, written(number, form)))

    @rule(talk=st.sampled_from([*NUMBERS, GROUP]), again=st.booleans())
    def change_a_talk(self, talk: str, again: bool) -> None:
        """Its room is made anew, or its phones agree on other means."""
        self.do(self.world.make(talk) if again else self.world.switch(talk))

    @rule(number=WHO, kind=st.sampled_from(["old room", "notice", "bot"]))
    def say_what_is_for_nobody(self, number: str, kind: str) -> None:
        self.do(self.world.say_for_nobody(number, kind))

    @rule(shared=st.booleans())
    def share_a_number(self, shared: bool) -> None:
        self.do(self.world.share(shared=shared))

    @rule(minutes=st.sampled_from([5, 11, 8 * 60, 14 * 60]))
    def pass_time(self, minutes: int) -> None:
        self.do(self.world.pass_time(minutes * 60.0))

    @precondition(lambda self: self.world.said % 3 == 2)
    @rule()
    def restart(self) -> None:
        self.do(self.world.restart())

    def teardown(self) -> None:
        try:
            if hasattr(self.world, "stage"):
                self.do(self.world.end())
        finally:
            self.runner.close()
            self.directory.cleanup()


@pytest.mark.usefixtures("migrated")
def test_whatever_comes_by_phone(migrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Machine(Texts):
        empty = migrated
        patch = monkeypatch

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=5,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
