"""How the phone line is, as far as its bridge tells."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage
from tests.unit.test_health import config_on
from tests.waiting import Clock, eventually

from letta_matrix.app.bridge import Bridge
from letta_matrix.app.checks import watch_parts
from letta_matrix.config import SmsSettings
from letta_matrix.portals.line_watch import LineWatch
from letta_matrix.portals.provisioning import Login, Provisioning, ProvisioningFault, Why
from letta_matrix.runtimes.memory import MemoryRuntime

SETTINGS = {
    "bot": "@gmessagesbot:test",
    "ghosts": r"@gmessages_(\d+\.\d+):test",
    "line": "@letta_sms:test",
}
SILENT = "gm-phone-not-responding"


class Asked(Provisioning):
    """A bridge that tells of its phones what a test says."""

    def __init__(self, *logins: Login) -> None:
        super().__init__(SmsSettings.model_validate(SETTINGS), "test")
        self.phones: list[Login] | ProvisioningFault = [*logins]
        self.times = 0

    async def logins(self) -> list[Login]:
        self.times += 1
        if isinstance(self.phones, ProvisioningFault):
            raise self.phones
        return self.phones

    def is_in(self, state: str, reason: str = "", error: str = "") -> None:
        self.phones = [Login("phone-1", "+15550000001", state, reason, error)]


@pytest.mark.parametrize(
    ("state", "error", "says", "remedy"),
    [
        ("BAD_CREDENTIALS", "gm-unpaired", "not paired with its bridge any more", "sms login"),
        ("LOGGED_OUT", "", "not paired with its bridge any more", "sms login"),
        ("BAD_CREDENTIALS", SILENT, "does not answer its bridge", "see whether it is on"),
        ("UNKNOWN_ERROR", "gm-ping-failed", "no connection to the phone", "it tries again"),
        ("BRIDGE_UNREACHABLE", "", "no connection to the phone", "it tries again"),
        ("something new", "", "no connection to the phone", "it tries again"),
    ],
)
async def test_what_is_wrong_with_the_phone_is_told_with_a_remedy(
    state: str, error: str, says: str, remedy: str
) -> None:
    bridge = Asked()
    watch = LineWatch(bridge)
    bridge.is_in(state, "as the bridge says", error)
    await watch.look()
    assert watch.trouble is not None
    assert says in watch.trouble.says
    assert remedy in watch.trouble.remedy
    # Numbers are for admins alone.
    assert watch.trouble.who == "+15550000001: as the bridge says"
    assert "+1555" not in str(watch.trouble)
    bridge.is_in("CONNECTED")
    await watch.look()
    assert watch.trouble is None


@pytest.mark.parametrize("why", [*Why])
async def test_a_bridge_that_does_not_tell_is_an_outage(why: Why) -> None:
    bridge = Asked()
    bridge.phones = ProvisioningFault("what it says", why)
    watch = LineWatch(bridge)
    await watch.look()
    assert watch.trouble is not None
    assert "what it says" in watch.trouble.says
    assert watch.trouble.remedy


async def test_no_phone_at_all() -> None:
    watch = LineWatch(Asked())
    await watch.look()
    assert watch.trouble is not None
    assert (watch.trouble.says[:18], watch.trouble.remedy) == (
        "no phone is paired",
        "pair one with `letta-matrix sms login`",
    )


async def test_what_passes_is_told_when_it_has_not_passed() -> None:
    bridge = Asked()
    watch = LineWatch(bridge)
    for state in ("TRANSIENT_DISCONNECT", "CONNECTED", "CONNECTING"):
        bridge.is_in(state)
        await watch.look()
        assert watch.trouble is None
    await watch.look()
    assert watch.trouble is not None


@contextmanager
def running(watch: LineWatch) -> Generator[None]:
    task = asyncio.create_task(watch.run())
    yield
    task.cancel()


async def test_it_looks_every_minute_and_more_often_while_something_is_wrong(clock: Clock) -> None:
    bridge = Asked()
    bridge.is_in("CONNECTED")
    clock.stop()
    with running(LineWatch(bridge)):
        await eventually(lambda: bridge.times == 1)
        clock.advance(59)
        bridge.phones = []
        clock.advance(2)
        await eventually(lambda: bridge.times == 2)
        clock.advance(11)
        await eventually(lambda: bridge.times == 3)
        # A phone is paired here: looked at now.
        bridge.is_in("CONNECTED")
        bridge.changed.set()
        await eventually(lambda: bridge.times == 4)
        clock.advance(59)
        bridge.changed.set()
        await eventually(lambda: bridge.times == 5)


def sms(**changes: Any) -> Any:
    provisioning = {"url": "http://127.0.0.1:9", "secret": "sixteen-letters-or-more"}
    return {"provisioning": provisioning} | changes


@pytest.mark.parametrize(
    ("sections", "is_watched"),
    [
        ({}, False),
        ({"sms": {}}, False),
        ({"sms": sms(line=None)}, False),
        ({"sms": sms()}, True),
    ],
)
async def test_only_a_line_that_can_be_asked_of_is_watched(
    stage: Stage, sections: Any, is_watched: bool
) -> None:
    stage._sections |= sections
    await stage.again()
    watch_parts(stage.parts, [])
    names = [one.name for one in stage.vitals.checks()]
    assert (stage.parts.phone_line.watch is not None) is is_watched
    assert ("phone line" in names) is is_watched


async def test_the_bridge_watches_its_line(
    fake: FakeHomeserver, database_file: Path, clock: Clock
) -> None:
    bridge = Bridge(config_on(fake, database_file, sms=sms()), [MemoryRuntime()])
    await bridge.start()
    try:
        await clock.until(lambda: bridge.app.vitals.of("phone line"))
        assert "cannot be reached" in str(bridge.app.vitals.of("phone line"))
    finally:
        await bridge.close()
