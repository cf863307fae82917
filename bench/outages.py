"""What a person sees of a bridge that was down: nothing lost, nothing twice, soon."""

import asyncio
import time

from bench.figures import at_least, at_most, p50
from bench.turns import STREAM_WORDS, Stage, words

MESSAGES = 25
_KILLED_AFTER = 4.2
_SETTLE = 2.0


async def messages_while_down(stage: Stage) -> None:
    """Messages sent to one room while there is no bridge."""
    room, person = stage.rooms[2], stage.person
    stage.bridge.stop()
    texts = [f"while down {number:02d}." for number in range(MESSAGES)]
    with person.record(room) as recording:
        sent = [await person.say(room, text) for text in texts]
        started = time.monotonic()
        await stage.bridge.start()
        for text in texts:
            await recording.until(lambda sighting, text=text: sighting.text == f"echo: {text}", 120)
        took = time.monotonic() - started
        await asyncio.sleep(_SETTLE)
    answered = [seen.answers for seen in recording.sightings if seen.edits is None]
    add = stage.scene.figures.add
    note = f"{MESSAGES} messages while down: start -> all answered"
    add("down_answered_s", took, note, at_most(18))
    note = "1: each of them answered once, in order"
    add("down_exactly_once_in_order", float(answered == sent), note, at_least(1))


async def killed_in_mid_stream(stage: Stage) -> None:
    """SIGKILL late in a 5 s answer, and an immediate start."""
    took: list[float] = []
    same: list[bool] = []
    for number in range(stage.scene.plan.kills):
        seconds, whole = await _killed(stage, f"slow:{STREAM_WORDS} killed {number}.")
        took.append(seconds)
        same.append(whole)
    add = stage.scene.figures.add
    note = "kill -9 in mid-stream: start (or the stream's end, if later) -> same message complete"
    add("kill_completed_s", p50(took), note, at_most(2.0))
    note = "1: always the same message, no second one, the model asked once"
    add("kill_exactly_once", float(all(same)), note, at_least(1))


async def _killed(stage: Stage, text: str) -> tuple[float, bool]:
    room = stage.rooms[3]
    with stage.person.record(room) as recording:
        sent = await stage.person.say(room, text)
        await recording.until(lambda sighting: sighting.text.startswith("word1"))
        await asyncio.sleep(stage.model.began(text) + _KILLED_AFTER - time.monotonic())
        stage.bridge.kill()
        started = time.monotonic()
        await stage.bridge.start()
        whole = await recording.until(lambda sighting: sighting.text == words(STREAM_WORDS))
        await asyncio.sleep(_SETTLE)
    mine = [sighting for sighting in recording.sightings if sighting.answers == sent]
    messages = [sighting for sighting in mine if sighting.edits is None]
    once = len(messages) == 1 and stage.model.count(text) == 1
    return whole.at - max(started, stage.model.ended[text]), once
