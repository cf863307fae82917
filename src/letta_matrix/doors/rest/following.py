"""A turn as it goes on: what its reply says so far, and how it ends."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from letta_matrix.common import clock
from letta_matrix.common.waiting import is_set
from letta_matrix.doors.rest.problems import Problem
from letta_matrix.doors.rest.services import Services
from letta_matrix.matrix.content import BESIDE
from letta_matrix.matrix.events import Event
from letta_matrix.operations.records import (
    Agent,
    Approval,
    OutboxEntry,
    OutboxKind,
    Outcome,
    Turn,
    TurnStatus,
)
from letta_matrix.operations.turn_lists import said_in

log = structlog.get_logger()

_FIRST_LOOK, _LAST_LOOK = 0.02, 0.5
"""Seconds between looks whether the turn is over; they grow until something comes of it."""

_ARRIVAL = 10.0
"""Seconds that the homeserver has to bring us what was said; before that there is no turn."""

_PROBLEMS = {
    Outcome.FAILED: ("agent-failed", "The agent's turn failed."),
    Outcome.STOPPED: ("turn-stopped", "The turn was stopped."),
    Outcome.EXPIRED: ("turn-stopped", "The message was too old when its turn came."),
    Outcome.DROPPED: ("turn-stopped", "The message was left unanswered."),
    Outcome.WITHDRAWN: ("turn-stopped", "The message, or its answer, was removed."),
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
        self._asked = set[str]()
        self._news = asyncio.Event()

    async def news(self, seconds: float, pause: float) -> AsyncGenerator[str | Approval | None]:
        """The whole text so far whenever it has grown, an approval once it is waited for, None
        after `pause` seconds of silence, until the turn is over or `seconds` have passed, but
        not before it can be asked for."""
        with self._api.toolbox.event_bus.listen(self._came):
            # What came meanwhile is newer than what was stored.
            stored = _stored(await self._api.outbox.of_turn(self._turn_id))
            self._parts = stored | self._parts
            async for one in self._looks(seconds, pause):
                yield one

    async def is_over(self) -> bool:
        return _is_over(await self._api.turns.get(self._turn_id))

    async def _looks(self, seconds: float, pause: float) -> AsyncGenerator[str | Approval | None]:
        spoke = clock.now()
        arrival, deadline = spoke + _ARRIVAL, spoke + seconds
        look, shown = _FIRST_LOOK, ""
        while True:
            turn = await self._api.turns.get(self._turn_id)
            due = deadline if turn is not None else max(deadline, arrival)
            now, text = clock.now(), "\n\n".join(self._parts.values())
            stopping = self._api.stopping.is_set()
            if text != shown or now - spoke >= pause or stopping:
                yield text if text != shown else None
                shown, spoke = text, now
            for approval in await pending(self._api, self._turn_id):
                if approval.key not in self._asked:
                    self._asked.add(approval.key)
                    yield approval
            if _is_over(turn) or now >= due or stopping:
                return
            heard = await is_set(self._news, min(look, due - now, pause))
            self._news.clear()
            look = _FIRST_LOOK if heard else min(look * 1.5, _LAST_LOOK)

    def _came(self, event: Mapping[str, Any]) -> None:
        here = (event.get("sender"), event.get("room_id"))
        if here == (self._agent.user_id, self._agent.room_id) and self._read(event):
            self._news.set()

    def _read(self, event: Mapping[str, Any]) -> bool:
        """Take the text of an event of the turn; False for others."""
        view = Event(event)
        marker = view.marker
        if event.get("type") != "m.room.message" or marker.get("turn_id") != self._turn_id:
            return False
        if BESIDE not in marker and view.content.get("msgtype") != "m.notice":
            self._parts[view.edited or str(event.get("event_id"))] = said_in(view.content)
        return True


def _is_over(turn: Turn | None) -> bool:
    return turn is not None and turn.status is TurnStatus.DONE


async def answer_of(api: Services, turn_id: str) -> Answered:
    """What a turn that is over has said. Raises Problem for one that ended without an answer."""
    turn = await api.turns.get(turn_id)
    entries = await api.outbox.of_turn(turn_id)
    notices = [
        said_in(e.content) for e in entries if e.kind in (OutboxKind.NOTICE, OutboxKind.OFFER)
    ]
    outcome = turn.outcome if turn is not None else None
    if outcome in _PROBLEMS:
        slug, text = _PROBLEMS[Outcome(outcome)]
        more = {"turn_id": turn_id, "answer": await api.outbox.reply_text(turn_id)}
        raise Problem(slug, " ".join([text, *notices]), more=more)
    said = [await api.outbox.reply_text(turn_id), *notices]
    return Answered("\n\n".join(filter(None, said)), _first(entries))


async def pending(api: Services, turn_id: str) -> list[Approval]:
    """The approvals that a turn waits for, the first asked first."""
    asked = await api.approval_store.of_turn(turn_id)
    return [one for one in asked if one.is_open]


def _stored(entries: list[OutboxEntry]) -> dict[str, str]:
    """What was sent of a reply and is known of its newest versions, by event id."""
    events: dict[int, str] = {}
    texts: dict[str, str] = {}
    for entry in entries:
        if entry.kind is OutboxKind.MESSAGE and entry.event_id is not None:
            events[entry.part] = entry.event_id
        if entry.kind in (OutboxKind.MESSAGE, OutboxKind.FINAL) and entry.part in events:
            texts[events[entry.part]] = said_in(entry.content)
    return texts


def _first(entries: list[OutboxEntry]) -> str | None:
    sent = (e.event_id for e in entries if e.kind is OutboxKind.MESSAGE and e.event_id is not None)
    return next(sent, None)
