"""What time it is at the homeserver, as its answers tell."""

import time
from email.utils import formatdate

import pytest
from mautrix.api import ClientPath, Method
from tests.builders import message
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage

from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.server_clock import ServerClock

TWO_DAYS = 2 * 86_400


def dated(ago: float) -> dict[str, str]:
    return {"Date": formatdate(time.time() - ago, usegmt=True)}


@pytest.mark.parametrize(("ago", "is_off"), [(TWO_DAYS, True), (-TWO_DAYS, True), (5, False)])
def test_an_answer_tells_how_far_ours_is_ahead(ago: float, *, is_off: bool) -> None:
    clock = ServerClock()
    clock.dated(dated(ago))
    assert clock.ahead == pytest.approx(ago, abs=30)
    assert clock.now() == pytest.approx(time.time() - ago, abs=30)
    assert clock.is_off is is_off


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("jump", [TWO_DAYS, -TWO_DAYS])
def test_a_clock_that_is_set_makes_nothing_old(
    monkeypatch: pytest.MonkeyPatch, jump: int, *, both: bool
) -> None:
    """Until the next answer nobody knows whether theirs was set too."""
    clock, told = ServerClock(), time.time
    clock.dated(dated(0))
    monkeypatch.setattr(time, "time", lambda: told() + jump)
    theirs = told() + (jump if both else 0)
    assert clock.now() <= theirs + 30
    clock.dated({"Date": formatdate(theirs, usegmt=True)})
    assert clock.now() == pytest.approx(theirs, abs=30)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Date": "yesterday"}, {"Date": ""}, {**dated(TWO_DAYS), "Age": "172800"}],
)
def test_what_tells_nothing_changes_nothing(headers: dict[str, str]) -> None:
    clock = ServerClock()
    clock.dated(headers)
    assert clock.ahead == 0.0


async def test_every_answer_counts_refusals_too(
    fake: FakeHomeserver, homeserver: Homeserver
) -> None:
    fake.headers |= dated(TWO_DAYS)
    await homeserver.request(Method.GET, ClientPath.v3.capabilities)
    assert homeserver.clock.is_off
    assert homeserver.with_token("theirs").clock is homeserver.clock


async def test_a_clock_that_is_ahead_makes_no_message_old(stage: Stage) -> None:
    stage.fake.headers |= dated(TWO_DAYS)
    await stage.parts.homeserver.request(Method.GET, ClientPath.v3.capabilities)
    then = int((time.time() - TWO_DAYS) * 1000)
    await stage.tell(message("hello", origin_server_ts=then))
    await stage.tell(message("!whoami", origin_server_ts=then))
    said = stage.fake.bodies("!1:test")
    assert said[0] == "echo: hello"
    assert "You are" in said[1]
    old = int((time.time() - 2 * TWO_DAYS) * 1000)
    await stage.tell(message("hello", origin_server_ts=old))
    assert "more than 24 hours ago" in stage.fake.bodies("!1:test")[-1]
