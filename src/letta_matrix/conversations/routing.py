"""Whose event is it? Pure decisions on one event of the homeserver, without I/O."""

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from letta_matrix.config import Config
from letta_matrix.matrix.events import mapping
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.identifiers import RESERVED_PREFIXES
from letta_matrix.store.agents import AgentDirectory, AgentStatus
from letta_matrix.store.inbox import InboxEntry, InboxState
from letta_matrix.store.turns import Turn

ASK_AGAIN = "🔁"
"""The reaction on an offer that asks the agent again."""

_TEXT_TYPES = {"m.text", "m.emote"}
_UNREADABLE_TYPES = {"m.image", "m.file", "m.audio", "m.video", "m.location"}
_REPLY_FALLBACK = re.compile(r"\A(?:> .*\n)+\n?")
_MAX_PROMPT = 200_000


@dataclass(frozen=True, slots=True)
class AskAgain:
    """A 🔁 on one of our events; whether it answers an offer, only the outbox knows."""

    event_id: str
    target: str
    sender: str
    room_id: str


class Router:
    """Decides what an event means for the agents in `directory`. Silence is the default."""

    def __init__(self, config: Config, directory: AgentDirectory) -> None:
        self._config = config
        self._directory = directory

    def is_own(self, event: Mapping[str, Any]) -> bool:
        """Whether one of our own users sent it."""
        sender = event.get("sender")
        if not isinstance(sender, str):
            return False
        localpart, _, domain = sender.partition(":")
        return domain == self._config.homeserver.domain and (
            sender == self._config.bot_user_id or localpart[1:].startswith(RESERVED_PREFIXES)
        )

    def knows(self, room_id: str) -> bool:
        """Whether the room is an agent's."""
        return self._directory.by_room(room_id) is not None

    def route(self, event: Mapping[str, Any]) -> InboxEntry | None:
        """The event with its turn, if it prompts an agent; None for what is no room event."""
        event_id, room_id, sender = event.get("event_id"), event.get("room_id"), event.get("sender")
        if not _are_ids(event_id, room_id, sender):
            return None
        entry = InboxEntry(str(event_id), str(room_id), event, InboxState.IGNORED)
        if self._config.role_of(str(sender)) == "block":
            return entry
        prompt, speaks = _prompt(event)
        if not speaks:
            return entry
        agent = self._directory.by_room(entry.room_id)
        if agent is None:
            entry.state = InboxState.PARKED
        elif agent.status is AgentStatus.ACTIVE:
            entry.state = InboxState.ROUTED
            entry.turn = new_turn(event, agent.agent_id, prompt)
        return entry

    def ask_again(self, event: Mapping[str, Any]) -> AskAgain | None:
        """The event as a wish to ask again, if it may be one."""
        relation = mapping(mapping(event.get("content")).get("m.relates_to"))
        if event.get("type") != "m.reaction" or relation.get("key") != ASK_AGAIN:
            return None
        ids = (event.get("event_id"), relation.get("event_id"), event.get("sender"))
        if not _are_ids(*ids, event.get("room_id")):
            return None
        if self._config.role_of(str(ids[2])) == "block":
            return None
        return AskAgain(str(ids[0]), str(ids[1]), str(ids[2]), str(event["room_id"]))


def new_turn(event: Mapping[str, Any], agent_id: str, prompt: str | None) -> Turn:
    """The turn that an event starts with an agent; its id derives from both."""
    event_id = str(event["event_id"])
    digest = hashlib.sha256(f"{event_id}\0{agent_id}".encode()).hexdigest()
    return Turn(
        turn_id=f"turn-{digest[:24]}",
        agent_id=agent_id,
        room_id=str(event["room_id"]),
        event_id=event_id,
        sender=str(event["sender"]),
        sent_at=_sent_at(event.get("origin_server_ts")),
        prompt=prompt,
    )


def _sent_at(milliseconds: object) -> float:
    # Nothing to go by counts as now; the bound is that of integers in events (canonical JSON).
    if isinstance(milliseconds, int | float) and 0 <= milliseconds < 2**53:
        return milliseconds / 1000
    return time.time()


def _are_ids(*values: object) -> bool:
    return all(
        isinstance(value, str) and 0 < len(value) <= 255 and clean_text(value) == value
        for value in values
    )


def _prompt(event: Mapping[str, Any]) -> tuple[str | None, bool]:
    """What the agent is told, and whether the event speaks to it at all."""
    if event.get("state_key") is not None:
        return None, False
    if event.get("type") == "m.room.encrypted":
        return None, True
    content = mapping(event.get("content"))
    relation = mapping(content.get("m.relates_to"))
    if event.get("type") != "m.room.message" or relation.get("rel_type") == "m.replace":
        return None, False
    msgtype, body = content.get("msgtype"), content.get("body")
    if not isinstance(msgtype, str) or not isinstance(body, str):
        return None, False
    if msgtype in _UNREADABLE_TYPES:
        return None, True
    if msgtype not in _TEXT_TYPES:
        return None, False
    text = _spoken(body, is_reply="m.in_reply_to" in relation)
    if not text:
        return None, False
    return (f"* {text}" if msgtype == "m.emote" else text)[:_MAX_PROMPT], True


def _spoken(body: str, *, is_reply: bool) -> str:
    # Clients before Matrix 1.13 quote the message they reply to in front of their own words.
    return clean_text(_REPLY_FALLBACK.sub("", body) if is_reply else body).strip()
