"""A homeserver and a runtime that answer anything at any moment: when they behave again, everything
owed is delivered, once, and nobody has to restart the bridge.
"""

import asyncio
import shutil
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from structlog.testing import capture_logs
from tests.builders import message
from tests.fake_foreign import FOREIGN
from tests.fake_homeserver import LOST_REQUEST, FakeHomeserver, Fault, failing, rate_limited
from tests.stage import Stage
from tests.waiting import Clock, moment, settled

T = TypeVar("T")

ROOMS = st.sampled_from(["!1:test", "!2:test"])
WORDS = st.sampled_from(["", "stream 4 0.01", "tools", "slow 1"])

# These may be about one message, which is then given up.
_AMBIGUOUS = {"bad request", "odd errcode"}
OUTAGES = {name: fault for name, fault in FOREIGN.items() if name not in _AMBIGUOUS} | {
    "lost": LOST_REQUEST,
    "502": failing(502),
    "503": failing(503),
    "429": rate_limited(700),
    "token": Fault(401, {"errcode": "M_UNKNOWN_TOKEN", "error": "x"}),
    "no token": Fault(401, {"errcode": "M_MISSING_TOKEN", "error": "x"}),
    "closed": Fault(403, {"errcode": "M_RESOURCE_LIMIT_EXCEEDED", "error": "x"}),
}
"""What says nothing about the request that it answers."""
REFUSALS = [
    (400, "M_BAD_JSON"),
    (400, "M_INVALID_PARAM"),
    (400, "M_NOT_JSON"),
    (400, "M_UNKNOWN"),
    (401, "M_UNAUTHORIZED"),
    (403, "M_FORBIDDEN"),
    (403, "M_USER_SUSPENDED"),
    (404, "M_NOT_FOUND"),
    (404, "M_UNRECOGNIZED"),
    (405, "M_UNRECOGNIZED"),
    (413, "M_TOO_LARGE"),
    (500, "M_UNKNOWN"),
]
"""No to a question or a hint of ours."""
ANYTHING = "."
ASIDE = "GET|typing|receipt"


def _several(choice: Sequence[T]) -> st.SearchStrategy[list[T]]:
    return st.lists(st.sampled_from(choice), min_size=1, max_size=4)


class Machine(RuleBasedStateMachine):
    """Two agents' rooms."""

    empty: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = TemporaryDirectory()
        self.said: dict[str, str] = {}

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        with capture_logs():
            return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        self.do(self._open())

    async def _open(self) -> None:
        self.clock = Clock.of(asyncio.get_running_loop())
        self.fake = FakeHomeserver()
        await self.fake.start()
        database = Path(self.directory.name) / "test.db"
        shutil.copy(self.empty, database)
        self.stage = Stage(self.fake, database)
        await self.stage.open(join_messages=0)
        await self.stage.add(1)
        await self.stage.add(2)

    @rule(room=ROOMS, words=WORDS)
    def write(self, room: str, words: str) -> None:
        event = message(words or f"text {len(self.said)}", room)
        self.said[str(event["event_id"])] = room
        self.do(self.stage.admit(event))

    @rule(names=_several(sorted(OUTAGES)), effect=st.booleans())
    def answer_anything(self, names: list[str], effect: bool) -> None:
        """The homeserver, or what stands in its place; it may have done what it was asked."""
        self.fake.fail(ANYTHING, *(replace(OUTAGES[name], takes_effect=effect) for name in names))

    @rule(name=st.sampled_from(sorted(OUTAGES)))
    def be_away(self, name: str) -> None:
        """Somebody is asked, and for a minute or more nothing else is said."""
        self.write("!1:test", "slow 1")
        self.fake.fail(ANYTHING, *[OUTAGES[name]] * 1000)
        self.do(self._wait(15, 4.0))

    @rule()
    def behave(self) -> None:
        self.fake.heal()

    @rule(errors=_several(REFUSALS))
    def refuse(self, errors: list[tuple[int, str]]) -> None:
        self.fake.fail(ASIDE, *(Fault(status, {"errcode": code}) for status, code in errors))

    @rule()
    def forget(self) -> None:
        """The homeserver restarts."""
        self.fake.forgetful = True

    @rule(there=st.booleans())
    def come_and_go(self, there: bool) -> None:
        """The runtime."""
        self.stage.runtime.available = there

    @rule(looks=st.integers(0, 3), step=st.sampled_from([0.3, 5.0]))
    def wait(self, looks: int, step: float) -> None:
        self.do(self._wait(looks, step))

    async def _wait(self, looks: int, step: float) -> None:
        """Let so many things be tried again."""
        for _ in range(looks):
            await moment()
            self.clock.advance(step)
        await settled()

    @rule()
    def restart(self) -> None:
        self.do(self.stage.recover())

    def teardown(self) -> None:
        try:
            if hasattr(self, "stage"):
                self.do(self._end())
        finally:
            self.runner.close()
            self.directory.cleanup()

    async def _end(self) -> None:
        try:
            self.fake.heal()
            self.stage.runtime.available = True
            await self.clock.until(lambda: self.stage.dispatcher.queues.waiting == 0, step=2)
            # One that it never got is asked again under another name.
            asked = [one.message_id.partition("#")[0] for one in self.stage.runtime.asked]
            assert sorted(asked) == sorted(self.said), "each asked once"
            for room in ("!1:test", "!2:test"):
                wanted = [one for one, where in self.said.items() if where == room]
                assert self._answered(room) == wanted, "one answer to each, in order"
        finally:
            await self.stage.close()
            await self.fake.stop()

    def _answered(self, room: str) -> list[str]:
        """The messages that were answered in a room, once for each answer."""
        return [
            event["content"]["org.letta.matrix"]["in_reply_to"]
            for event in self.fake.messages(room)
            if event["content"]["msgtype"] == "m.text"
            and event["content"].get("m.relates_to", {}).get("rel_type") != "m.replace"
        ]


def test_whatever_they_answer(migrated: Path) -> None:
    class OnThis(Machine):
        empty = migrated

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        OnThis,
        settings=settings(
            max_examples=15,
            stateful_step_count=10,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
