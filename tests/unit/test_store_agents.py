"""The agents' table: in memory for reading, in the database for good."""

import pytest
from sqlalchemy.exc import IntegrityError
from tests.builders import agent

from letta_matrix.store.agents import AgentDirectory, AgentStatus
from letta_matrix.store.database import Database

ON_BOTH = True


async def reloaded(database: Database) -> AgentDirectory:
    directory = AgentDirectory(database)
    await directory.load()
    return directory


async def test_agents_are_found_by_id_room_and_user(
    directory: AgentDirectory, database: Database
) -> None:
    first, second = agent(1, description="one"), agent(2)
    second.room_id = None
    await directory.reserve([first, second])
    for known in (directory, await reloaded(database)):
        assert known.all() == [first, second]
        assert known.get("agent-1") == first
        assert known.by_room("!1:test") == first
        assert known.by_user("@agent_2:test") == second
        assert known.get("x") is known.by_room("x") is known.by_user("x") is None


async def test_changes_survive(directory: AgentDirectory, database: Database) -> None:
    one = agent(1)
    one.room_id = None
    await directory.reserve([one])
    one.room_id, one.name, one.status = "!new:test", "Renamed", AgentStatus.REMOVED
    one.applied = {"registered": True, "members": ["@ann:test"]}
    await directory.change([one.agent_id], lambda _: one)
    assert directory.by_room("!new:test") is one
    assert (await reloaded(database)).all() == [one]


async def test_reserving_nobody_is_nothing(directory: AgentDirectory) -> None:
    await directory.reserve([])
    assert directory.all() == []


async def test_two_agents_cannot_share_a_user_or_a_room(directory: AgentDirectory) -> None:
    await directory.reserve([agent(1)])
    for other in (agent(2, user_id="@agent_1:test"), agent(3, room_id="!1:test")):
        with pytest.raises(IntegrityError):
            await directory.reserve([other])
    assert len(directory.all()) == 1
