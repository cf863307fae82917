"""Replicas that end at any moment, in any way, while people write: nothing is lost, nothing
comes twice, and the order holds in each room."""

import os
import random
import signal

from tests.crash.bridges import Room
from tests.crash.checks import Words, assert_answered_once
from tests.replicas.twins import One, Twins
from tests.waiting import eventually

ROOMS = 3
WAYS = ["killed", "stopped", "told to end", "cut off", "parted from home"]
MESSAGES = int(os.environ.get("REPLICA_MESSAGES", "24"))
"""`REPLICA_MESSAGES=500 REPLICA_COUNT=3` tells more, in minutes."""


async def test_replicas_end_at_any_moment(twins: Twins) -> None:
    chance = random.Random(MESSAGES)
    rooms = [await twins.new_room() for _ in range(ROOMS)]
    told: dict[Room, list[tuple[str, Words]]] = {room: [] for room in rooms}
    for number in range(MESSAGES):
        words, room = Words.quick(), rooms[number % ROOMS]
        told[room].append((await twins.say(room, words.text), words))
        if number % 4 == 3:
            await _end(twins, await twins.active(), WAYS[number // 4 % len(WAYS)], chance)
    await twins.settled_states()
    await twins.be_pushed_to()
    for room in rooms:
        await assert_answered_once(twins, room, *told[room])


async def _end(twins: Twins, one: One, way: str, chance: random.Random) -> None:
    """One that acts ends somehow, and comes again; another has taken over by then."""
    for _ in range(chance.randrange(10)):
        # Something goes on meanwhile, so that the moment is another one each time.
        await one.health()
    match way:
        case "killed":
            await one.end(signal.SIGKILL)
            await twins.active()
            one.start()
        case "told to end":
            await one.end()
            await twins.active()
            one.start()
        case "stopped":
            one.send(signal.SIGSTOP)
            await _another(twins, one)
            one.send(signal.SIGCONT)
        case "parted from home":
            one.home.part()
            await _another(twins, one)
            await one.home.mend()
        case _:
            one.way.part()
            await _another(twins, one)
            await one.way.mend()
    await twins.settled_states(ready=0)


async def _another(twins: Twins, than: One) -> None:
    async def acts() -> bool:
        others = [one for one in twins.members if one is not than and one.is_running]
        return "active" in [await one.state() for one in others]

    await eventually(acts, what="another one acts")
