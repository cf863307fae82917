"""Reactions and replies to our own events: they stand for commands, or ask an agent again."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any

from letta_matrix.common.parts import part
from letta_matrix.conversations.approvers import Approvers
from letta_matrix.conversations.new_turns import (
    are_ids,
    command_turn,
    entry_for,
    is_whole,
    new_turn,
    reply_of,
    sent_at,
    thread_of,
)
from letta_matrix.conversations.readable import read_prompt
from letta_matrix.conversations.roster import Roster
from letta_matrix.conversations.routing import Router
from letta_matrix.matrix.content import BESIDE
from letta_matrix.matrix.events import Event, redacted, replaced
from letta_matrix.matrix.reactions import ASK_AGAIN, STOP
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.approvals import Approval, ApprovalStatus, ApprovalStore
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.turn_ids import offer_of, turn_id_of
from letta_matrix.store.turns import Turn, TurnKind, TurnStatus, TurnStore

_DECISIONS = {
    **dict.fromkeys(("✅", "✔", "☑", "👍", "👌"), "react-approve"),
    **dict.fromkeys(("❌", "✖", "👎"), "react-deny"),
    "♾": "react-always",
}
_STATUS = {
    "react-approve": ApprovalStatus.ALLOWED,
    "react-always": ApprovalStatus.ALWAYS,
    "react-deny": ApprovalStatus.DENIED,
}
_SKIN_OR_VARIANT = re.compile("[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")
_END = r"\s*[.!]*\s*\Z"
_YES = re.compile(
    rf"(?:✅|✔|☑|👍|👌|yes|y|yep|yeah|ok|okay|sure|allow(?:ed)?|approved?){_END}", re.IGNORECASE
)
_ALWAYS = re.compile(rf"(?:♾|always|(?:approve|allow) always){_END}", re.IGNORECASE)
_NO = re.compile(
    r"(?:❌|✖|👎|(?:den(?:y|ied)|no|nope|n)\b)[.!,:]?\s*(.*)\Z", re.IGNORECASE | re.DOTALL
)


@part
class Answers:
    """Knows what a reaction or a reply means by the event of ours that it refers to."""

    _router: Router
    _outbox: Outbox
    _turns: TurnStore
    _approvals: ApprovalStore
    _approvers: Approvers
    _directory: AgentDirectory
    _roster: Roster
    _inbox: Inbox

    async def read(self, event: Mapping[str, Any], until: float | None = None) -> InboxEntry | None:
        """The event with the turn it starts, None where it is no answer to an event of ours. The
        homeserver is waited for `until` a time of the loop's clock, no longer."""
        if not is_whole(event):
            return None
        if event.get("type") == "m.room.message":
            self._approvals.spoken_at(event, _place(event))
        if are_ids(target := redacted(event)):
            turns = [await self._redacted(event, str(target))]
        elif self._router.may_speak(str(event["sender"])):
            turns = await self._turns_of(event, until)
        else:
            return None
        found = [turn for turn in turns if turn is not None]
        return entry_for(event, InboxState.ROUTED, *found) if found else None

    async def _redacted(self, event: Mapping[str, Any], target: str) -> Turn | None:
        """Of our own events, of others' messages, and of edits (`reply_to` names their message):
        of their own messages it is plain what their senders redact."""
        asked = await self._approvals.asked_in(target)
        answered = asked or await self._outbox.turn_of(target)
        if answered is None:
            prompted = await self._turns.prompted_by(target)
            answered = next((one for one in prompted if one.sender != event["sender"]), None)
        edited = await self._inbox.edited_by(target) if answered is None else ""
        if edited:
            answered = next(iter(await self._turns.prompted_by(edited)), None)
        if answered is None or answered.room_id != event["room_id"]:
            return None
        turn = new_turn(event, answered.agent_id, target)
        turn.kind, turn.reply_to = TurnKind.REDACTION, edited or None
        return turn

    async def _turns_of(
        self, event: Mapping[str, Any], until: float | None
    ) -> Sequence[Turn | None]:
        if event.get("type") == "m.reaction":
            target, key = Event(event).target, str(Event(event).relation.get("key", ""))
            if not are_ids(target):
                return []
            if _SKIN_OR_VARIANT.sub("", key) == ASK_AGAIN:
                return await self._again(event, target)
            return [await self._reacted(event, target, key)]
        if event.get("type") != "m.room.message" or event.get("state_key") is not None:
            return []
        if (replied := reply_of(event)) is not None:
            return [await self._replied(event, replied)]
        return [await self._said(event, until)]

    async def _said(self, event: Mapping[str, Any], until: float | None) -> Turn | None:
        """Plain words while one question stands where they are said: they count if they cannot be
        mistaken, and if their sender's answer does."""
        room_id, sender = str(event["room_id"]), str(event["sender"])
        waiting = await self._approvals.waiting_at(room_id, thread_of(event))
        if len(waiting) != 1:
            return None
        # What was said before anybody can have seen the question is no answer to it.
        if sent_at(event) < self._approvals.shown_since(waiting[0].key):
            return None
        text, speaks = read_prompt(event)
        asked = waiting[0]
        verb = plain_decision(text) if speaks and text else None
        if verb is None or (verb == "react-always" and not asked.always):
            return None
        status = _STATUS[verb]
        if not self._approvers.may_answer(asked, status, by=sender, room_id=room_id):
            return None
        try:
            async with asyncio.timeout_at(until):
                if await self._may_be_for_another(asked, sender, thread_of(event)):
                    return None
        except TimeoutError:
            return None
        return command_turn(event, asked.agent_id, f"{verb} {asked.key}")

    def overhear(self, event: Mapping[str, Any]) -> None:
        """A message that one of our own users sent."""
        if event.get("type") == "m.room.message" and are_ids(event.get("room_id")):
            marker = Event(event).marker
            event_id, txn = str(event.get("event_id")), str(marker.get("txn"))
            self._approvals.heard(txn, event_id, sent_at(event))
            if "tool" not in marker and are_ids(event.get("event_id"), marker.get("turn_id")):
                self._outbox.heard(event_id, str(marker["turn_id"]), txn)
            # What the bridge says for itself, the answer that is being given, and how one grows
            # elsewhere, ask for no word.
            if BESIDE not in marker and ("tool" in marker or _place(event) is not None):
                self._approvals.spoken_at(event, _place(event), marker.get("turn_id"))

    async def _may_be_for_another(self, asked: Approval, sender: str, thread: str) -> bool:
        """Whether a word may be meant for somebody else: another has spoken since the question was
        asked, or there are others. In a thread of one's own it is for the agent, if all that was
        said there since is known."""
        overheard = self._approvals.is_overheard(asked.key)
        if self._approvals.speakers_since(asked.key) - {sender}:
            return True
        if thread and asked.requester == sender and overheard:
            return False
        agent = self._directory.get(asked.agent_id)
        if agent is None:
            return True
        members = await self._roster.members(asked.room_id, agent.user_id)
        # Nobody is known where the homeserver does not tell.
        people = {one for one in members if not self._router.is_ours(one)}
        agents = {one for one in members if self._directory.by_user(one)} - {agent.user_id}
        return people != {sender} or (bool(agents) and not overheard)

    async def _reacted(self, event: Mapping[str, Any], target: str, key: str) -> Turn | None:
        key = _SKIN_OR_VARIANT.sub("", key)
        if key == STOP:
            return await self._stop(event, target)
        if (verb := _DECISIONS.get(key)) is None:
            return None
        asked = await self._asked_in(event, target)
        return command_turn(event, asked.agent_id, f"{verb} {asked.key}") if asked else None

    async def _again(self, event: Mapping[str, Any], target: str) -> list[Turn]:
        """The turns that ask again: an agent as it offered, or, on a message of one's own, all
        that have answered it what that says by now, each where it answered before."""
        offered = await self._outbox.offered_by(target)
        # What a turn has offered is taken up once, however often it did and many people react.
        cause = str(event["event_id"]) if offered is None else offer_of(offered.turn_id)
        asked = [offered] if offered else await self._answered(str(event["sender"]), target)
        again = [
            _asked_anew(event, one, cause)
            for one in asked
            if self._is_said_in(one, str(event["room_id"]))
            and not self._router.is_paused(one.agent_id, one.room_id)
            and await self._turns.what_is_left(one)
        ]
        return [one for one in again if await self._turns.get(one.turn_id) is None]

    def _is_said_in(self, turn: Turn, room_id: str) -> bool:
        """Whether what is beside a turn's reply stands in a room: of a portal's it is the agent's
        own."""
        if not self._router.portals.is_portal(turn.room_id):
            return turn.room_id == room_id
        agent = self._directory.get(turn.agent_id)
        return agent is not None and agent.room_id == room_id

    async def _answered(self, sender: str, target: str) -> list[Turn]:
        """The turns that have answered the sender's own message, and of which nothing is under
        way; of one that was asked with others, the one that it was asked with."""
        prompted = await self._turns.prompted_by(target)
        mine = [one for one in prompted if one.sender == sender and one.hops == 0]
        heads = [await self._turns.get(one.joined_to) if one.joined_to else one for one in mine]
        return [one for one in heads if one is not None and await self._is_over(one)]

    async def _is_over(self, turn: Turn) -> bool:
        revised = await self._turns.revising(turn.turn_id)
        return all(one.status is TurnStatus.DONE for one in (turn, *revised))

    async def _stop(self, event: Mapping[str, Any], target: str) -> Turn | None:
        replied = await self._outbox.turn_of(target)
        meant = [replied] if replied is not None else await self._turns.prompted_by(target)
        for turn in meant:
            head = await self._turns.get(turn.joined_to) if turn.joined_to else None
            asked, named = (head, head.event_id) if head is not None else (turn, target)
            for one in (asked, *await self._turns.revising(asked.turn_id)):
                if one.room_id == event["room_id"] and one.status is not TurnStatus.DONE:
                    return command_turn(event, one.agent_id, f"react-cancel {named}")
        return None

    async def _replied(self, event: Mapping[str, Any], target: str) -> Turn | None:
        text, speaks = read_prompt(event)
        if not speaks or not text:
            return None
        asked = await self._asked_in(event, target)
        if asked is None or asked.status is not ApprovalStatus.PENDING:
            return None
        line = decision(text, asked.key)
        return command_turn(event, asked.agent_id, line) if line is not None else None

    async def _asked_in(self, event: Mapping[str, Any], target: str) -> Approval | None:
        """What an event of ours asks in the room of one that refers to it."""
        asked = await self._approvals.asked_in(target)
        return asked if asked is not None and asked.room_id == event["room_id"] else None


def _place(event: Mapping[str, Any]) -> str | None:
    """The thread that a message stands in; None for an edit, which does not tell."""
    return thread_of(event) if replaced(event) is None else None


def decision(text: str, key: str) -> str | None:
    """The command that a reply to an approval stands for; None where it is no decision."""
    text = _SKIN_OR_VARIANT.sub("", text.strip())
    if _YES.match(text):
        return f"approve {key}"
    if _ALWAYS.match(text):
        return f"approve {key} always"
    if match := _NO.match(text):
        return f"deny {key} {match[1]}".strip()
    return None


def plain_decision(text: str) -> str | None:
    """The command that a word alone stands for; None where it may mean something else."""
    text = _SKIN_OR_VARIANT.sub("", text.strip())
    if _YES.match(text):
        return "react-approve"
    if _ALWAYS.match(text):
        return "react-always"
    match = _NO.match(text)
    return "react-deny" if match and not match[1].strip(" .!") else None


def _asked_anew(event: Mapping[str, Any], asked: Turn, cause: str) -> Turn:
    """The turn that asks what a message says by now: one for each `cause`, an event's id. It speaks
    for whoever wrote the message: a tap makes nobody's words one's own, nor what they may do."""
    turn = new_turn(event, asked.agent_id, asked.prompt, thread_id=asked.thread_id)
    turn.turn_id, turn.room_id = turn_id_of(cause, asked.agent_id), asked.room_id
    turn.sender, turn.hops = asked.sender, asked.hops
    turn.reply_to, turn.attachment = asked.reply_to, asked.attachment
    turn.revises = asked.turn_id
    return turn
