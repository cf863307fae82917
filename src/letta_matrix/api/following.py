"""A turn as it goes on: what its reply says so far, and how it ends."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from letta_matrix.api.problems import Problem
from letta_matrix.api.services import Services
from letta_matrix.matrix.content import BESIDE, CURSOR, MARKER
from letta_matrix.matrix.events import mapping
from letta_matrix.store.agents import Agent
from letta_matrix.store.outbox import OutboxEntry, OutboxKind
from letta_matrix.store.turns import Outcome, TurnStatus
from letta_matrix.waiting import is_set

_FIRST_LOOK, _LAST_LOOK = 0.02, 0.5
"""Seconds between looks whether the turn is over; they grow until something comes of it."""

_PROBLEMS = {
    Outcome.FAILED: ("agent-failed", "The agent's turn failed."),
    Outcome.STOPPED: ("turn-stopped", "The turn was stopped."),
    Outcome.EXPIRED: ("turn-stopped", "The message was too old when its turn came."),
    Outcome.DROPPED: ("turn-stopped", "The message was left unanswered."),
}


@dataclass(frozen=True, slots=True)
class Answered:
    """What an agent answered, and in which event it begins, if it said anything."""

    answer: str
    event_id: str | None


class Following:
    """Follows the turn of an agent in its own room."""

    def __init__(self, api: Services, agent: Agent, turn_id: str) -> None:
        self._api = api
        self._agent = agent
        self._turn_id = turn_id
        self._parts: dict[str, str] = {}
        self._news = asyncio.Event()

    async def texts(self, seconds: float, pause: float) -> AsyncGenerator[str | None]:
        """The whole text so far whenever it has grown, None after `pause` seconds of silence,
        until the turn is over or `seconds` have passed."""
        with self._api.toolbox.arrivals.listen(self._came):
            # What came meanwhile is newer than what was stored.
            stored = _stored(await self._api.outbox.of_turn(self._turn_id))
            self._parts = stored | self._parts
            async for text in self._looks(seconds, pause):
                yield text

    async def is_over(self) -> bool:
        turn = await self._api.turns.get(self._turn_id)
        return turn is not None and turn.status is TurnStatus.DONE

    async def _looks(self, seconds: float, pause: float) -> AsyncGenerator[str | None]:
        spoke = time.monotonic()
        deadline, look, shown = spoke + seconds, _FIRST_LOOK, ""
        while True:
            over = await self.is_over()
            now, text = time.monotonic(), "\n\n".join(self._parts.values())
            if text != shown or now - spoke >= pause:
                yield text if text != shown else None
                shown, spoke = text, now
            if over or now >= deadline or self._api.stopping.is_set():
                return
            heard = await is_set(self._news, min(look, deadline - now, pause))
            self._news.clear()
            look = _FIRST_LOOK if heard else min(look * 1.5, _LAST_LOOK)

    def _came(self, event: Mapping[str, Any]) -> None:
        here = (event.get("sender"), event.get("room_id"))
        if here == (self._agent.user_id, self._agent.room_id) and self._read(event):
            self._news.set()

    def _read(self, event: Mapping[str, Any]) -> bool:
        """Take the text of an event of the turn; False for others."""
        content = mapping(event.get("content"))
        marker = mapping(content.get(MARKER))
        if event.get("type") != "m.room.message" or marker.get("turn_id") != self._turn_id:
            return False
        if BESIDE not in marker and content.get("msgtype") != "m.notice":
            relation = mapping(content.get("m.relates_to"))
            edited = relation.get("rel_type") == "m.replace"
            target = relation.get("event_id") if edited else event.get("event_id")
            self._parts[str(target)] = _body(content)
        return True


async def answer_of(api: Services, turn_id: str) -> Answered:
    """What a turn that is over has said. Raises Problem for one that ended without an answer."""
    turn = await api.turns.get(turn_id)
    entries = await api.outbox.of_turn(turn_id)
    notices = [_body(e.content) for e in entries if e.kind in (OutboxKind.NOTICE, OutboxKind.OFFER)]
    outcome = turn.outcome if turn is not None else None
    if outcome in _PROBLEMS:
        slug, text = _PROBLEMS[Outcome(outcome)]
        more = {"turn_id": turn_id, "answer": await api.outbox.reply_text(turn_id)}
        raise Problem(slug, " ".join([text, *notices]), more=more)
    said = [await api.outbox.reply_text(turn_id), *notices]
    return Answered("\n\n".join(filter(None, said)), _first(entries))


def _stored(entries: list[OutboxEntry]) -> dict[str, str]:
    """What was sent of a reply and is known of its newest versions, by event id."""
    events: dict[int, str] = {}
    texts: dict[str, str] = {}
    for entry in entries:
        if entry.kind is OutboxKind.MESSAGE and entry.event_id is not None:
            events[entry.part] = entry.event_id
        if entry.kind in (OutboxKind.MESSAGE, OutboxKind.FINAL) and entry.part in events:
            texts[events[entry.part]] = _body(entry.content)
    return texts


def _first(entries: list[OutboxEntry]) -> str | None:
    sent = (e.event_id for e in entries if e.kind is OutboxKind.MESSAGE and e.event_id is not None)
    return next(sent, None)


def _body(content: Mapping[str, object]) -> str:
    newest = mapping(content.get("m.new_content")) or content
    return str(newest.get("body", "")).removesuffix(CURSOR).rstrip()
