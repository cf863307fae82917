"""A guest who asks too much at once, in a room on a real homeserver."""

import asyncio
from collections.abc import Iterator

from tests.integration.bridge_world import Person, Room, World, new_person
from tests.scripts import until
from tests.waiting import eventually

from letta_matrix.conversations.notices import OVER_BUDGET
from letta_matrix.runtimes.memory import echo
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest


async def test_a_guest_is_told_once_and_others_are_answered(
    world: World, room: Room, ann: Person
) -> None:
    gate = asyncio.Event()

    def patiently(request: TurnRequest) -> Iterator[TurnEvent | float]:
        yield from until(gate)
        yield from echo(request)

    world.runtime.script = patiently
    guest = await new_person(world.homeserver, "guest")
    await ann.bring(room.room_id, guest)
    allowed = world.config.conversations.person_waiting
    sent = [await guest.send(room.room_id, f"number {number}.") for number in range(allowed + 5)]

    async def said() -> list[str]:
        return await guest.bodies(room.room_id, room.ghost)

    await guest.watch(room.room_id, said, lambda bodies: OVER_BUDGET in bodies)
    inbox = world.bridge.app.stores.inbox
    # What arrived when the agent has gone on would be within the budget again.
    await eventually(lambda: inbox.known(sent), lambda known: len(known) == len(sent))
    await ann.send(room.room_id, "and me?")
    gate.set()
    bodies = await ann.watch(
        room.room_id, said, lambda bodies: any("and me?" in body for body in bodies)
    )
    answered = [body for body in bodies if "number" in body]
    assert len(answered) == allowed
    assert all(f"number {number}." in body for number, body in enumerate(answered))
    assert bodies.count(OVER_BUDGET) == 1
