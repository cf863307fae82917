"""Talks in portals as they go: people who take over, limits, questions."""

import asyncio
import time
from typing import Any

import pytest
from tests.builders import PERSON, reaction
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.portal_kit import BOB, BOT, GHOST, LINE, PORTAL, admin, opened, out, said, with_bridge
from tests.scripts import DONE, held
from tests.stage import Stage
from tests.waiting import Clock, eventually

from letta_matrix.matrix.content import MARKER
from letta_matrix.runtimes.protocol import ApprovalRequested, TextDelta, TurnRequest

OWN = "!1:test"


async def test_help_is_answered_once_an_hour(bridged: Stage, fake: FakeHomeserver) -> None:
    await opened(bridged)
    then = int(time.time() * 1000)
    await bridged.tell(said("Hilfe"), said("help", origin_server_ts=then + 1000))
    await bridged.tell(said("help", origin_server_ts=then + 7_300_000))
    assert [text[:4] for text in out(fake)] == ["Hier", "A pr"]


async def test_what_is_decided_about_contacts_holds_and_is_noted(
    ruled: Stage, fake: FakeHomeserver
) -> None:
    await opened(ruled)
    await ruled.tell(admin("!portal block ann"))
    await ruled.tell(said("hello"))
    assert ruled.runtime.asked == []
    await ruled.tell(admin('!portal allow ann "Agent 2"'))
    await ruled.tell(admin("!portal routes"))
    told = fake.bodies(OWN, "m.notice")
    assert told[:2] == [
        "`ann` is answered by nobody from now on.",
        "`ann` is answered by `Agent 2` from now on.",
    ]
    assert told[2].splitlines() == ["- `irc`: `*` → `agent-1`", "- `irc`: `ann` → `Agent 2`"]
    await ruled.tell(said("hello"))
    assert [one.agent_id for one in ruled.runtime.asked] == ["agent-2"]
    (answer,) = fake.messages(PORTAL)
    assert answer["content"]["com.beeper.per_message_profile"]["displayname"] == "Agent 2"
    entries = await ruled.stores.audit.newest(10)
    assert {"portals.block", "portals.allow"} <= {one.tool for one in entries}


async def test_only_admins_decide(bridged: Stage, fake: FakeHomeserver) -> None:
    await opened(bridged)
    await bridged.tell(admin("!portal block ann"))
    await bridged.tell(said("hello"))
    assert out(fake) == ["echo: hello"]


async def test_a_person_takes_over_and_lets_go(ruled: Stage, fake: FakeHomeserver) -> None:
    fake.members[PORTAL] = {PERSON}
    await opened(ruled, ghosts=(GHOST, PERSON))
    await ruled.admit(said("hang"))
    await eventually(lambda: ruled.runtime.asked)
    await ruled.admit(admin("!portal hold", PORTAL))
    await eventually(lambda: ruled.stores.portals.portal(PORTAL).held)  # type: ignore[union-attr]
    (told,) = await eventually(lambda: fake.bodies(OWN))
    assert "silent in 1 portal" in told
    await ruled.again()
    await ruled.tell(said("hello"))
    assert out(fake) == []
    await ruled.tell(admin("!portal release ann"), said("and now"))
    assert not ruled.stores.portals.portal(PORTAL).held  # type: ignore[union-attr]


async def test_an_answer_that_comes_while_a_portal_is_held_is_not_sent(
    ruled: Stage, fake: FakeHomeserver
) -> None:
    await opened(ruled)
    release = asyncio.Event()

    def script(request: TurnRequest) -> Any:
        return held(release)

    ruled.runtime.script = script
    await ruled.admit(said("hello"))
    await eventually(lambda: ruled.runtime.asked)
    await ruled.stores.portals.hold(ruled.stores.portals.all(), held=True)
    release.set()
    await ruled.idle()
    assert out(fake) == []
    (told,) = fake.bodies(OWN)
    assert told.startswith(f"About `{GHOST}`: my answer was not sent")


async def test_what_a_contact_sends_at_once_is_one_question(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    bridged = await with_bridge(stage, join_messages=2)
    await opened(bridged)
    # By a clock that is ahead: how long the next one is waited for does not go by the time it is.
    at_once: dict[str, Any] = {"origin_server_ts": int((time.time() + 60) * 1000)}
    clock.stop()
    await bridged.admit(said("one", **at_once))
    await bridged.admit(said("two", **at_once), said("three", **at_once))
    await clock.until(lambda: bridged.dispatcher.queues.waiting == 0)
    assert [one.text for one in bridged.runtime.asked] == ["one\n\ntwo\n\nthree"]
    assert len(out(fake)) == 1


async def test_a_days_budget_is_kept_and_told_of_once(stage: Stage, fake: FakeHomeserver) -> None:
    bridged = await with_bridge(stage, contact_per_day=2, per_day=3)
    await opened(bridged, ghosts=(GHOST, BOB))
    for number in range(4):
        await bridged.tell(said(f"a{number}"))
    for number in range(3):
        await bridged.tell(said(f"b{number}", BOB))
    assert out(fake) == ["echo: a0", "echo: a1", "echo: b0"]
    told = fake.bodies(OWN)
    assert [text.split("`")[1] for text in told] == [GHOST, BOB]
    assert all("used up" in text for text in told)


async def test_in_quiet_hours_messages_wait(
    stage: Stage, fake: FakeHomeserver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = {"start": "22:00", "end": "06:00", "zone": "UTC"}
    bridged = await with_bridge(stage, quiet_hours=quiet)
    await opened(bridged)
    left = [30.0]

    def until_open(*_: object) -> float:
        return left[0]

    monkeypatch.setattr("letta_matrix.conversations.portal_gate.until_open", until_open)
    await bridged.admit(said("hello"))
    await bridged.admit(said("again"))
    clock.advance(29)
    assert bridged.runtime.asked == []
    left[0] = 0.0
    await clock.until(lambda: bridged.dispatcher.queues.waiting == 0)
    assert out(fake) == ["echo: hello", "echo: again"]


async def test_nothing_is_sent_twice_though_the_answer_is_lost(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged)
    fake.forgetful = True
    fake.fail("PUT .*portal:test/send/", Fault(502, takes_effect=True))
    await bridged.tell(said("hello"))
    assert out(fake) == ["echo: hello"]


async def test_what_an_earlier_process_froze_goes_out_once(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged)
    fake.hold("PUT .*portal:test/send/")
    await bridged.admit(said("hello"))
    await eventually(lambda: fake.matching("PUT .*portal:test/send/"))
    fake._held.clear()
    await bridged.recover()
    await bridged.idle()
    assert out(fake) == ["echo: hello"]
    assert len(bridged.runtime.asked) == 1


async def test_approvals_are_asked_in_the_agents_own_room(
    ruled: Stage, fake: FakeHomeserver
) -> None:
    await opened(ruled)

    def script(request: TurnRequest) -> Any:
        yield TextDelta("0", "I will look. ")
        yield ApprovalRequested("a1", "Bash", {"command": "ls"})
        yield TextDelta("1", "Done.")
        yield DONE

    ruled.runtime.script = script
    fake.members[OWN] = {PERSON}
    await ruled.admit(said("do it"))
    asked = await eventually(lambda: fake.messages(OWN))
    assert "Bash" in asked[0]["content"]["body"]
    assert out(fake) == []
    await ruled.admit(said("yes"), said("ok", GHOST))
    await ruled.admit(reaction(asked[0]["event_id"], "✅", PORTAL, sender=GHOST))
    await ruled.admit(reaction(asked[0]["event_id"], "✅", OWN))
    await ruled.idle()
    assert out(fake)[0].split("\n")[-1].endswith("Done.")
    assert {event["sender"] for event in fake.messages(PORTAL)} == {LINE}
    assert fake.messages(PORTAL, "m.reaction") == []


async def test_the_agent_is_told_who_writes(stage: Stage) -> None:
    bridged = await with_bridge(stage, envelope="[{sender}]")
    await opened(bridged)
    await bridged.tell(said("hello"))
    assert bridged.runtime.asked[0].text == f"[{GHOST}]\nhello"


async def test_a_program_that_answers_for_ever_is_left_alone(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged)
    at = int(time.time() * 1000)
    for _ in range(30):
        # However long all of it takes here, the program has answered in no time.
        await bridged.tell(said("I am out of office", origin_server_ts=at + 1))
        last = fake.messages(PORTAL)[-1]
        at = max(at + 1, last["origin_server_ts"])
        await bridged.tell(last)
    assert len(out(fake)) < 12
    assert all("program" not in text for text in out(fake))


async def test_markers_of_what_goes_out_name_the_agent(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged)
    await bridged.tell(said("hello", BOT), said("hello"))
    (answer,) = fake.messages(PORTAL)
    assert answer["content"][MARKER]["agent_id"] == "agent-1"


async def test_an_answer_that_the_homeserver_does_not_take_is_told_of(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged)
    fake.guarded = {PORTAL}
    fake.members[PORTAL].discard(LINE)
    await bridged.tell(said("hello"))
    assert out(fake) == []
    (told,) = fake.bodies(OWN)
    assert told.startswith(f"About `{GHOST}`: my text did not go out")


async def test_what_waits_in_a_room_that_is_no_portal_any_more_is_not_asked(
    stage: Stage, fake: FakeHomeserver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = {"start": "22:00", "end": "06:00", "zone": "UTC"}
    bridged = await with_bridge(stage, quiet_hours=quiet)
    await opened(bridged)

    def until_open(*_: object) -> float:
        return 30.0

    monkeypatch.setattr("letta_matrix.conversations.portal_gate.until_open", until_open)
    await bridged.admit(said("hello"))
    await bridged.admit(fake.set_state(PORTAL, "m.bridge", {}, "irc://ann", BOT))
    await clock.until(lambda: bridged.dispatcher.queues.waiting == 0)
    assert bridged.runtime.asked == []
    assert out(fake) == []
    (told,) = fake.bodies(OWN)
    assert "given the talk's room up" in told


async def test_contacts_at_once_do_not_overdraw_a_days_budget(
    stage: Stage, fake: FakeHomeserver
) -> None:
    bridged = await with_bridge(stage, per_day=1)
    await opened(bridged)
    await opened(bridged, room_id="!b:test", ghosts=(BOB,), channel={"id": "bob"})
    await bridged.tell(said("one"), said("two", BOB, "!b:test"))
    assert len(bridged.runtime.asked) == 1
    # Another room for the same talk is no other day.
    await opened(bridged, room_id="!anew:test")
    await bridged.tell(said("three", room_id="!anew:test"))
    await bridged.again()
    await bridged.tell(said("four", room_id="!anew:test"))
    assert len(bridged.runtime.asked) == 1
