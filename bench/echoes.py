"""The same echo by three ways: the floor, letta-matrix, and a login for each reply."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bench.bridge import Bridge
from bench.figures import at_least, at_most, ms, p50, p95
from bench.person import Person
from bench.program import Program
from bench.scene import Scene

AT_ONCE = 32
TOGETHER = 10
_WARM_UP = 3
_words = itertools.count(1)


async def echo(person: Person, room: str) -> float:
    """Seconds until the echo of a new message is in the person's /sync."""
    text = f"message {next(_words)}."
    return (await person.ask(room, text, f"echo: {text}")).full


async def one_by_one(scene: Scene, bridge: Bridge) -> None:
    """One message at a time, the competitors taking turns."""
    bot, bot_room = await _nio_bot(scene)
    try:
        await _one_by_one(scene, bridge.rooms()[1:][:TOGETHER], bot_room)
    finally:
        bot.stop()


async def _one_by_one(scene: Scene, our_rooms: Sequence[str], bot_room: str) -> None:
    plan, person = scene.plan, scene.person
    rooms = {"floor": scene.floor_rooms[:TOGETHER], "ours": our_rooms, "login": [bot_room]}
    await person.follow(itertools.chain.from_iterable(rooms.values()))
    took: dict[str, list[float]] = {name: [] for name in rooms}
    for number in range(-_WARM_UP, plan.echoes):
        for name, choice in rooms.items():
            if name != "login" or number < plan.logins:
                seconds = await echo(person, choice[number % len(choice)])
                took[name] += [seconds] if number >= 0 else []
    floor, ours, login = took.values()
    count = f"{len(ours)} each, taking turns"
    add = scene.figures.add
    add("echo_p50_ratio", p50(ours) / p50(floor), f"ours / floor, {count}", at_most(1.15))
    add("echo_p95_ratio", p95(ours) / p95(floor), f"ours / floor, {count}", at_most(1.3))
    add(
        "speedup_vs_login_per_reply",
        p50(login) / p50(ours),
        "nio bot with a password login per reply / ours",
        at_least(3),
    )
    for name, values in (("floor", floor), ("ours", ours), ("login", login)):
        add(f"echo_{name}_p50_ms", ms(p50(values)), "human's PUT -> echo in /sync")
        add(f"echo_{name}_p95_ms", ms(p95(values)), "human's PUT -> echo in /sync")


async def many_at_once(scene: Scene, bridge: Bridge) -> None:
    """Throughput over all rooms, and ten rooms at the same moment, the two taking turns."""
    ours = bridge.rooms()[1:]
    await scene.person.follow([*scene.floor_rooms, *ours])
    rates, cost = await _costed(scene, bridge, ours)
    floor_rate, our_rate = (p50(values) for values in rates)
    note = f"{AT_ONCE} at once over {len(ours)} rooms, ours / floor"
    scene.figures.add("throughput_ratio", our_rate / floor_rate, note, at_least(0.85))
    scene.figures.add("throughput_per_s", our_rate, "echoes a second, ours")
    scene.figures.add("throughput_floor_per_s", floor_rate, "echoes a second, floor")
    note = "requests to the homeserver that write, for each echo there"
    scene.figures.add("writes_per_echo", cost.writes, note, at_most(1.1))
    scene.figures.add("cpu_ms_per_echo", cost.cpu_ms, "the bridge's CPU time for each echo there")
    floor, mine = await _in_turns(scene, ours[:TOGETHER], scene.plan.together_rounds, _together)
    note = f"{TOGETHER} rooms at the same moment, in-memory runtime, ours / floor"
    scene.figures.add("together_p50_ratio", p50(mine) / p50(floor), note, at_most(1.15))
    scene.figures.add("together_floor_p50_s", p50(floor), "the floor there")
    scene.figures.add("together_floor_p95_s", p95(floor), "the floor there")


async def after_start(scene: Scene, bridge: Bridge) -> None:
    """The first message to each room after a start: the bridge knows nothing of the room yet."""
    bridge.stop()
    await bridge.start_ready()
    await bridge.wait_quiet()
    rooms = bridge.rooms()[1:][: scene.plan.first_messages]
    floor_rooms = scene.floor_rooms[: len(rooms)]
    await scene.person.follow([*floor_rooms, *rooms])
    floor: list[float] = []
    first: list[float] = []
    for theirs, ours in zip(floor_rooms, rooms, strict=True):
        floor.append(await echo(scene.person, theirs))
        first.append(await echo(scene.person, ours))
    note = f"first message to a room after a start, ours / floor, {len(first)} rooms"
    scene.figures.add("after_start_p50_ratio", p50(first) / p50(floor), note, at_most(1.5))


@dataclass(frozen=True, slots=True)
class _Cost:
    """What one echo costs the bridge."""

    writes: float
    cpu_ms: float


async def _costed(
    scene: Scene, bridge: Bridge, ours: Sequence[str]
) -> tuple[tuple[list[float], list[float]], _Cost]:
    rounds = scene.plan.throughput_rounds
    writes, cpu = (await bridge.health())["homeserver_writes"], bridge.cpu_seconds
    rates = await _in_turns(scene, ours, rounds, _throughput)
    writes = (await bridge.health())["homeserver_writes"] - writes
    echoes = rounds * len(ours)
    return rates, _Cost(writes / echoes, ms(bridge.cpu_seconds - cpu) / echoes)


async def _in_turns(
    scene: Scene,
    ours: Sequence[str],
    rounds: int,
    measure: Callable[[Person, Sequence[str]], Awaitable[list[float]]],
) -> tuple[list[float], list[float]]:
    floor: list[float] = []
    mine: list[float] = []
    for _ in range(rounds):
        floor += await measure(scene.person, scene.floor_rooms[: len(ours)])
        mine += await measure(scene.person, ours)
    return floor, mine


async def _throughput(person: Person, rooms: Sequence[str]) -> list[float]:
    left = list(rooms)

    async def talk() -> None:
        while left:
            await echo(person, left.pop())

    started = time.monotonic()
    await asyncio.gather(*[talk() for _ in range(AT_ONCE)])
    return [len(rooms) / (time.monotonic() - started)]


async def _together(person: Person, rooms: Sequence[str]) -> list[float]:
    return await asyncio.gather(*[echo(person, room) for room in rooms])


async def _nio_bot(scene: Scene) -> tuple[Program, str]:
    """A running bot and the room it answers in."""
    listener, listener_password = await scene.homeserver.account("nio_listener")
    agent, agent_password = await scene.homeserver.account("nio_agent")
    invite = {"preset": "private_chat", "invite": [listener, agent]}
    made = await scene.person.call("POST", "createRoom", invite)
    settings = {
        "port": scene.ports.take(),
        "homeserver": scene.homeserver.url,
        "person": scene.person.user_id,
        "listener": listener,
        "listener_password": listener_password,
        "agent": agent,
        "agent_password": agent_password,
    }
    bot = Program("bench.nio_bot", settings, scene.directory, scene.http)
    await bot.start()
    return bot, str(made["room_id"])
