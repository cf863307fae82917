"""The agents' rooms are chats with the agents, for the owner of the embedded homeserver."""

from pathlib import Path
from typing import Any

import pytest
from tests.builders import agent, config_for

from letta_matrix.cli.up.bridge_store import rooms_of_agents
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.synapse import with_rooms
from letta_matrix.store.agents import AgentDirectory, AgentStatus

ROOMS = {"@agent_1:test": "!1:test"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"@agent_1:test": ["!1:test"]}),
        ({"@agent_1:test": ["!1:test"]}, {"@agent_1:test": ["!1:test"]}),
        ({"@agent_1:test": ["!dm:test"]}, {"@agent_1:test": ["!1:test", "!dm:test"]}),
        ({"@agent_1:test": "odd"}, {"@agent_1:test": ["!1:test"]}),
        ({"@bob:test": ["!b:test"]}, {"@bob:test": ["!b:test"], "@agent_1:test": ["!1:test"]}),
    ],
)
def test_what_is_there_stays(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert with_rooms(before, ROOMS) == after


async def test_the_agents_there_are(database_file: Path, directory: AgentDirectory) -> None:
    homeless = agent(3)
    homeless.room_id = None
    await directory.reserve([agent(1), agent(2, status=AgentStatus.REMOVED), homeless])
    config = config_for(database_file.parent, database={"url": f"sqlite:///{database_file}"})
    assert await rooms_of_agents(config) == ROOMS


async def test_a_database_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="the agents' rooms are not known"):
        await rooms_of_agents(config_for(tmp_path))
    address = "postgresql://db/bridge?sslmod=require"
    with pytest.raises(StackError, match=r"rooms are not known.*twice: sslmod"):
        await rooms_of_agents(config_for(tmp_path, database={"url": address}))
