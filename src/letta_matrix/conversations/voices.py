"""Whether our users can say anything in a room; where they cannot, who asks is told."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from mautrix.errors import MatrixRequestError, MForbidden

from letta_matrix.common.parts import part
from letta_matrix.conversations import notices
from letta_matrix.conversations.audience import ours_in
from letta_matrix.conversations.roster import Roster
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.events import Event, RawEvent
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.power_levels import creators, level_of, needed_to_send
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.matrix.verbatim import link
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Turn, TurnKind

log = structlog.get_logger()

_ASKED = (TurnKind.MESSAGE, TurnKind.COMMAND, TurnKind.REFUSED)

MUTED = "🔇"
"""The reaction to a message that an agent may not answer where it was written."""


@dataclass(frozen=True, slots=True)
class Mute:
    """Why somebody's words would be refused in a room: the power they have, and need."""

    own: int
    needed: int
    may_react: bool


@part
class Voices:
    """Knows who of us may speak where, by the rooms' power levels, each read once until it
    changes. Who is muted is asked about at every turn, so that it ends by itself."""

    _homeserver: Homeserver
    _directory: AgentDirectory
    _rooms: Rooms
    _roster: Roster

    def __post_init__(self) -> None:
        self._muted: dict[tuple[str, str], Mute] = {}
        self._asides = Asides(self._homeserver, self._directory, self._rooms, self._roster)

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

    def changed(self, event: RawEvent) -> None:
        """Hear of an event that was stored: it may give or take a voice."""
        room_id, kind, who = event.get("room_id"), event.get("type"), event.get("state_key")
        if not isinstance(room_id, str) or not isinstance(who, str):
            return
        if kind == "m.room.power_levels":
            self._forget(room_id)
        elif kind == "m.room.member" and (room_id, who) in self._muted:
            # It left, or was put out: what it may do there is nobody's trouble any more.
            self._forget(room_id)
        elif kind == "m.room.member" and Event(event).membership == "join":
            self._asides.forget(room_id)

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

    async def is_silenced(self, turn: Turn, user_id: str) -> bool:
        """Whether one of us cannot answer where it was asked; whoever asked has been told then.
        Raises HomeserverUnavailable."""
        if (mute := await self.mute(turn.room_id, user_id)) is not None:
            await self._tell(turn, user_id, mute)
            return True
        if user_id in ours_in(turn.room_id, self._directory, self._rooms):
            return False
        return await self._is_out(turn, user_id, "out", notices.gone_from)

    async def refused(self, turn: Turn, user_id: str) -> None:
        """The homeserver did not take all of what one of us owed: look why, and let whoever asked
        know. Raises HomeserverUnavailable."""
        if turn.kind not in _ASKED:
            return
        self._roster.forget_power(turn.room_id)
        if (mute := await self.mute(turn.room_id, user_id)) is not None:
            await self._tell(turn, user_id, mute)
        else:
            await self._is_out(turn, user_id, "cut off", notices.cut_off)

    async def _tell(self, turn: Turn, user_id: str, mute: Mute) -> None:
        """By a reaction, or, where that is not taken either, elsewhere."""
        if mute.may_react:
            cause = txn_id(turn.event_id, turn.agent_id, "muted")
            try:
                ghost = self._homeserver.acting_as(user_id)
                await ghost.react(turn.room_id, turn.event_id, MUTED, cause)
            except MatrixRequestError as error:
                log.info("a reaction is refused", room=turn.room_id, reason=refusal(error))
            else:
                return
        text = notices.muted(_link(turn.room_id), mute.own, mute.needed)
        await self._asides.say(turn, user_id, "muted elsewhere", text)

    async def _is_out(self, turn: Turn, user_id: str, key: str, word: Callable[[str], str]) -> bool:
        """Whether one of us is not in a turn's room any more; its sender is told, unless it was
        them who sent it away."""
        try:
            member = await self._homeserver.acting_as(user_id).state_event(
                turn.room_id, "m.room.member", user_id
            )
        except MForbidden:
            member = {"content": {"membership": "leave"}}
        except MatrixRequestError as error:
            log.debug("not known who is in a room", room=turn.room_id, reason=refusal(error))
            return False
        if Event(member).membership not in ("leave", "ban"):
            return False
        log.info("not in a room any more", user=user_id, room=turn.room_id)
        if member.get("sender") != turn.sender:
            await self._asides.say(turn, user_id, key, word(_link(turn.room_id)))
        return True

    async def _stands_above(self, room_id: str, user_id: str) -> bool:
        try:
            return user_id in creators(await self._homeserver.acting_as(user_id).creation(room_id))
        except MatrixRequestError as error:
            log.debug("a room's creator is not known", room=room_id, reason=refusal(error))
            return False

    def _forget(self, room_id: str) -> None:
        self._roster.forget_power(room_id)
        self._muted = {case: mute for case, mute in self._muted.items() if case[0] != room_id}
        self._asides.forget(room_id)


def _link(room_id: str) -> str:
    return link(code(room_id, limit=255), room_id)


def _why(mute: Mute) -> str:
    return f"its power level is {mute.own}, and speaking takes {mute.needed}"


@part
class Asides:
    """Words to somebody elsewhere than in the room where they wrote, in one they share with us:
    each once to a person about a room, until that is forgotten."""

    _homeserver: Homeserver
    _directory: AgentDirectory
    _rooms: Rooms
    _roster: Roster

    def __post_init__(self) -> None:
        self._told: set[tuple[str, str, str, str]] = set()

    async def say(self, turn: Turn, user_id: str, key: str, text: str) -> None:
        """Tell a turn's sender, as one of us, what cannot be said in its room; once for each
        `key`. Raises HomeserverUnavailable."""
        case = (turn.room_id, user_id, turn.sender, key)
        # Who is one of us has asked by a tool, and its call says what came of it.
        if case in self._told or self._directory.by_user(turn.sender) is not None:
            return
        self._told.add(case)
        try:
            await self._write(turn, self._homeserver.acting_as(user_id), key, text)
        except MatrixRequestError as error:
            log.warning("a person cannot be told", person=turn.sender, reason=refusal(error))
        except BaseException:
            self._told.discard(case)
            raise

    def forget(self, room_id: str) -> None:
        """What was said about a room does not hold any more."""
        self._told = {case for case in self._told if case[0] != room_id}

    async def _write(self, turn: Turn, intent: Intent, key: str, text: str) -> None:
        room_id = await self._shared_with(turn, intent.user_id) or await self._open(turn, intent)
        cause = txn_id(turn.event_id, turn.agent_id, key)
        about = {"agent_id": turn.agent_id, "turn_id": turn.turn_id}
        await notices.say(intent, room_id, text, cause, **about)

    async def _shared_with(self, turn: Turn, user_id: str) -> str | None:
        """A room in which one of us talks with whoever asked: its own, or one of theirs alone."""
        agent = self._directory.by_user(user_id)
        direct = (
            room_id
            for room_id in self._rooms.rooms_of(user_id)
            if self._rooms.ours_in(room_id)[user_id]
        )
        for room_id in filter(None, (agent and agent.room_id, *direct)):
            there = room_id != turn.room_id
            if there and turn.sender in await self._roster.members(room_id, user_id):
                return room_id
        return None

    async def _open(self, turn: Turn, intent: Intent) -> str:
        """A new room for the two of them."""
        content = {
            "preset": "private_chat",
            "is_direct": True,
            "invite": [turn.sender],
            "creation_content": {MARKER: {"for": turn.sender}},
        }
        room_id = await intent.create_room(content)
        now = intent.homeserver.clock.now()
        await self._rooms.joined(room_id, intent.user_id, direct=True, since=now)
        return room_id
