"""What was said around a message that its agent does not know yet: in a thread that is new to it,
or in a group where it is mentioned."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.identifiers import is_ours
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.conversations.new_turns import sent_at, thread_of
from letta_matrix.conversations.readable import SAID, quotable
from letta_matrix.conversations.roster import Roster
from letta_matrix.matrix.content import BESIDE, MARKER
from letta_matrix.matrix.events import Event, RawEvent, newest_content
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.room_reading import Page
from letta_matrix.store.agents import Agent
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Turn, TurnStore

log = structlog.get_logger()


_PATIENCE = 10.0
_FILTER = {"types": list(SAID)}
_AROUND, _PAGE, _PAGES = 40, 100, 3
"""Events asked for: many of a room's are edits, or stand in threads."""

_MARKS = {
    True: "[Context, not addressed to you now: what came before in this thread]",
    False: "[Context, not addressed to you now: the last messages of this room]",
}
_MOST_BYTES = 8_000
_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Context:
    """Messages before a turn's own, oldest first; `root`, if known, is that of its thread."""

    events: tuple[RawEvent, ...] = ()
    root: RawEvent | None = None
    in_thread: bool = False

    @property
    def all(self) -> tuple[RawEvent, ...]:
        return self.events if self.root is None else (self.root, *self.events)

    def block(self, shown: Callable[[RawEvent], tuple[str, str]]) -> str:
        """A Markdown quote of it, "" for nothing; `shown` gives an event's author and words.

        At most 8,000 bytes: what is oldest goes first, the thread's root last. Only an author can
        stand at the start of a line, so that no message speaks for another.
        """
        entries = [_entry(*shown(event)) for event in self.all]
        kept = entries[:1] if self.root is not None else []
        room = _MOST_BYTES - sum(map(_size, kept))
        newest = list[str]()
        for entry in reversed(entries[len(kept) :]):
            room -= _size(entry)
            if room < 0:
                break
            newest.append(entry)
        lines = [*kept, *reversed(newest)]
        return "".join([f"> {_MARKS[self.in_thread]}\n", *lines, "\n"]) if lines else ""


@part
class Contexts:
    """Reads contexts from the homeserver, as the agent that is to be told: what it may not see,
    what was removed and what came before its invitation is not in them (a thread's root may be),
    nor what came before whoever writes may read the room."""

    _config: Config
    _homeserver: Homeserver
    _rooms: Rooms
    _turns: TurnStore

    async def of(self, turn: Turn, agent: Agent, roster: Roster, *, several: bool) -> Context:
        """The context of a turn. `several`: others talk there too, so that an agent misses some
        of what is said between its turns; the `roster` tells what its sender may read."""
        if not turn.thread_id or turn.hops:
            return Context()
        intent = self._homeserver.acting_as(agent.user_id)
        horizon = await roster.readable_since(turn.room_id, turn.sender, agent.user_id)
        try:
            async with asyncio.timeout(_PATIENCE):
                if turn.thread_id == turn.event_id:
                    return await self._in_group(turn, intent, horizon)
                return await self._in_thread(turn, intent, horizon, several=several)
        except (MatrixRequestError, HomeserverUnavailable, TimeoutError) as error:
            log.info("a context is left out", turn=turn.turn_id, reason=str(error))
            return Context()

    async def _in_thread(
        self, turn: Turn, intent: Intent, horizon: float, *, several: bool
    ) -> Context:
        most, root = self._config.conversations.thread_context, None
        last = await self._turns.last_asked(turn.place)
        if not most or (last is not None and not several):
            return Context()
        page = await intent.thread(turn.room_id, turn.thread_id, limit=_PAGE)
        since = max(self._rooms.since(turn.room_id, intent.user_id), horizon)
        said = self._said(_before(turn.event_id, turn.sent_at, page.events), since)
        if last is None:
            root = await self._root(turn, intent, horizon)
        else:
            # The agent has its own words, and what it was asked.
            others = [event for event in said if event.get("sender") != intent.user_id]
            said = _after(last, others)
        return Context(tuple(said[:most][::-1]), root, in_thread=True)

    async def _root(self, turn: Turn, intent: Intent, horizon: float) -> RawEvent | None:
        try:
            root = await intent.event(turn.room_id, turn.thread_id)
        except MatrixRequestError:
            return None
        is_theirs = root.get("sender") == turn.sender or sent_at(root) >= horizon
        return root if is_theirs and self._speaks(root) else None

    async def _in_group(self, turn: Turn, intent: Intent, horizon: float) -> Context:
        most = self._config.conversations.group_context
        if not most:
            return Context()
        around = await intent.around(turn.room_id, turn.event_id, limit=_AROUND, filters=_FILTER)
        page, said = around.before, list[RawEvent]()
        since = max(self._rooms.since(turn.room_id, intent.user_id), horizon)
        for _ in range(_PAGES):
            new = self._said(page.events, since)
            said += [event for event in new if not thread_of(event)]
            if len(said) >= most or not _goes_on(page, since):
                break
            page = await intent.messages(
                turn.room_id, limit=_PAGE, before=page.end, filters=_FILTER
            )
        return Context(tuple(said[:most][::-1]))

    def _said(self, events: Iterable[RawEvent], since: float) -> list[RawEvent]:
        return [
            event
            for event in events
            if sent_at(event) >= since
            and not _is_beside(newest_content(event))
            and self._may_speak(event)
            and self._speaks(event)
        ]

    def _may_speak(self, event: RawEvent) -> bool:
        return self._is_by_us(event) or self._config.role_of(str(event.get("sender"))) != "block"

    def _speaks(self, event: RawEvent) -> bool:
        return not Event(event).is_edit and bool(quotable(event, is_ours=self._is_by_us(event)))

    def _is_by_us(self, event: RawEvent) -> bool:
        return is_ours(str(event.get("sender")), self._config.bot_user_id)


def _goes_on(page: Page, since: float) -> bool:
    return bool(page.end and page.events) and sent_at(page.events[-1]) >= since


def _before(event_id: str, then: float, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of some events, newest first, that came before one of them, sent `then`."""
    for place, event in enumerate(events):
        if event.get("event_id") == event_id:
            return events[place + 1 :]
    return [event for event in events if sent_at(event) <= then]


def _after(last: Turn, events: list[RawEvent]) -> list[RawEvent]:
    """Those of some events, newest first, that came after a turn's own."""
    for place, event in enumerate(events):
        if event.get("event_id") == last.event_id:
            return events[:place]
    return [event for event in events if sent_at(event) > last.sent_at]


def _entry(author: str, words: str) -> str:
    first, *others = f"{author}: {words}".split("\n")
    return "".join([f"> {first}\n", *(f"> {_INDENT}{line}".rstrip() + "\n" for line in others)])


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _is_beside(content: Mapping[str, Any]) -> bool:
    """A notice, or a question or trace of ours beside a reply."""
    return content.get("msgtype") == "m.notice" or BESIDE in mapping(content.get(MARKER))
