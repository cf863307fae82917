"""SIGKILL while a program writes through the REST API, which then asks again."""

import asyncio
import secrets
from collections.abc import AsyncGenerator

import pytest
from tests.crash.bridges import Bridges, Room

from letta_matrix.access.principal import TOOL_SCOPES
from letta_matrix.access.secrets import issue
from letta_matrix.client import LettaMatrix, Unreachable
from letta_matrix.store.database import Database, database_url
from letta_matrix.store.tokens import TokenStore

_POINTS = ["call noted", "call's end not committed", "call's end noted"]


@pytest.fixture(scope="module")
async def room(house: Bridges) -> Room:
    """An agent's room."""
    await house.write_config()
    await house.start()
    return await house.common_room()


@pytest.fixture(scope="module")
async def program(house: Bridges, room: Room) -> AsyncGenerator[LettaMatrix]:
    """A program that may act as the agent."""
    text, token = issue(agent_id=room.agent_id, scopes=TOOL_SCOPES)
    database = Database(house.database or database_url("sqlite:///", house.directory))
    await TokenStore(database).add(token)
    await database.close()
    async with LettaMatrix(f"http://127.0.0.1:{house.port}", text, timeout=60) as client:
        yield client


@pytest.mark.parametrize("point", _POINTS)
async def test_a_message_is_sent_once(
    bridges: Bridges, room: Room, program: LettaMatrix, point: str
) -> None:
    message, transaction_id = f"sent once {secrets.token_hex(6)}", secrets.token_hex(8)
    await bridges.start()
    bridges.set_trap(point)
    first = asyncio.create_task(
        program.send_message(room.room_id, message, transaction_id=transaction_id)
    )
    await bridges.dead(point)
    (told,) = await asyncio.gather(first, return_exceptions=True)

    await bridges.start()
    sent = await program.send_message(room.room_id, message, transaction_id=transaction_id)
    again = await program.send_message(room.room_id, message, transaction_id=transaction_id)
    assert again == sent
    assert isinstance(told, Unreachable) or told == sent
    said = [one for one in await bridges.replies(room) if one.text == message]
    assert [one.event_id for one in said] == [sent["event_id"]]
    noted = bridges.rows(
        "SELECT outcome, event_id FROM audit WHERE transaction_id = ?", transaction_id
    )
    assert noted == [("ok", sent["event_id"])]


async def test_a_room_is_made_once(bridges: Bridges, program: LettaMatrix) -> None:
    """What tells that it is there is no event's marker."""
    name, transaction_id = f"Once {secrets.token_hex(6)}", secrets.token_hex(8)
    await bridges.start()
    bridges.set_trap("tool's room made")
    first = asyncio.create_task(
        program.call_tool("matrix_create_room", name=name, transaction_id=transaction_id)
    )
    await bridges.dead("tool's room made")
    with pytest.raises(Unreachable):
        await first

    await bridges.start()
    made = await program.call_tool("matrix_create_room", name=name, transaction_id=transaction_id)
    rooms = await program.list_rooms()
    assert [one["room_id"] for one in rooms if one["name"] == name] == [made["room_id"]]
