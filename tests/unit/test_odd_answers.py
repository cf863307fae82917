"""A homeserver whose answers have odd values in any field: nothing of the bridge ends, and when it
behaves again all is set up, without a restart."""

import json
import random
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from tests.builders import message
from tests.fake_homeserver import Answer, FakeHomeserver, Request
from tests.scripts import obey
from tests.unit.test_health import config_on
from tests.waiting import Clock, moment

from letta_matrix.app.bridge import Bridge
from letta_matrix.common.clock import now as clock_now
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo

ODD: list[Any] = [
    *(None, True, -1, 2**63, 10**400, 1e308, [], {}, [[None]], {"": 0}),
    *("", "x", "\ud800", "\x00", "²", "!", "@", "$", "x" * 3000, "\x1b[2J"),
    *("!1:test", "@agent_1:test"),
]
ERRORS = [(400, "M_UNKNOWN"), (403, "M_FORBIDDEN"), (404, "M_NOT_FOUND"), (500, "M_UNKNOWN")]


class Odd(FakeHomeserver):
    """Every second answer has other values than it should, or is an error."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance: random.Random | None = chance

    def _answer(self, request: Request) -> Answer:
        status, body = super()._answer(request)
        if self.chance is None or self.chance.random() < 0.5:
            return status, body
        if "/send/" not in request.path and self.chance.random() < 0.1:
            status, errcode = self.chance.choice(ERRORS)
            body = {"errcode": errcode, "error": self.chance.choice(ODD)}
        return status, self._changed(body, self.chance)

    def _changed(self, value: Any, chance: random.Random) -> Any:
        if chance.random() < 0.1:
            return chance.choice(ODD)
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            kept = {name: one for name, one in fields.items() if chance.random() > 0.05}
            return {name: self._changed(one, chance) for name, one in kept.items()}
        if isinstance(value, list):
            return [self._changed(one, chance) for one in cast("list[Any]", value)]
        return value


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_ends(database_file: Path, clock: Clock, seed: int) -> None:
    fake = Odd(random.Random(seed))
    await fake.start()
    runtime = MemoryRuntime(script=obey)
    runtime.add(AgentInfo("agent-1", "Ada"))
    bridge = Bridge(config_on(fake, database_file), [runtime])
    with capture_logs() as logs:
        await bridge.start()
        for _ in range(4):
            for _ in range(12):
                clock.advance(3)
                await moment()
                # Whatever it says can be told.
                json.dumps(bridge.health.told(), ensure_ascii=False, allow_nan=False).encode()
            rooms = [*fake.events][:3]
            await bridge.admit("t", [message("hi", room, sender="@ann:test") for room in rooms])
            bridge.app.homeserver.outage.set()
        fake.chance = None
        queues = bridge.app.dispatcher.queues

        def is_over() -> bool:
            # Nothing is pushed by this one.
            bridge.appservice.pushed_at = bridge.appservice.stored_at = clock_now()
            return bridge.is_ready() and not queues.waiting

        await clock.until(is_over, step=3)
        assert bridge.health.told()["agents_in_trouble"] == {}
        await bridge.close()
    await fake.stop()
    # A defect is told with its stack.
    assert [line for line in logs if line.get("exc_info")] == []
