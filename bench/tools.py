"""What showing an agent's tools costs: the same answers in a room that shows them and in one that
does not."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import Target, at_most, ms, p50
from bench.person import Person
from bench.scene import Scene

_SETTLE = 0.5
_WARM_UP = 1
_SCRIPTS = (("quick", "tool:0", 2.0), ("long", "tool:1", 3.0))
"""Names, words, most events: a tool that is over at once, and one that is shown while it runs."""

_returned = re.compile(r"returned (\S+)")


@dataclass(frozen=True, slots=True)
class _Answer:
    """Seconds from the tool's result to the whole reply in /sync, and events of the answer."""

    delay: float
    events: int


async def measure(scene: Scene, shown: str, hidden: str) -> None:
    """Answers in the room `shown`, where tools are shown, and in `hidden`."""
    await _switch_off(scene.person, hidden)
    for name, words, most_events in _SCRIPTS:
        answers: dict[str, list[_Answer]] = {shown: [], hidden: []}
        for number in range(-_WARM_UP, scene.plan.tool_turns):
            for room in answers:
                answer = await _ask(scene.person, room, f"{words} number {number}.")
                answers[room] += [answer] if number >= 0 else []
        _report(scene, name, answers[shown], answers[hidden], at_most(most_events))


def _report(
    scene: Scene, name: str, shown: Sequence[_Answer], hidden: Sequence[_Answer], most: Target
) -> None:
    add = scene.figures.add
    with_tools, without = (p50([answer.delay for answer in took]) for took in (shown, hidden))
    note = f"tool's result -> whole reply, {name} tool shown / hidden; {len(shown)} each"
    add(f"tools_{name}_delay_ratio", with_tools / without, note, at_most(1.25))
    add(f"tools_{name}_delay_p50_ms", ms(with_tools), "tool's result -> whole reply, shown")
    events = sum(answer.events for answer in shown) / len(shown)
    note = f"Matrix events per answer with a {name} tool, trace and edits included"
    add(f"tools_{name}_events", events, note, most)


async def _ask(person: Person, room: str, text: str) -> _Answer:
    with person.record(room) as recording:
        event_id = await person.say(room, text)
        reply = await recording.answer_to(event_id, lambda seen: not seen.beside and seen.final)
        await asyncio.sleep(_SETTLE)
    match = _returned.match(reply.text)
    if match is None:
        raise ValueError(f"a reply tells no time: {reply.text}")
    mine = [seen for seen in recording.sightings if seen.answers == event_id]
    return _Answer(reply.at - float(match[1]), len(mine))


async def _switch_off(person: Person, room: str) -> None:
    with person.record(room) as recording:
        command = await person.say(room, "!tools off")
        await recording.answer_to(command, lambda _: True)
