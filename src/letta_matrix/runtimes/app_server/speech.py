"""What an agent says by itself: turns that were not started here."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Self

from letta_matrix.common.json_fields import Json, id_of, mapping
from letta_matrix.runtimes.app_server.connection import Connection
from letta_matrix.runtimes.app_server.feeds import Feed, Mark
from letta_matrix.runtimes.app_server.frames import IDLE, Scope, parse, time_of
from letta_matrix.runtimes.app_server.history import (
    conversations,
    is_ours,
    is_prompt,
    own_text,
    pages,
)
from letta_matrix.runtimes.faults import ConversationGone
from letta_matrix.runtimes.speech import Said, Speech

LIST_PAGE = 50
MAX_LIST_PAGES = 10
MAX_CONVERSATIONS = 20
"""Conversations read in one look; the others wait for the next."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT")


@dataclass(frozen=True, slots=True)
class Place:
    """How far an agent's speech was told: what ended by `at`, in the conversations of `behind`
    only what ended by the time that stands there. Times are the App Server's, ISO 8601."""

    at: str
    behind: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def parse(cls, cursor: str) -> Self | None:
        """The place a cursor names, None if it names none; "" is before anything was said."""
        if not cursor:
            return cls("")
        data = parse(cursor.encode(errors="replace")) or {}
        at, behind = data.get("at"), mapping(data.get("behind"))
        if not isinstance(at, str) or (at and not _TIME.match(at)):
            return None
        return cls(at, {key: time for key, time in behind.items() if isinstance(time, str)})

    def __str__(self) -> str:
        return json.dumps({"at": self.at, "behind": dict(self.behind)})

    def of(self, conversation_id: str) -> str:
        return self.behind.get(conversation_id, self.at)


@dataclass(slots=True)
class HeardTurn:
    """A stored turn: whether Matrix prompted it, what was said in it, when it began to end."""

    ours: bool = False
    texts: list[str] = field(default_factory=list[str])
    message_id: str = ""
    end: str = ""

    @property
    def text(self) -> str:
        return "\n\n".join(self.texts)


class SpeechReader:
    """Reads stored conversations for speech, with a bounded number of requests per look."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def said_since(self, agent_id: str, cursor: str | None) -> Said:
        """See `AgentRuntime.said_since`; there is more while a turn runs or conversations wait to
        be read.

        Raises:
            RuntimeUnavailable, RuntimeRefused: as `Connection.call`.
        """
        place = Place.parse(cursor) if cursor is not None else None
        changed = await self._changed(agent_id, place.at if place else None)
        now = max(changed.values(), default=place.at if place else "")
        if place is None:
            return Said((), str(Place(now)))
        now = max(now, place.at)
        last = {**dict.fromkeys(place.behind, ""), **changed}
        waiting = sorted(last, key=last.__getitem__)
        behind = {talk: place.of(talk) for talk in waiting[MAX_CONVERSATIONS:]}
        heard: dict[tuple[str, str], Speech] = {}
        for talk in waiting[:MAX_CONVERSATIONS]:
            with suppress(ConversationGone):
                reached = await self._listen(Scope(agent_id, talk), place.of(talk), now, heard)
                if reached is not None:
                    behind[talk] = reached
        speeches = [heard[key] for key in sorted(heard)]
        return Said(speeches, str(Place(now, behind)), more=bool(behind))

    async def _changed(self, agent_id: str, since: str | None) -> dict[str, str]:
        """Conversations with a message newer than `since`, by the time of their last one.

        The default one is in no listing: the agent's last run is its last message.
        """
        agent = await self._connection.call("agent_retrieve", agent_id=agent_id)
        last_run = time_of(mapping(agent.get("agent")).get("last_run_completion"))
        found = {"default": last_run} if last_run > (since or "") else {}
        limit, most = (1, 1) if since is None else (LIST_PAGE, MAX_LIST_PAGES)
        listed = conversations(self._connection, since or "", limit, most, agent_id=agent_id)
        async for item in listed:
            if (last := time_of(item.get("last_message_at"))) > (since or ""):
                found[id_of(item)] = last
        return found

    async def _listen(
        self, scope: Scope, since: str, until: str, heard: dict[tuple[str, str], Speech]
    ) -> str | None:
        """Add to `heard` what was said in a conversation after `since`, by time and text: a
        fork's copies keep their times. If a turn still runs, how far it was told."""
        turns = await self._turns(scope, since)
        running = False
        if turns[-1].end > since and not turns[-1].ours:
            running = await self._runs(scope)
            # What is said is stored while it is said; only now it is whole.
            turns = turns[:-1] if running else await self._turns(scope, since)
        reached = since
        for turn in turns:
            if not since < turn.end <= until:
                continue
            reached = max(reached, turn.end)
            if turn.text and not turn.ours:
                message_id = f"{scope.conversation_id}/{turn.message_id}"
                speech = Speech(message_id, scope.conversation_id, turn.text)
                heard.setdefault((turn.end, turn.text), speech)
        return reached if running else None

    async def _turns(self, scope: Scope, since: str) -> list[HeardTurn]:
        """A conversation's turns in order, from one on that began before `since`."""
        newest_first: list[Json] = []
        async with aclosing(pages(self._connection, scope)) as found:
            async for page in found:
                newest_first += page
                if any(is_prompt(m) and time_of(m.get("date")) <= since for m in page):
                    break
        return list(read_turns(newest_first[::-1]))

    async def _runs(self, scope: Scope) -> bool:
        """Whether a turn runs in the conversation now."""
        with self._connection.feeds.subscribe(scope) as feed:
            await self._connection.call("sync", runtime=scope.as_json(), recover_approvals=False)
            return _is_busy(feed)


def read_turns(messages: list[Json]) -> Iterator[HeardTurn]:
    """Split messages into turns. Prompts that were taken up together begin one turn; what
    stands before the first of them belongs to a turn that nobody may tell."""
    turn, fresh = HeardTurn(ours=True), False
    for message in messages:
        kind, text = message.get("message_type"), own_text(message)
        if is_prompt(message):
            ours = is_ours(message)
            if fresh:
                turn.ours |= ours
            else:
                yield turn
                turn, fresh = HeardTurn(ours), True
            turn.end = time_of(message.get("date"))
            continue
        fresh = False
        turn.end = max(turn.end, time_of(message.get("date")))
        if kind == "assistant_message" and text:
            turn.texts.append(text)
            turn.message_id = id_of(message)
    yield turn


def _is_busy(feed: Feed) -> bool:
    busy = False
    while not feed.empty():
        frame = feed.get_nowait()
        if not isinstance(frame, Mark) and frame.type == "update_loop_status":
            busy = mapping(frame.data.get("loop_status")).get("status") != IDLE
    return busy
