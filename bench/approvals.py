"""Tool approvals: from the runtime's question to the room, and from a person's ✅ back."""

import asyncio
import itertools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.bare_agents import floor_room
from bench.echoes import echo
from bench.figures import at_most, ms, p50, p95
from bench.letta import DirectApproval
from bench.person import Person
from bench.scene import Scene
from bench.turns import BREATH, Stage

_WARM_UP = 1
_THINKING = 0.6
"""Seconds a person looks at a question before reacting; the agent adds its reactions in it."""

_numbers = itertools.count(1)
_times = re.compile(r"asked (\S+) answered (\S+)")


@dataclass(frozen=True, slots=True)
class _Round:
    """One approval; `time.monotonic()`."""

    sent: float
    prompted: float
    reacted: float
    accepted: float
    replied: float
    reply: str


async def in_memory(scene: Scene, room: str) -> None:
    """Approvals of in-memory agents, taking turns with the floor's echo."""
    floor: list[float] = []
    rounds: list[_Round] = []
    for number in range(-_WARM_UP, scene.plan.approvals):
        echoed = await echo(scene.person, await floor_room(scene))
        done = await _approve(scene.person, room, f"approval {next(_numbers)}.", "asked ")
        if number >= 0:
            floor.append(echoed)
            rounds.append(done)
    _report_in_memory(scene, floor, rounds)


def _report_in_memory(scene: Scene, floor: Sequence[float], rounds: Sequence[_Round]) -> None:
    times = [_told(done.reply) for done in rounds]
    asked = [done.prompted - at for done, (at, _) in zip(rounds, times, strict=True)]
    decided = [at - done.accepted for done, (_, at) in zip(rounds, times, strict=True)]
    replied = [done.replied - done.reacted for done in rounds]
    count = f"{len(rounds)} each, taking turns with the floor"
    for name, took, bound, what in (
        ("asked", asked, 0.6, "runtime asks -> question in the person's /sync"),
        ("decided", decided, 0.25, "the person's ✅ is answered -> the runtime has the decision"),
        ("reply", replied, 1.3, "the person's ✅ -> the reply to it in /sync"),
    ):
        note = f"{what} / floor's echo; {count}"
        scene.figures.add(f"approval_{name}_ratio", p50(took) / p50(floor), note, at_most(bound))
        scene.figures.add(f"approval_{name}_p50_ms", ms(p50(took)), what)
        scene.figures.add(f"approval_{name}_p95_ms", ms(p95(took)), what)


async def on_app_server(stage: Stage) -> None:
    """Approvals of a real tool, the same turn driven directly, and the floor, taking turns."""
    scene, room = stage.scene, stage.rooms[5]
    conversation = await stage.letta.start_conversation(stage.agents[-1])
    floor: list[float] = []
    direct: list[DirectApproval] = []
    rounds: list[_Round] = []
    for number in range(-_WARM_UP, scene.plan.approvals):
        echoed = await echo(scene.person, await floor_room(scene))
        driven = await stage.letta.approved_turn(conversation, _command(scene), f"$tool-{number}")
        await asyncio.sleep(BREATH)
        done = await _approve(scene.person, room, _command(scene), "tool said:")
        await asyncio.sleep(BREATH)
        if number >= 0:
            floor.append(echoed)
            direct.append(driven)
            rounds.append(done)
    _report_on_app_server(scene, floor, direct, rounds)


def _report_on_app_server(
    scene: Scene,
    floor: Sequence[float],
    direct: Sequence[DirectApproval],
    rounds: Sequence[_Round],
) -> None:
    count = f"{len(rounds)} each, taking turns"
    asked = [done.prompted - done.sent for done in rounds]
    driven = [turn.asked for turn in direct]
    replied = [done.replied - done.reacted for done in rounds]
    rest = [turn.rest for turn in direct]
    for name, ours, theirs, what in (
        ("asked", asked, driven, "the person's message -> question in /sync, App Server"),
        ("reply", replied, rest, "the person's ✅ -> the tool's result in /sync, App Server"),
    ):
        ratio = p50(ours) / (p50(floor) + p50(theirs))
        note = f"{what} / (floor + the same without Matrix); {count}"
        scene.figures.add(f"approval_app_server_{name}_ratio", ratio, note, at_most(1.3))
        scene.figures.add(f"approval_app_server_{name}_p50_ms", ms(p50(ours)), what)
        scene.figures.add(f"approval_app_server_{name}_p95_ms", ms(p95(ours)), what)


async def _approve(person: Person, room: str, text: str, reply: str) -> _Round:
    """Say `text`, allow the tool that this leads to, wait for a reply that begins with `reply`."""
    with person.record(room) as recording:
        sent = time.monotonic()
        event_id = await person.say(room, text)
        question = await recording.answer_to(event_id, lambda seen: seen.beside == "approval")
        await asyncio.sleep(_THINKING)
        reacted = time.monotonic()
        await person.react(room, str(question.event["event_id"]), "✅")
        accepted = time.monotonic()
        replied = await recording.answer_to(event_id, lambda seen: seen.text.startswith(reply))
    return _Round(sent, question.at, reacted, accepted, replied.at, replied.text)


def _command(scene: Scene) -> str:
    """A call that the App Server does not allow by itself, because it writes."""
    return f"tool:Bash:touch {scene.directory / f'approved-{next(_numbers)}'} && echo done"


def _told(reply: str) -> tuple[float, float]:
    """When the in-memory runtime asked, and when it was answered."""
    match = _times.match(reply)
    if match is None:
        raise ValueError(f"an approved tool's reply tells no times: {reply}")
    return float(match[1]), float(match[2])
