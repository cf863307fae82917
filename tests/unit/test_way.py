"""A replica knows whether it has reached the homeserver for a while."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.builders import config_for
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.waiting import Clock, eventually

from letta_matrix.app import way as way_module
from letta_matrix.app.way import Way
from letta_matrix.matrix.watch import ServerState

HERE, SLOW, AWAY = ServerState.HERE, ServerState.SLOW, ServerState.AWAY


class Watch:
    """A way that is looked at every 4 s, with what is found there in the test's hands."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.way = Way(config_for(directory, replica={"lease": "8s"}))
        self.found: ServerState | Exception = HERE
        self.looks = 0
        self._clock = clock

    async def look(self, _way: Way, _token: str, _owner: str) -> ServerState:
        self.looks += 1
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    async def looked(self, times: int, found: ServerState | Exception) -> bool | None:
        """What is known once this was found so often, one more pause later each time."""
        self.found = found
        for _ in range(times):
            wanted = self.looks + 1
            self._clock.advance(4)
            await eventually(lambda: self.looks, wanted.__eq__)
        return self.way.reaches


@pytest.fixture
async def watch(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Watch]:
    watch = Watch(tmp_path, clock)
    monkeypatch.setattr(way_module, "look", watch.look)
    clock.stop()
    running = asyncio.create_task(watch.way.run())
    await eventually(lambda: watch.looks)
    yield watch
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_two_leases_long_it_has_to_lead_there(watch: Watch) -> None:
    assert watch.way.reaches is None
    assert await watch.looked(3, HERE) is None
    assert await watch.looked(1, HERE) is True


@pytest.mark.parametrize("found", [SLOW, AWAY, RuntimeError("a look fails")])
async def test_two_leases_long_it_has_to_fail(watch: Watch, found: ServerState | Exception) -> None:
    await watch.looked(4, HERE)
    assert await watch.looked(1, found) is None
    assert await watch.looked(3, found) is None
    assert await watch.looked(1, found) is False


async def test_what_is_forgotten_is_to_last_anew(watch: Watch) -> None:
    assert await watch.looked(5, HERE) is True
    watch.way.forget()
    assert watch.way.reaches is None
    assert await watch.looked(4, HERE) is None
    assert await watch.looked(1, HERE) is True


async def test_one_that_comes_and_goes_is_neither(watch: Watch) -> None:
    for _ in range(3):
        assert await watch.looked(4, AWAY) is None
        assert await watch.looked(4, HERE) is None


@pytest.mark.parametrize(
    ("status", "errcode", "is_reached"),
    [
        (200, "", True),
        (401, "M_UNKNOWN_TOKEN", False),
        (401, "M_MISSING_TOKEN", False),
        (403, "M_FORBIDDEN", True),
        (429, "M_LIMIT_EXCEEDED", True),
        (502, "", False),
    ],
)
async def test_who_is_not_let_in_does_not_reach_it(
    fake: FakeHomeserver, tmp_path: Path, status: int, errcode: str, is_reached: bool
) -> None:
    way = Way(config_for(tmp_path, homeserver={"url": fake.url, "domain": "test"}))
    body = {"errcode": errcode} if errcode else {"user_id": "@letta:test"}
    fake.fail("account/whoami", Fault(status, body))
    assert await way._found() is is_reached


@pytest.mark.parametrize("who", ["@letta:other", "@another:test"])
async def test_who_is_taken_for_somebody_else_does_not_reach_it(
    fake: FakeHomeserver, tmp_path: Path, who: str
) -> None:
    """It could do nothing there; see `reach`."""
    way = Way(config_for(tmp_path, homeserver={"url": fake.url, "domain": "test"}))
    fake.fail("account/whoami", Fault(200, {"user_id": who}))
    assert await way._found() is False


async def test_the_earlier_token_lets_it_in_too(fake: FakeHomeserver, tmp_path: Path) -> None:
    service = {"as_token": "new", "hs_token": "h", "earlier_as_token": "old"}
    way = Way(
        config_for(tmp_path, homeserver={"url": fake.url, "domain": "test"}, appservice=service)
    )
    fake.fail("account/whoami", Fault(401, {"errcode": "M_UNKNOWN_TOKEN"}))
    assert await way._found() is True
    assert len(fake.matching("account/whoami")) == 2
