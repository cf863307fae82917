"""Threads of one room, asked at the same moment: do they run side by side?"""

import asyncio
import itertools

from bench.figures import at_most, p50, p95
from bench.person import Answer, Person
from bench.scene import Scene
from bench.turns import Stage, words

THREADS = 8
WORDS = 10
"""Words of an answer; both kinds of agents say one every 0.1 s."""

_numbers = itertools.count(1)


async def in_memory(scene: Scene, room: str) -> None:
    """With the in-memory runtime."""
    await _measure(scene, room, "", "in-memory runtime", 1.6)


async def on_app_server(stage: Stage) -> None:
    """With the App Server."""
    await _measure(stage.scene, stage.rooms[4], "_app_server", "App Server", 2.0)


async def _measure(scene: Scene, room: str, suffix: str, runtime: str, bound: float) -> None:
    """One thread alone and all of them, taking turns."""
    person = scene.person
    roots = [await person.say(room, f"thread {n}", msgtype="m.notice") for n in range(THREADS)]
    # A conversation's first turn is slow by itself.
    await asyncio.gather(*[_greet(person, room, root) for root in roots])
    alone: list[float] = []
    side_by_side: list[Answer] = []
    walls: list[float] = []
    for number in range(scene.plan.thread_rounds):
        alone.append((await _ask(person, room, roots[number % THREADS])).full)
        answers = await asyncio.gather(*[_ask(person, room, root) for root in roots])
        side_by_side += answers
        begun = min(answer.sent_at for answer in answers)
        walls.append(max(answer.sent_at + answer.full for answer in answers) - begun)
    add = scene.figures.add
    note = f"{THREADS} threads of a room at once, {WORDS / 10:g} s answers, {runtime}"
    add(
        f"threads{suffix}_ratio",
        p50(walls) / p50(alone),
        f"{note}: until the last is whole / one thread alone",
        at_most(bound),
    )
    full = [answer.full for answer in side_by_side]
    add(f"threads{suffix}_p50_s", p50(full), f"{note}: whole text")
    add(f"threads{suffix}_p95_s", p95(full), f"{note}: whole text")
    add(f"threads{suffix}_alone_p50_s", p50(alone), f"one of these threads alone, {runtime}")


async def _greet(person: Person, room: str, thread: str) -> None:
    text = f"hello thread {next(_numbers)}."
    await person.ask(room, text, f"echo: {text}", thread=thread)


async def _ask(person: Person, room: str, thread: str) -> Answer:
    text = f"slow:{WORDS} in a thread {next(_numbers)}."
    return await person.ask(room, text, words(WORDS), thread=thread)
