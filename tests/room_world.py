"""Two rooms with two agents, on a homeserver in memory, and the model of what should come of it."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fake_homeserver import FakeHomeserver
from tests.room_model import AGENTS, GHOSTS, GROUP, OWN, House, Said
from tests.scripts import DONE, until
from tests.stage import Stage
from tests.waiting import eventually, settled

from letta_matrix.runtimes.protocol import TextDelta, TurnEvent, TurnRequest
from letta_matrix.store.turns import TurnKind

BASE = int(time.time() * 1000) - 60_000


class RoomWorld:
    """A bridge, and its rooms as they should be (`house`). The agents work on what they are asked
    until `finish`."""

    def __init__(self, database: Path, empty: Path) -> None:
        shutil.copy(empty, database)
        self._database = database
        self.house = House()
        self.said: list[Said] = []
        self.answers: list[Said] = []
        self.coming: dict[str, float] = {}
        self.queue: list[tuple[dict[str, Any], Said | None]] | None = None
        self.counts = 0

    def now(self) -> int:
        """The time of the next event, ten milliseconds after the last."""
        self.counts += 1
        return BASE + 10 * self.counts

    async def begin(self) -> None:
        self.fake = FakeHomeserver()
        await self.fake.start()
        self.fake.guarded = {GROUP}
        self.fake.members = {room: set(people) for room, people in self.house.people.items()}
        self.stage = Stage(self.fake, self._database)
        await self.stage.open(bot_replies=0, person_per_minute=10_000, person_waiting=10_000)
        await self.stage.add(1)
        await self.stage.add(2)
        self.free = asyncio.Event()
        self.joins = self.fake.hold(rf"POST .*/rooms/{GROUP}/join")
        self.joins.set()
        self.stage.runtime.script = self._work

    def _work(self, request: TurnRequest) -> Iterator[TurnEvent | float]:
        yield from until(self.free)
        yield TextDelta("0", _answer(_words(request.text)))
        yield DONE

    def pick(self, number: int, room_id: str, *, plain: bool) -> Said | None:
        known = [
            one
            for one in (*self.said, *self.answers)
            if one.room_id == room_id and not one.removed and not (plain and one.thread)
        ]
        return known[number % len(known)] if known else None

    def _is_pushed(self, room_id: str) -> bool:
        return room_id == OWN or bool(self.house.inside)

    async def happen(self, event: dict[str, Any], said: Said | None) -> None:
        self.fake.events.setdefault(event["room_id"], []).append(event)
        if not self._is_pushed(event["room_id"]):
            return
        if self.queue is not None:
            self.queue.append((event, said))
            return
        self._tell_house(event, said)
        await self.push([event])

    def _tell_house(self, event: dict[str, Any], said: Said | None) -> None:
        if said is None:
            return
        if event is said.event:
            self.house.arrive(said)
        elif said.arrived and "m.new_content" in event["content"] and not said.removed:
            named = event["content"]["m.new_content"].get("m.mentions", {}).get("user_ids", [])
            self.house.add(said, set(named), float(event["origin_server_ts"]))

    async def push(self, events: list[dict[str, Any]]) -> None:
        await self.stage.admit(*events)
        await self._settle()

    async def flush(self) -> None:
        queue, self.queue = self.queue or [], None
        for event, said in queue:
            self._tell_house(event, said)
        if queue:
            await self.push([event for event, _ in queue])

    async def redact(self, event: dict[str, Any], said: Said | None) -> None:
        if said is None:
            await self.happen(event, None)
            return
        said.removed = True
        self.fake.redact(said.room_id, said.event_id)
        await self.flush()
        await self.happen(event, said)
        if said.arrived:
            for agent_id, asked in said.asked.items():
                asked.done = asked.done or not asked.text
                for turn in self.stage.dispatcher.queues.unfinished():
                    if (turn.event_id, turn.agent_id) == (said.event_id, agent_id) and asked.text:
                        await self.stage.dispatcher.queues.over(turn.turn_id)
            await self._settle()

    async def invite(self, event: dict[str, Any]) -> None:
        self.fake.events.setdefault(GROUP, []).append(event)
        await self.stage.admit(event)
        if self.joins.is_set():
            await self.come()

    async def come(self) -> None:
        """Those who were invited are in, and have read what was said since."""
        await eventually(lambda: not self._invites())
        for agent_id, since in self.coming.items():
            self.house.inside[agent_id] = since
            self.house.sent_away_by.pop(agent_id, None)
            for said in self.said:
                if said.room_id == GROUP and said.sent_at >= since:
                    self.house.arrive(said, [agent_id])
        self.coming.clear()
        await self._settle()

    def _invites(self) -> list[Any]:
        unfinished = self.stage.dispatcher.queues.unfinished()
        return [turn for turn in unfinished if turn.kind is TurnKind.INVITE]

    async def send_away(self, agent_id: str, event: dict[str, Any]) -> None:
        await self.flush()
        self.fake.members[GROUP].discard(GHOSTS[agent_id])
        self.fake.events.setdefault(GROUP, []).append(event)
        del self.house.inside[agent_id]
        self.house.sent_away_by[agent_id] = event["sender"]
        await self.push([event])

    async def restart(self) -> None:
        await self.flush()
        await self.stage.recover()
        await self.stage.parts.surroundings.look_at_all()
        self.house.talks = {
            (agent_id, said.room_id, asked.thread)
            for said in self.said
            for agent_id, asked in said.asked.items()
            if asked.text or not asked.done
        }
        await self._settle()

    async def finish(self) -> None:
        await self.flush()
        self.free.set()
        self.joins.set()
        await self.come()
        await self.stage.idle()
        self._look()
        for said in self.said:
            for agent_id, asked in said.asked.items():
                asked.done = True
                if said.room_id == GROUP and agent_id not in self.house.inside:
                    asked.left = True
        self._find_answers()
        self.free.clear()

    def _find_answers(self) -> None:
        known = {one.event_id for one in self.answers}
        for room_id in (OWN, GROUP):
            for event in self.fake.messages(room_id):
                content = event["content"]
                if event["sender"] not in AGENTS or event["event_id"] in known:
                    continue
                relation = content.get("m.relates_to", {})
                if content["msgtype"] != "m.text" or relation.get("rel_type") == "m.replace":
                    continue
                thread = relation["event_id"] if relation.get("rel_type") == "m.thread" else ""
                self.answers.append(Said(event, [content["body"]], thread=thread))

    async def _settle(self) -> None:
        """Wait until at each place an agent works, or nothing waits; and see what was asked."""
        await eventually(self._is_quiet, what="quiet")
        await settled()
        await eventually(self._is_quiet, what="quiet")
        self._look()

    def _is_quiet(self) -> bool:
        asked = {(one.message_id, one.agent_id) for one in self.stage.runtime.asked}
        for queue in self.stage.dispatcher.queues._queues.values():
            if not queue:
                return False
            turn = queue[0]
            is_held = turn.kind is TurnKind.INVITE and not self.joins.is_set()
            is_working = (turn.message_id, turn.agent_id) in asked and turn.outcome is None
            if not is_held and not is_working:
                return False
        return True

    def _look(self) -> None:
        asked = {(one.message_id, one.agent_id): one for one in self.stage.runtime.asked}
        assert len(asked) == len(self.stage.runtime.asked), "asked twice"
        waiting = {
            (turn.event_id, turn.agent_id) for turn in self.stage.dispatcher.queues.unfinished()
        }
        for said in self.said:
            for agent_id, one in said.asked.items():
                request = asked.get((said.event_id, agent_id))
                if request is not None and not one.text:
                    assert not said.removed or one.done is False, "asked after it was removed"
                    one.text = said.text
                    assert _words(request.text) == one.text, "not as it was last corrected"
                    self._check_nothing_removed(request)
                    if one.thread:
                        self.house.talks.add((agent_id, said.room_id, one.thread))
                elif request is None and not one.done and (said.event_id, agent_id) not in waiting:
                    gone = not self.house.is_in(agent_id, said.room_id)
                    assert gone or said.removed, f"lost: {said}"
                    one.done, one.left = True, gone
        for event_id, agent_id in asked:
            wanted = [one for one in self.said if one.event_id == event_id]
            meant = any(agent_id in one.asked for one in wanted)
            assert meant, f"{agent_id} is not meant: {wanted}"

    def _check_nothing_removed(self, request: TurnRequest) -> None:
        for said in self.said:
            assert not (said.removed and said.text in request.text), "told what was removed"

    async def end(self) -> None:
        try:
            await self.finish()
            for said in self.said:
                for agent_id, asked in said.asked.items():
                    self._check(said, agent_id, left=asked.left)
        finally:
            await self.stage.close()
            await self.fake.stop()

    def _check(self, said: Said, agent_id: str, *, left: bool) -> None:
        # A turn that is followed again says its newest words: this runtime knows no others.
        told = [one for one in self._said_by(agent_id, said.room_id) if _answers(said) & {one}]
        assert len(told) <= 1, f"answered twice: {said}"
        if said.removed or (left and said.sender == self.house.sent_away_by.get(agent_id)):
            return
        if not left:
            assert len(told) == 1, f"not answered: {said}"
        elif not told:
            elsewhere = [body for room in self.fake.events for body in self.fake.bodies(room)]
            assert any("Invite me again" in body for body in elsewhere), f"not told: {said}"

    def _said_by(self, agent_id: str, room_id: str) -> list[str]:
        """What an agent's messages say, each in its last version."""
        shown: dict[str, str] = {}
        for event in self.fake.messages(room_id):
            content = event["content"]
            if event["sender"] == GHOSTS[agent_id]:
                target = content.get("m.relates_to", {}).get("event_id")
                is_edit = "m.new_content" in content
                shown[target if is_edit else event["event_id"]] = content["body"].removeprefix("* ")
        return list(shown.values())


def _words(text: str) -> str:
    return text.rpartition("\n")[2]


def _answer(text: str) -> str:
    """What is answered, without the words that were asked."""
    return text.replace("w", "d") + "."


def _answers(said: Said) -> set[str]:
    return set(map(_answer, said.texts))
