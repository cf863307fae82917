"""The audit room: what it is told, how often, and through outages."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from structlog.testing import capture_logs
from tests.fake_homeserver import FakeHomeserver, Fault, failing
from tests.waiting import Clock, eventually, settled

from letta_matrix.access import mirror as module
from letta_matrix.access.mirror import AuditMirror
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.audit import AuditEntry

ROOM = "!audit:test"
PATH = r"PUT .*/rooms/!audit:test/send/"


def entry(
    seq: int,
    outcome: str = "ok",
    *,
    principal: str = "token:ab12",
    at: float = 1.0,
    room_id: str | None = None,
    event_id: str | None = None,
) -> AuditEntry:
    return AuditEntry(
        principal=principal,
        user_id="@agent_1:test",
        door="mcp",
        tool="matrix_send_message",
        fingerprint="f",
        at=at,
        outcome=outcome,
        room_id=room_id,
        event_id=event_id,
        seq=seq,
    )


@pytest.fixture
async def mirror(homeserver: Homeserver) -> AsyncGenerator[AuditMirror]:
    made = AuditMirror(ROOM, Intent(homeserver, "@letta:test"))
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()


async def test_a_call_is_told(mirror: AuditMirror, fake: FakeHomeserver, clock: Clock) -> None:
    mirror(entry(1, room_id="!a:test", event_id="$e/1"))
    await clock.until(lambda: fake.messages(ROOM), step=1.5)
    (event,) = fake.messages(ROOM)
    content = event["content"]
    assert event["sender"] == "@letta:test"
    assert content["msgtype"] == "m.notice"
    assert content["m.mentions"] == {}
    told = "token:ab12 as @agent_1:test (mcp): matrix_send_message in !a:test"
    link = "https://matrix.to/#/%21a%3Atest/%24e%2F1?via=test"
    assert content["body"] == f"{told} {link}"
    assert content["formatted_body"] == f'{told} <a href="{link}">event</a>'


async def test_what_a_call_did_not_do_is_told(
    mirror: AuditMirror, fake: FakeHomeserver, clock: Clock
) -> None:
    mirror(entry(1, "forbidden"))
    await clock.until(lambda: fake.messages(ROOM), step=1.5)
    assert fake.bodies(ROOM) == [
        "token:ab12 as @agent_1:test (mcp): matrix_send_message: forbidden"
    ]


async def test_calls_are_told_together(
    mirror: AuditMirror, fake: FakeHomeserver, clock: Clock
) -> None:
    clock.stop()
    for seq in range(60):
        mirror(entry(seq))
    for count in (1, 2, 3):
        await settled()
        clock.advance(module._EVERY - 0.1)
        await settled()
        assert len(fake.matching(PATH)) == count - 1
        clock.advance(0.1)
        await eventually(lambda count=count: len(fake.messages(ROOM)) == count)
    assert [body.count("\n") + 1 for body in fake.bodies(ROOM)] == [25, 25, 10]
    mirror(entry(60))
    await clock.until(lambda: len(fake.messages(ROOM)) == 4, step=1.5)


async def test_names_of_callers_are_no_markup(
    mirror: AuditMirror, fake: FakeHomeserver, clock: Clock
) -> None:
    mirror(entry(1, principal="oidc:<b>x</b>\n@room\u202e" + "y" * 5000))
    await clock.until(lambda: fake.messages(ROOM), step=1.5)
    content = fake.messages(ROOM)[0]["content"]
    assert "\n" not in content["body"]
    assert "\u202e" not in content["body"]
    assert len(content["body"]) < 500
    assert "<b>" not in content["formatted_body"]


@pytest.mark.parametrize(
    "fault",
    [
        failing(500),
        Fault(403, {"errcode": "M_FORBIDDEN", "error": "no"}),
        Fault(500, {"errcode": "M_UNKNOWN"}, takes_effect=True),
    ],
)
async def test_an_outage_delays_and_repeats_nothing(
    mirror: AuditMirror, fake: FakeHomeserver, fault: Fault, clock: Clock
) -> None:
    fake.forgetful = True
    fake.fail(PATH, fault)
    with capture_logs() as logs:
        mirror(entry(1))
        await clock.until(lambda: fake.matching(PATH), step=1.5)
        mirror(entry(2, "failed"))
        await clock.until(lambda: fake.messages(ROOM), step=1.5)
        await clock.until(lambda: "failed" in fake.bodies(ROOM)[-1], step=1.5)
    assert len("\n".join(fake.bodies(ROOM)).split("\n")) == 2
    assert [one["event"] for one in logs] == ["the audit room cannot be written to"]


async def test_what_is_too_much_is_counted(
    mirror: AuditMirror, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(module, "_MOST_KEPT", 3)
    for seq in range(10):
        mirror(entry(seq))
    await clock.until(lambda: fake.messages(ROOM), step=1.5)
    lines = fake.bodies(ROOM)[0].split("\n")
    assert lines[0] == "7 calls are missing here; the audit log has them."
    assert len(lines) == 4


async def test_calls_that_could_not_be_stored_are_told_each(
    mirror: AuditMirror, fake: FakeHomeserver, clock: Clock
) -> None:
    unstored = [
        entry(0, at=1.0),
        entry(0, at=2.0),
        entry(0, at=2.0, principal="token:cd34"),
    ]
    for count, one in enumerate(unstored, 1):
        mirror(one)
        await clock.until(lambda count=count: len(fake.messages(ROOM)) == count, step=1.5)


@pytest.mark.parametrize("status", [400, 404, 413])
async def test_a_notice_that_is_refused_for_good_holds_up_no_others(
    mirror: AuditMirror, fake: FakeHomeserver, status: int, clock: Clock
) -> None:
    refused = Fault(status, {"errcode": "M_TOO_LARGE", "error": "no"})
    fake.fail(PATH, refused, refused)
    with capture_logs() as logs:
        for seq, dropped in ((1, 1), (2, 2)):
            mirror(entry(seq))
            await clock.until(lambda dropped=dropped: mirror._dropped == dropped, step=1.5)
    assert [one["calls"] for one in logs] == [1, 2]
    mirror(entry(3))
    await clock.until(lambda: fake.messages(ROOM), step=1.5)
    (body,) = fake.bodies(ROOM)
    missing, told = body.split("\n")
    assert missing == "2 calls are missing here; the audit log has them."
    assert told.startswith("token:ab12")
    assert len(fake.matching(PATH)) == 3


async def test_the_last_calls_are_told_at_the_end(
    homeserver: Homeserver, fake: FakeHomeserver, clock: Clock
) -> None:
    # The end waits a second, and two notices may take longer.
    clock.stop()
    mirror = AuditMirror(ROOM, Intent(homeserver, "@letta:test"))
    await mirror.close()
    for seq in range(30):
        mirror(entry(seq))
    await mirror.close()
    assert len(fake.messages(ROOM)) == 2


async def test_the_end_waits_for_no_homeserver(
    homeserver: Homeserver, fake: FakeHomeserver, clock: Clock
) -> None:
    clock.stop()
    released = fake.hold(PATH)
    mirror = AuditMirror(ROOM, Intent(homeserver, "@letta:test"))
    mirror(entry(1))
    with capture_logs() as logs:
        closing = asyncio.create_task(mirror.close())
        await eventually(lambda: fake.matching(PATH))
        clock.advance(module._FAREWELL)
        await closing
    released.set()
    assert [one["log_level"] for one in logs] == ["warning"]
