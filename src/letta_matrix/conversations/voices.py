"""Whether our users may say anything in a room; where they may not, who asks is told elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.conversations import notices
from letta_matrix.conversations.commands.texts import link
from letta_matrix.conversations.roster import Roster
from letta_matrix.conversations.verbatim import inline_code as code
from letta_matrix.matrix.content import MARKER, text_content
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.power_levels import creators, level_of, needed_to_send
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Turn, TurnKind

log = structlog.get_logger()

MUTED = "🔇"
"""The reaction to a message that an agent may not answer where it was written."""


@dataclass(frozen=True, slots=True)
class Mute:
    """Why somebody's words would be refused in a room: the power they have, and need."""

    own: int
    needed: int
    may_react: bool


class Voices:
    """Knows who of us may speak where, by the rooms' power levels, each read once until it
    changes. Who is muted is asked about at every turn, so that it ends by itself."""

    def __init__(
        self, homeserver: Homeserver, directory: AgentDirectory, rooms: Rooms, roster: Roster
    ) -> None:
        self._homeserver = homeserver
        self._directory = directory
        self._rooms = rooms
        self._roster = roster
        self._muted: dict[tuple[str, str], Mute] = {}
        self._told: set[tuple[str, str, str]] = set()

    async def mute(self, room_id: str, user_id: str) -> Mute | None:
        """What keeps one of us from speaking in a room; None where nothing is known to."""
        levels = await self._roster.power_levels(room_id, user_id)
        own, needed = level_of(levels or {}, user_id), needed_to_send(levels or {})
        if levels is None or own >= needed or await self._stands_above(room_id, user_id):
            self._muted.pop((room_id, user_id), None)
            return None
        # An event that tells of more power may get lost, and this is worth a look at every turn.
        self._roster.forget_power(room_id)
        mute = Mute(own, needed, own >= needed_to_send(levels, "m.reaction"))
        if self._muted.get((room_id, user_id)) != mute:
            log.warning("may not speak in a room", user=user_id, room=room_id, reason=_why(mute))
            self._muted[room_id, user_id] = mute
        return mute

    def changed(self, event: Mapping[str, Any]) -> None:
        """Hear of an event that was stored: it may give or take a voice."""
        room_id, kind, who = event.get("room_id"), event.get("type"), event.get("state_key")
        if not isinstance(room_id, str) or not isinstance(who, str):
            return
        if kind == "m.room.power_levels":
            self._forget(room_id)
        elif kind == "m.room.member" and (room_id, who) in self._muted:
            # It left, or was put out: what it may do there is nobody's trouble any more.
            self._forget(room_id)

    def trouble_of(self, agent_id: str) -> str:
        """Where an agent was asked and may not answer, for operators; "" for nowhere."""
        if (agent := self._directory.get(agent_id)) is None:
            return ""
        silent = [(room, mute) for (room, who), mute in self._muted.items() if who == agent.user_id]
        return "; ".join(f"may not speak in {room}: {_why(mute)}" for room, mute in silent)

    @property
    def troubles(self) -> dict[str, str]:
        """The same for all whom it concerns, by agent id."""
        agents = (self._directory.by_user(user_id) for _, user_id in self._muted)
        return {agent.agent_id: self.trouble_of(agent.agent_id) for agent in agents if agent}

    async def tell(self, turn: Turn, agent: Agent, mute: Mute) -> None:
        """Let whoever asked know that there is no answer: by a reaction, or in a room of theirs
        with the agent, once as long as it lasts. Raises HomeserverUnavailable."""
        intent = Intent(self._homeserver, agent.user_id)
        cause = txn_id(turn.event_id, turn.agent_id, "muted")
        if mute.may_react:
            try:
                await intent.react(turn.room_id, turn.event_id, MUTED, cause)
            except MatrixRequestError as error:
                log.info("a reaction is refused", room=turn.room_id, reason=refusal(error))
            else:
                return
        try:
            await self._tell_elsewhere(turn, agent, intent, mute)
        except MatrixRequestError as error:
            log.warning("a person cannot be told", person=turn.sender, reason=refusal(error))

    async def refused(self, turn: Turn) -> None:
        """The homeserver took no word of an answer: look whether power was taken meanwhile."""
        agent = self._directory.get(turn.agent_id)
        if agent is None or turn.kind is not TurnKind.MESSAGE:
            return
        self._roster.forget_power(turn.room_id)
        if (mute := await self.mute(turn.room_id, agent.user_id)) is not None:
            await self.tell(turn, agent, mute)

    async def _tell_elsewhere(self, turn: Turn, agent: Agent, intent: Intent, mute: Mute) -> None:
        case = (turn.room_id, agent.user_id, turn.sender)
        if case in self._told:
            return
        self._told.add(case)
        try:
            await self._write_to(turn, agent, intent, mute)
        except BaseException:
            self._told.discard(case)
            raise

    async def _write_to(self, turn: Turn, agent: Agent, intent: Intent, mute: Mute) -> None:
        """Write to whoever asked, in a room that they share with the agent."""
        room_id = await self._shared_with(turn, agent) or await self._open(turn.sender, intent)
        where = link(code(turn.room_id, limit=255), turn.room_id)
        cause = txn_id(turn.event_id, turn.agent_id, "muted elsewhere")
        marker = {"agent_id": turn.agent_id, "turn_id": turn.turn_id, "txn": cause}
        content = text_content(
            notices.muted(where, mute.own, mute.needed), marker=marker, msgtype="m.notice"
        )
        await intent.send(
            room_id, "m.room.message", content, cause, give_up_after=60, look_first=True
        )

    async def _shared_with(self, turn: Turn, agent: Agent) -> str | None:
        """A room in which the agent talks with whoever asked: its own, or one of theirs alone."""
        direct = (
            room_id
            for room_id in self._rooms.rooms_of(agent.user_id)
            if self._rooms.ours_in(room_id)[agent.user_id]
        )
        for room_id in filter(None, (agent.room_id, *direct)):
            there = room_id != turn.room_id
            if there and turn.sender in await self._roster.members(room_id, agent.user_id):
                return room_id
        return None

    async def _open(self, person: str, intent: Intent) -> str:
        """A new room for the two of them."""
        content = {
            "preset": "private_chat",
            "is_direct": True,
            "invite": [person],
            "creation_content": {MARKER: {"for": person}},
        }
        room_id = await intent.create_room(content)
        await self._rooms.joined(
            room_id, intent.user_id, direct=True, since=intent.homeserver.clock.now()
        )
        return room_id

    async def _stands_above(self, room_id: str, user_id: str) -> bool:
        try:
            return user_id in creators(await Intent(self._homeserver, user_id).creation(room_id))
        except MatrixRequestError as error:
            log.debug("a room's creator is not known", room=room_id, reason=refusal(error))
            return False

    def _forget(self, room_id: str) -> None:
        self._roster.forget_power(room_id)
        self._muted = {case: mute for case, mute in self._muted.items() if case[0] != room_id}
        self._told = {case for case in self._told if case[0] != room_id}


def _why(mute: Mute) -> str:
    return f"its power level is {mute.own}, and speaking takes {mute.needed}"
