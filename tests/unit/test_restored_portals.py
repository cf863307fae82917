"""A database that was put back: nobody on another network gets an answer twice."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import pytest
from tests.builders import message
from tests.fake_homeserver import FakeHomeserver
from tests.restore_kit import Restored
from tests.scripts import until
from tests.sms_kit import BOT, CONTACT, LINE, PORTAL, texts_with, with_line
from tests.stage import Stage
from tests.waiting import eventually

from letta_matrix.runtimes.memory import echo
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest

OWN = "!1:test"


@pytest.fixture
async def restored(fake: FakeHomeserver, database_file: Path) -> AsyncGenerator[Restored]:
    """A phone line, which is where its agent is not."""
    stage = Stage(fake, database_file)
    await stage.open()
    await stage.add(1, created_at=time.time() - 7200)
    await with_line(stage)
    await texts_with(stage)
    fake.members[PORTAL] = {BOT, CONTACT, LINE}
    fake.guarded = {PORTAL}
    await stage.parts.catch_up.run()
    yield Restored(stage, database_file)
    await stage.close()


def _sent(fake: FakeHomeserver) -> list[str]:
    """What went out to the phone."""
    return [one["content"]["body"] for one in fake.messages(PORTAL) if one["sender"] == LINE]


async def _answered_after_the_backup(restored: Restored) -> None:
    """One text is being answered while the backup is taken, and one waits."""
    goes_on = asyncio.Event()

    def slow(request: TurnRequest) -> Iterable[TurnEvent | float]:
        yield from until(goes_on)
        yield from echo(request)

    restored.answer = slow
    first, second = (message(text, PORTAL, sender=CONTACT) for text in ("begun", "waits"))
    await restored.arrives(PORTAL, first, second)
    await eventually(lambda: restored.begun == ["begun"])
    restored.take()
    goes_on.set()
    await restored.stage.idle()


async def test_texts_that_were_answered_since_go_out_once(
    restored: Restored, fake: FakeHomeserver
) -> None:
    await _answered_after_the_backup(restored)
    await restored.put_back()
    assert restored.begun == ["begun", "waits"]
    assert _sent(fake) == ["echo: begun", "echo: waits"]
    await restored.arrives(PORTAL, message("new", PORTAL, sender=CONTACT))
    await restored.stage.idle()
    assert _sent(fake)[2:] == ["echo: new"]


async def test_where_nobody_can_look_nothing_goes_out_and_the_agents_room_is_told(
    restored: Restored, fake: FakeHomeserver
) -> None:
    await _answered_after_the_backup(restored)
    fake.members[PORTAL].remove(LINE)
    before = fake.bodies(OWN)
    await restored.put_back()
    assert restored.begun == ["begun", "waits"]
    assert _sent(fake) == ["echo: begun", "echo: waits"]
    told = fake.bodies(OWN)[len(before) :]
    assert ["I cannot look whether I have answered" in one for one in told] == [True, True]
