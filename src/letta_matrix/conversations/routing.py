"""Whose event is it? Pure decisions on one event of the homeserver, without I/O."""

import re
from collections.abc import Collection
from dataclasses import replace

from letta_matrix.common.identifiers import is_ours
from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.conversations.audience import NOTHING, Refers, is_for_a_person, ours_in
from letta_matrix.conversations.new_turns import (
    are_ids,
    command_line,
    command_turn,
    correction,
    entry_for,
    is_whole,
    new_turn,
    sent_at,
    thread_of,
)
from letta_matrix.conversations.portal_routing import PortalRouting
from letta_matrix.conversations.readable import read_prompt
from letta_matrix.matrix.events import Event, RawEvent, redacted, replaced
from letta_matrix.matrix.mentions import mentioned
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.agents import ANSWERED_UNTIL, Agent, AgentDirectory, AgentStatus
from letta_matrix.store.amendments import Amendment
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.inbox import InboxEntry, InboxState
from letta_matrix.store.places import Place
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turn_ids import turn_id_of
from letta_matrix.store.turns import Turn, TurnKind

_FOR_US = re.compile(r"!letta(?:\s|\Z)", re.IGNORECASE)
_ROOM_TYPES = ("m.room.encryption", "m.room.tombstone")


@part
class Router:
    """Decides what an event means for the agents in `directory`. Silence is the default."""

    _config: Config
    _directory: AgentDirectory
    _rooms: Rooms
    _conversations: ConversationStore
    _portals: PortalPolicy

    def __post_init__(self) -> None:
        self.portals = PortalRouting(self._config, self._portals, self._rooms)

    def is_ours(self, user_id: str) -> bool:
        """Whether it is one of our own users."""
        return is_ours(user_id, self._config.bot_user_id)

    def is_own(self, event: RawEvent) -> bool:
        """Whether one of our own users sent it, and not to prompt another agent."""
        sender = event.get("sender")
        return isinstance(sender, str) and self.is_ours(sender) and not self._prompted(event)

    def agent_of(self, event: RawEvent) -> str | None:
        """The id of the agent that sent an event, None for anybody else."""
        sender = event.get("sender")
        agent = self._directory.by_user(sender) if isinstance(sender, str) else None
        return agent.agent_id if agent is not None else self.portals.agent_behind(event)

    def knows(self, room_id: str) -> bool:
        """Whether the room is an agent's, or one of our users was invited into it."""
        return bool(ours_in(room_id, self._directory, self._rooms))

    def may_speak(self, user_id: str) -> bool:
        """Whether a person is permitted to use agents. Users of bridges are no persons."""
        if self.is_ours(user_id) or self.portals.is_of_network(user_id):
            return False
        return self._config.role_of(user_id) != "block"

    def may_invite(self, sender: str, invited: str) -> bool:
        """Whether somebody may bring one of us into a room."""
        told = self.portals.may_invite(sender, invited)
        return self.may_speak(sender) if told is None else told

    def route(self, event: RawEvent, refers: Refers = NOTHING) -> InboxEntry | None:
        """The event with the turns it starts; None for what is no room event. `refers` is what
        it refers to, as far as that is known."""
        if not is_whole(event):
            return None
        room_id, sender = event["room_id"], event["sender"]
        entry = entry_for(event, InboxState.IGNORED)
        entry.thread_id = thread_of(event)
        if (asked := self._prompted(event)) is not None:
            return _routed(entry, [asked])
        if event.get("type") == "m.room.member":
            return _routed(entry, self._invited(event))
        if event.get("type") in _ROOM_TYPES:
            # A bridge makes another room by itself, and nothing of us is to be said in its rooms.
            is_portal = self.portals.is_portal(room_id)
            return entry if is_portal else _routed(entry, self._became(event))
        is_of_network = self.portals.is_of_network(sender)
        if is_of_network and (failed := self.portals.undelivered(event)):
            return _routed(entry, failed)
        if not is_of_network and not self.may_speak(sender):
            return entry
        prompt, speaks = read_prompt(event)
        if not speaks:
            return entry
        if not self.knows(room_id):
            entry.state = InboxState.PARKED
            return entry
        if is_of_network or self.portals.is_portal(room_id):
            return _routed(entry, self.portals.turns_of(event, prompt))
        return _routed(entry, self._addressed(event, prompt, refers))

    def amends(self, event: RawEvent) -> InboxEntry | None:
        """An edit or a redaction, with what it changes if its target is its sender's own message;
        None for what is neither."""
        edit = replaced(event) if event.get("type") == "m.room.message" else None
        removed = redacted(event)
        if (edit is None and not are_ids(removed)) or not is_whole(event):
            return None
        entry, sender, at = entry_for(event, InboxState.IGNORED), event["sender"], sent_at(event)
        if edit is None:
            entry.amends = Amendment(str(removed), entry.room_id, sender, at, withdrawn=True)
            return entry
        target, content = edit
        is_contact = self.portals.is_of_network(sender)
        if not are_ids(target) or not (is_contact or self.may_speak(sender)):
            return entry
        message = {**event, "event_id": target, "content": content}
        new = correction(message, sender, at)
        if read_prompt(message)[1] and (new.prompt is not None or new.attachment is not None):
            entry.amends = new
            entry.adds = [] if is_contact else self._mentioned_anew(message)
        return entry

    def _addressed(self, event: RawEvent, prompt: str | None, refers: Refers) -> list[Turn]:
        room_id = str(event["room_id"])
        owner = self._directory.by_room(room_id) or self._alone_with(room_id, event["sender"])
        if owner is not None and owner.room_id == room_id and _was_answered(event, owner):
            return []
        line, is_for_bot = command_line(prompt or ""), self._is_for_bot(room_id)
        if is_for_bot and line is None:
            line = prompt
        elif not (is_for_bot or owner is not None or _FOR_US.match(prompt or "")):
            line = None
        if line is not None:
            agent_id = owner.agent_id if owner is not None else ""
            return [command_turn(event, agent_id, line)]
        named = self._named(event, refers)
        if not named and is_for_a_person(event, self._rooms.people_in(room_id) or (), refers):
            return []
        if owner is None or (named and owner.user_id not in named):
            return self._shared(event, prompt, named, refers)
        here = refers.reply_thread if refers.replied_to == owner.user_id else ""
        return self._messages(event, prompt, [owner], thread_of(event) or here)

    def _named(self, event: RawEvent, refers: Refers) -> Collection[str]:
        """Those of our users in a message's room that it is for: who is mentioned, else the agent
        whose message it replies to."""
        ours = set(ours_in(str(event["room_id"]), self._directory, self._rooms))
        agents = ours - {self._config.bot_user_id}
        return mentioned(Event(event).content, ours) or agents & {refers.replied_to}

    def is_paused(self, agent_id: str, room_id: str) -> bool:
        """Whether an agent is to leave messages of a room unanswered."""
        return self._rooms.settings(agent_id, room_id).paused

    def _is_for_bot(self, room_id: str) -> bool:
        ours = self._rooms.ours_in(room_id)
        return ours.get(self._config.bot_user_id, False) and not self._agents_in(room_id)

    def _alone_with(self, room_id: str, sender: str) -> Agent | None:
        """The agent in a room where there is no other, and no person but one who has written."""
        agents, ours = self._agents_in(room_id), self._rooms.ours_in(room_id)
        # Who was looked for in the room may have gone behind what is pushed only now.
        others = {*(self._rooms.people_in(room_id) or ())} - {sender}
        is_direct = len(agents) == 1 and ours[agents[0].user_id] and not others
        return agents[0] if is_direct else None

    def _agents_in(self, room_id: str) -> list[Agent]:
        """The agents that are in a room by invitation."""
        found = (self._directory.by_user(user) for user in self._rooms.ours_in(room_id))
        return [agent for agent in found if agent and agent.status is AgentStatus.ACTIVE]

    def _shared(
        self,
        event: RawEvent,
        prompt: str | None,
        named: Collection[str],
        refers: Refers,
    ) -> list[Turn]:
        """In a room with others an agent speaks when addressed, and then in a thread."""
        room_id, thread = str(event["room_id"]), thread_of(event)
        addressed = [
            agent
            for agent in self._agents_in(room_id)
            if agent.user_id in named
            or (thread and not named and self._talks(agent, room_id, thread, refers))
        ]
        if not thread and refers.replied_to in named:
            thread = refers.reply_thread
        turns = self._messages(event, prompt, addressed, thread or str(event["event_id"]))
        for turn in turns:
            if turn.kind is TurnKind.MESSAGE:
                self._conversations.expect(turn.place)
        return turns

    def _mentioned_anew(self, message: RawEvent) -> list[Turn]:
        """The turns that a message starts with those whom it mentions now that it was edited."""
        room_id = str(message["room_id"])
        ours = ours_in(room_id, self._directory, self._rooms)
        named = mentioned(Event(message).content, ours)
        agents = [agent for user in named if (agent := self._directory.by_user(user)) is not None]
        prompt, _ = read_prompt(message)
        if not agents or command_line(prompt or "") is not None:
            return []
        is_home = self._directory.by_room(room_id) is not None
        own = "" if is_home else thread_of(message) or str(message["event_id"])
        return self._messages(message, prompt, agents, own)

    def _talks(self, agent: Agent, room_id: str, thread: str, refers: Refers) -> bool:
        """Whether a thread is talk with an agent: it has answered there, or began it."""
        has_talked = self._conversations.talks_at(Place(agent.agent_id, room_id, thread))
        return has_talked or refers.root_by == agent.user_id

    def _messages(
        self,
        event: RawEvent,
        prompt: str | None,
        agents: list[Agent],
        thread: str | None = None,
    ) -> list[Turn]:
        room_id = str(event["room_id"])
        turns = [
            new_turn(event, agent.agent_id, prompt, thread_id=thread)
            for agent in agents
            if agent.status is AgentStatus.ACTIVE
            and sent_at(event) >= self._rooms.since(room_id, agent.user_id)
        ]
        return [_left(one) if self.is_paused(one.agent_id, room_id) else one for one in turns]

    def _invited(self, event: RawEvent) -> list[Turn]:
        user_id = event.get("state_key")
        is_invite = Event(event).membership == "invite"
        if not is_invite or not isinstance(user_id, str) or not self.is_ours(user_id):
            return []
        agent = self._directory.by_user(user_id)
        if agent is not None:
            is_one = agent.status is not AgentStatus.REMOVED
        else:
            is_one = user_id == self._config.bot_user_id or self.portals.is_line(user_id)
        if not is_one:
            return []
        room_id = str(event["room_id"])
        is_home = agent is not None and agent.room_id == room_id
        is_here = is_home or user_id in self._rooms.ours_in(room_id)
        if is_here and not self.may_invite(str(event["sender"]), user_id):
            # Nothing to decline: that would be to leave.
            return []
        turn = new_turn(event, agent.agent_id if agent is not None else "", user_id)
        turn.kind = TurnKind.INVITE
        return [turn]

    def _became(self, event: RawEvent) -> list[Turn]:
        """The turn of a room that one of us is in, and that is encrypted or replaced now."""
        if event.get("state_key") != "" or not self.knows(str(event["room_id"])):
            return []
        owner = self._directory.by_room(str(event["room_id"]))
        turn = new_turn(event, owner.agent_id if owner is not None else "", str(event["type"]))
        turn.kind = TurnKind.ROOM
        return [turn]

    def _prompted(self, event: RawEvent) -> Turn | None:
        """The turn for an agent that another agent, or somebody as the bot, wrote to with
        `message_agent`."""
        marker = Event(event).marker
        target, hops, sender = marker.get("prompts"), marker.get("hops"), event.get("sender")
        if not isinstance(target, str) or not isinstance(hops, int) or not isinstance(sender, str):
            return None
        is_one = sender == self._config.bot_user_id or self._directory.by_user(sender) is not None
        agent = self._directory.get(target)
        if not is_one or agent is None or agent.room_id != event.get("room_id"):
            return None
        if agent.room_id is None or self.is_paused(target, agent.room_id):
            return None
        prompt, speaks = read_prompt(event)
        in_time = 0 < hops <= self._config.conversations.max_hops
        if not speaks or not in_time or not are_ids(event.get("event_id"), agent.room_id):
            return None
        turn = new_turn(event, target, prompt, thread_id=str(event["event_id"]))
        turn.hops = hops
        return turn


def _was_answered(event: RawEvent, owner: Agent) -> bool:
    """Whether somebody else has answered in an agent's room, before it was adopted: homeservers
    push what they had for us since they know us."""
    until = owner.applied.get(ANSWERED_UNTIL, 0.0)
    return isinstance(until, int | float) and sent_at(event) <= until


def _left(turn: Turn) -> Turn:
    """The turn of a message that a paused agent leaves unanswered; nothing of it is kept."""
    turn_id = turn_id_of(turn.event_id, f"{turn.agent_id}\0paused")
    return replace(turn, turn_id=turn_id, kind=TurnKind.PAUSED, prompt=None, attachment=None)


def _routed(entry: InboxEntry, turns: list[Turn]) -> InboxEntry:
    if turns:
        entry.state, entry.turns = InboxState.ROUTED, turns
    return entry
