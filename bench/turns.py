"""Turns through the App Server: ours from PUT to /sync, beside the same turn driven directly."""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from bench.bridge import Bridge
from bench.echoes import TOGETHER, echo
from bench.figures import at_most, ms, p50, p95
from bench.letta import DirectTurn, Letta, TimedModel
from bench.person import Answer, Person, Recording
from bench.scene import Scene
from letta_matrix.stack.synapse import SERVER_NAME

STREAM_WORDS = 50
"""Words of a long answer; the stub model says one every 0.1 s."""

_WARM_UP = 2
BREATH = 0.15
_SETTLE = 0.5
_numbers = itertools.count(1)


@dataclass(slots=True)
class Stage:
    """A bridge with the App Server behind it, and the rooms of its agents."""

    scene: Scene
    bridge: Bridge
    letta: Letta
    model: TimedModel
    agents: list[str]
    rooms: list[str] = field(default_factory=list[str])

    @property
    def person(self) -> Person:
        return self.scene.person


async def talk(stage: Stage, room: str) -> tuple[str, Answer]:
    """One new message and its answer."""
    text = f"hello {next(_numbers)}."
    return text, await stage.person.ask(room, text, f"echo: {text}")


async def one_by_one(stage: Stage) -> None:
    """Our turn, the direct turn and the floor's echo, taking turns."""
    rooms = stage.rooms[:TOGETHER]
    conversation = await stage.letta.start_conversation(stage.agents[-1])
    floor: list[float] = []
    direct: list[DirectTurn] = []
    ours: list[Answer] = []
    asked: list[str] = []
    with stage.person.record(rooms[0]) as recording:
        for number in range(-_WARM_UP, stage.scene.plan.turns):
            word = f"direct {number}."
            echoed = await echo(stage.person, stage.scene.floor_rooms[0])
            turn = await stage.letta.turn(conversation, word, f"$bench-{number}")
            # The App Server tidies up after a turn; the next one would wait for that.
            await asyncio.sleep(BREATH)
            text, answer = await talk(stage, rooms[0])
            await asyncio.sleep(BREATH)
            if number >= 0:
                floor.append(echoed)
                direct.append(turn)
                asked.append(text)
                ours.append(answer)
        await asyncio.sleep(_SETTLE)
    _report_turns(stage, floor, direct, ours)
    _report_economy(stage, recording, asked, ours)


def _report_turns(
    stage: Stage, floor: Sequence[float], direct: Sequence[DirectTurn], ours: Sequence[Answer]
) -> None:
    add = stage.scene.figures.add
    echo_s, turn_s = p50(floor), p50([turn.full for turn in direct])
    full_s, first_s = p50([answer.full for answer in ours]), p50([answer.first for answer in ours])
    token_s = p50([turn.first for turn in direct])
    done_s = p50([answer.done for answer in ours])
    count = f"{len(ours)} turns each, taking turns"
    note = f"our turn, to the last edit, - direct turn - floor; {count}"
    add("turn_overhead_p50_ms", ms(done_s - turn_s - echo_s), note, at_most(15))
    note = "the same with the whole text visible instead of the last edit"
    add("turn_text_overhead_p50_ms", ms(full_s - turn_s - echo_s), note)
    add("first_text_p50_ms", ms(first_s), "human's PUT -> first text in /sync", at_most(581))
    add(
        "first_text_ratio",
        first_s / (echo_s + token_s),
        "first text / (floor + the App Server's own first token)",
        at_most(1.15),
    )
    add("full_text_p50_ms", ms(full_s), "human's PUT -> whole text in /sync", at_most(581))
    full_p95 = p95([answer.full for answer in ours])
    add("full_text_p95_ms", ms(full_p95), "human's PUT -> whole text in /sync", at_most(732))
    add("turn_direct_p50_ms", ms(turn_s), "the same turn over the App Server's WebSocket")
    add("turn_direct_first_p50_ms", ms(token_s), "its first text")
    add("turn_floor_p50_ms", ms(echo_s), "the floor's echo, measured in between")


def _report_economy(
    stage: Stage, recording: Recording, asked: Sequence[str], ours: Sequence[Answer]
) -> None:
    ids = {answer.event_id for answer in ours}
    events = sum(sighting.answers in ids for sighting in recording.sightings)
    calls = [stage.model.count(text) for text in asked]
    add = stage.scene.figures.add
    add("model_calls_per_message", max(calls), "the most for any message", at_most(1))
    add("events_per_answer", events / len(ours), "Matrix events, on average", at_most(2))


async def together(stage: Stage) -> None:
    """Ten rooms at the same moment."""
    took: list[float] = []
    for _ in range(stage.scene.plan.together_rounds):
        rooms = stage.rooms[:TOGETHER]
        answers = await asyncio.gather(*[talk(stage, room) for room in rooms])
        took += [answer.full for _, answer in answers]
    note = f"{TOGETHER} rooms at the same moment, App Server: whole text"
    stage.scene.figures.add("together_p50_s", p50(took), note, at_most(2.0))
    stage.scene.figures.add("together_p95_s", p95(took), note, at_most(2.4))


async def stream(stage: Stage) -> None:
    """An answer that takes the model 5 s to say."""
    first: list[float] = []
    full: list[float] = []
    edits: list[int] = []
    for _ in range(stage.scene.plan.streams):
        text = f"slow:{STREAM_WORDS} number {next(_numbers)}."
        with stage.person.record(stage.rooms[1]) as recording:
            answer = await stage.person.ask(stage.rooms[1], text, words(STREAM_WORDS))
            await asyncio.sleep(_SETTLE)
        began, ended = stage.model.began(text), stage.model.ended[text]
        first.append(answer.sent_at + answer.first - began)
        full.append(answer.sent_at + answer.full - ended)
        mine = [seen for seen in recording.sightings if seen.answers == answer.event_id]
        edits.append(sum(seen.edits is not None for seen in mine))
    add = stage.scene.figures.add
    add(
        "stream_first_text_ms",
        ms(p50(first)),
        "5 s stream: first token -> first text",
        at_most(128),
    )
    add("stream_edits", p50(edits), "5 s stream: edits", at_most(10))
    add("stream_full_text_ms", ms(p50(full)), "5 s stream: end -> whole text", at_most(127))


def words(count: int) -> str:
    """What is said to `slow:COUNT`, as a message's body has it."""
    return " ".join(f"word{number}" for number in range(1, count + 1))


async def discovery(stage: Stage) -> None:
    """A rename in the App Server until the ghost's display name has changed."""
    took: list[float] = []
    agent_id = stage.agents[0]
    ghost = f"@{agent_id.replace('-', '_')}:{SERVER_NAME}"
    path = f"profile/{quote(ghost)}/displayname"
    for number in range(stage.scene.plan.renames):
        # The poll's phase must not follow ours.
        await asyncio.sleep(random.uniform(0.3, 1.0))
        name = f"Renamed {number}"
        started = time.monotonic()
        await stage.letta.rename(agent_id, name)
        async with asyncio.timeout(30):
            while await _displayname(stage, path) != name:  # noqa: ASYNC110 - Synapse's state
                await asyncio.sleep(0.02)
        took.append(time.monotonic() - started)
    note = f"rename in the App Server -> ghost's display name, {len(took)} times"
    stage.scene.figures.add("discovery_p95_s", p95(took), note, at_most(1.0))
    stage.scene.figures.add("discovery_p50_s", p50(took), note)


async def _displayname(stage: Stage, path: str) -> str:
    return str((await stage.person.call("GET", path)).get("displayname"))
