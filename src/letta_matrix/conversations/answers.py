"""Reactions and replies to our own events: they stand for commands, or ask an agent again."""

import re
from collections.abc import Mapping
from typing import Any

from letta_matrix.conversations.routing import (
    Router,
    are_ids,
    command_turn,
    new_turn,
    read_prompt,
)
from letta_matrix.matrix.events import mapping
from letta_matrix.store.approvals import ApprovalStatus, ApprovalStore
from letta_matrix.store.inbox import InboxEntry, InboxState
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.turns import Turn, TurnStatus, TurnStore, turn_id_of

ASK_AGAIN = "🔁"
"""The reaction on an offer that asks the agent again."""
STOP = "🛑"
"""The reaction on a message, or on the reply to it, that stops its turn."""

_DECISIONS = {"✅": "react-approve", "❌": "react-deny", "♾": "react-always"}
_VARIANT = "\ufe0f"
_YES = re.compile(r"(?:✅|approved?|yes|y|ok|okay|allow)[.!]?\Z", re.IGNORECASE)
_ALWAYS = re.compile(r"(?:♾\ufe0f?|always|approve always|allow always)[.!]?\Z", re.IGNORECASE)
_NO = re.compile(r"(?:❌|(?:den(?:y|ied)|no|n)\b)[.!,:]?\s*(.*)\Z", re.IGNORECASE | re.DOTALL)


class Answers:
    """Knows what a reaction or a reply means by the event of ours that it refers to."""

    def __init__(
        self, router: Router, outbox: Outbox, turns: TurnStore, approvals: ApprovalStore
    ) -> None:
        self._router = router
        self._outbox = outbox
        self._turns = turns
        self._approvals = approvals

    async def read(self, event: Mapping[str, Any]) -> InboxEntry | None:
        """The event with the turn it starts, None where it is no answer to an event of ours."""
        ids = (event.get("event_id"), event.get("room_id"), event.get("sender"))
        if not are_ids(*ids) or not self._router.may_speak(str(ids[2])):
            return None
        turn = await self._turn(event)
        if turn is None:
            return None
        return InboxEntry(str(ids[0]), str(ids[1]), event, InboxState.ROUTED, [turn])

    async def _turn(self, event: Mapping[str, Any]) -> Turn | None:
        relation = mapping(mapping(event.get("content")).get("m.relates_to"))
        if event.get("type") == "m.reaction":
            target, key = relation.get("event_id"), str(relation.get("key", ""))
            return await self._reacted(event, str(target), key) if are_ids(target) else None
        target = mapping(relation.get("m.in_reply_to")).get("event_id")
        if event.get("type") != "m.room.message" or relation.get("is_falling_back") is True:
            return None
        return await self._replied(event, str(target)) if are_ids(target) else None

    async def _reacted(self, event: Mapping[str, Any], target: str, key: str) -> Turn | None:
        key = key.replace(_VARIANT, "")
        if key == ASK_AGAIN:
            offered = await self._outbox.offered_by(target)
            if offered is None or offered.room_id != event["room_id"]:
                return None
            if self._router.is_paused(offered.agent_id, offered.room_id):
                return None
            again = _asked_again(event, offered, target)
            return again if await self._turns.get(again.turn_id) is None else None
        if key == STOP:
            return await self._stop(event, target)
        if (verb := _DECISIONS.get(key)) is None:
            return None
        asked = await self._approvals.asked_in(target)
        if asked is None or asked.room_id != event["room_id"]:
            return None
        return command_turn(event, asked.agent_id, f"{verb} {asked.key}")

    async def _stop(self, event: Mapping[str, Any], target: str) -> Turn | None:
        replied = await self._outbox.turn_of(target)
        meant = [replied] if replied is not None else await self._turns.prompted_by(target)
        for turn in meant:
            if turn.room_id == event["room_id"] and turn.status is not TurnStatus.DONE:
                return command_turn(event, turn.agent_id, f"react-cancel {target}")
        return None

    async def _replied(self, event: Mapping[str, Any], target: str) -> Turn | None:
        text, speaks = read_prompt(event)
        if not speaks or not text:
            return None
        asked = await self._approvals.asked_in(target)
        if asked is None or asked.room_id != event["room_id"]:
            return None
        if asked.status is not ApprovalStatus.PENDING:
            return None
        line = decision(text, asked.key)
        return command_turn(event, asked.agent_id, line) if line is not None else None


def decision(text: str, key: str) -> str | None:
    """The command that a reply to an approval stands for; None where it is no decision."""
    text = text.strip()
    if _YES.match(text):
        return f"approve {key}"
    if _ALWAYS.match(text):
        return f"approve {key} always"
    if match := _NO.match(text):
        return f"deny {key} {match[1]}".strip()
    return None


def _asked_again(event: Mapping[str, Any], offered: Turn, offer: str) -> Turn:
    """The turn that takes up an offer: one, however many people react to it."""
    turn = new_turn(event, offered.agent_id, offered.prompt, thread_id=offered.thread_id)
    turn.turn_id = turn_id_of(offer, offered.agent_id)
    turn.reply_to, turn.attachment = offered.reply_to, offered.attachment
    return turn
