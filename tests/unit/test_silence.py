"""Homeservers that keep back what they were to push, or push nothing."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.fake_other_homeservers import CONTINUWUITY, DENDRITE, TUWUNEL
from tests.other_places import Place, bridge_on, settled_on, text
from tests.waiting import Clock, eventually, settled

from letta_matrix.app.bridge import Bridge


@pytest.fixture
async def dendrite(database_file: Path) -> AsyncGenerator[Place]:
    async with settled_on(DENDRITE, database_file) as made:
        yield made


@pytest.fixture
async def continuwuity(database_file: Path) -> AsyncGenerator[Place]:
    async with settled_on(CONTINUWUITY, database_file) as made:
        yield made


async def test_silence_after_we_were_away_is_broken(continuwuity: Place, clock: Clock) -> None:
    """What could not be pushed waits there for the next event, and that for longer and longer:
    each minute we send one until something comes."""
    server, room = continuwuity.server, continuwuity.room_id
    await continuwuity.bridge.close()
    for number in range(1, 7):
        server.say(room, text(f"missed {number}"))
        await eventually(lambda number=number: server.failures == number)
        clock.advance(10 * number + 1 if number < 6 else 0)
    continuwuity.bridge = Bridge(continuwuity.bridge.app.config, [continuwuity.runtime])
    await continuwuity.bridge.start()
    await clock.until(continuwuity.bridge.is_ready, step=0.1)
    server.say(room, text("late"))
    await settled()
    assert server.failures == 6
    await clock.until(lambda: not server.failures, step=2)
    assert "echo: late" in await continuwuity.said(7)
    await eventually(lambda: not continuwuity.bridge.app.dispatcher.queues.waiting)
    # What was found by looking for it came once more in the end.
    answers = [one for one in server.bodies(room) if one.startswith("echo: ")]
    assert sorted(answers) == ["echo: late", *(f"echo: missed {one}" for one in range(1, 7))]


async def test_what_waits_for_a_ping_comes_at_the_start(database_file: Path) -> None:
    async with settled_on(TUWUNEL, database_file) as made:
        await made.bridge.close()
        missed = made.server.say(made.room_id, text("missed"))
        await eventually(lambda: made.server.failures == 1)
        made.bridge = Bridge(made.bridge.app.config, [made.runtime])
        await made.bridge.start()
        await eventually(lambda: missed in made.server.pushed)
        assert await made.said(1) == ["echo: missed"]


async def test_a_homeserver_without_a_ping_that_pushes_nothing_is_told(
    database_file: Path, clock: Clock
) -> None:
    async with bridge_on(DENDRITE, database_file) as made:
        made.server.push_nowhere()
        await clock.until(lambda: "pushes nothing" in str(made.troubles()), step=5)
        assert not made.bridge.is_ready()


async def test_what_is_said_in_silence_is_looked_for(dendrite: Place, clock: Clock) -> None:
    server, room = dendrite.server, dendrite.room_id
    await eventually(lambda: len(server.pushed) == sum(map(len, server.events.values())))
    server.push_nowhere()
    # That nothing comes may be for want of anything: a quarter of an hour is long enough.
    await clock.until(lambda: "pushes nothing" in str(dendrite.troubles()), step=5)
    server.say(room, text("anybody?"))
    assert await clock.through(dendrite.said(1), step=2) == ["echo: anybody?"]
    server.push_to(f"http://127.0.0.1:{dendrite.bridge.app.config.appservice.port}", "h")
    await clock.until(dendrite.bridge.is_ready, step=2)
    assert dendrite.troubles() == []
    await eventually(lambda: not dendrite.bridge.app.dispatcher.queues.waiting)
    assert await dendrite.said(1) == ["echo: anybody?"]


async def test_what_cannot_be_stored_is_no_silence(
    dendrite: Place, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise OSError("disk is full")

    server = dendrite.server
    await eventually(lambda: len(server.pushed) == sum(map(len, server.events.values())))
    monkeypatch.setattr(dendrite.bridge.app.dispatcher, "admit", refuse)
    clock.advance(1000)
    wakes = len(server.matching("org.letta.matrix.wake"))
    await clock.until(lambda: len(server.matching("org.letta.matrix.wake")) > wakes + 3, step=2)
    assert "pushes nothing" not in str(dendrite.troubles())
    monkeypatch.undo()
    await clock.until(lambda: not server.failures)
