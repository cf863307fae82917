"""A call that comes again after a kill writes once, though the homeserver was restarted, too."""

import asyncio
from pathlib import Path

import pytest
from tests.builders import agent, config_for
from tests.fake_homeserver import FakeHomeserver
from tests.toolbox_kit import toolbox_on
from tests.waiting import within

from letta_matrix.common.tools import ToolCall
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database

ROOM = "!1:test"


async def test_a_message_is_sent_once_though_everybody_has_forgotten(
    tmp_path: Path,
    fake: FakeHomeserver,
    homeserver: Homeserver,
    database: Database,
    directory: AgentDirectory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await directory.reserve([agent(1)])
    arguments = {"room_id": ROOM, "message": "once"}
    call = ToolCall("agent-1", "", "call-1", "matrix_send_message", arguments, "request-1")
    config, killed = config_for(tmp_path), asyncio.Event()
    fake.forgetful = True

    async def end(*_: object, **__: object) -> None:
        """What a kill leaves behind: nothing is noted."""
        killed.set()

    async with toolbox_on(config, homeserver, directory, database) as toolbox:
        monkeypatch.setattr(toolbox.ledger._store, "end", end)
        first = await toolbox.handler("memory")(call)
        await within(killed.wait())
    for _ in range(2):
        async with toolbox_on(config, homeserver, directory, database) as toolbox:
            assert (await toolbox.handler("memory")(call)).text == first.text
    assert fake.bodies(ROOM) == ["once"]
