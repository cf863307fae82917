"""Rooms that were replaced by others (spec: Room upgrades): our users go along, and what they
talked about goes on there."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.identifiers import is_ours, room_alias
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.conversations import notices
from letta_matrix.conversations.audience import ours_in
from letta_matrix.conversations.new_turns import are_ids
from letta_matrix.matrix.errors import is_refusal, refusal
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.store.agents import Agent, AgentDirectory, in_room
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Turn

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Move:
    """A room that is replaced by another, and who says so."""

    old: str
    new: str
    by: str
    at: float


@part
class RoomMoves:
    """Follows to rooms that replace those we are in.

    A room is followed only to one that both ends agree on: the old one's state names the new one,
    which takes power there, and the new one names the old one as what it was before. An agent's
    own room moves by an admin's word only.

    `on_room` hears of each room that becomes known, `on_moved` of agents whose own room moved,
    `leave_space` takes a room out of the space.
    """

    _config: Config
    _homeserver: Homeserver
    _directory: AgentDirectory
    _rooms: Rooms
    _conversations: ConversationStore
    _on_room: Callable[[str], Awaitable[None]]
    _leave_space: Callable[[str], Awaitable[None]]
    on_moved: Callable[[list[Agent]], Awaitable[None]]

    async def follow(self, turn: Turn) -> list[tuple[Intent, str]]:
        """A room says that it was replaced: all of us who are there go along, once for each turn.
        Returns who came into which room. Raises HomeserverUnavailable."""
        followed: list[tuple[Intent, str]] = []
        owner = self._directory.by_room(turn.room_id)
        ours = set(ours_in(turn.room_id, self._directory, self._rooms))
        # Whose room it is comes last: then it is done.
        for user_id in sorted(
            ours, key=lambda one: (owner is not None and one == owner.user_id, one)
        ):
            intent = self._homeserver.acting_as(user_id)
            try:
                move = await self._announced(intent, turn)
                if move is not None and await self._came_along(intent, move):
                    await self._move(intent, move)
                    followed.append((intent, move.new))
                elif move is not None:
                    await self._stay(intent, turn)
            except MatrixRequestError as error:
                log.info("a room is not followed", room=turn.room_id, reason=refusal(error))
        return followed

    async def entered(self, turn: Turn, intent: Intent) -> None:
        """One of us has come into a room by an invitation: it may replace one that it is in.
        Raises HomeserverUnavailable."""
        try:
            old = _predecessor(await intent.creation(turn.room_id))
            ours = ours_in(old, self._directory, self._rooms) if old is not None else ()
            if old is None or intent.user_id not in ours:
                return
            move = await self._announced(intent, replace(turn, room_id=old))
            if move is not None and move.new == turn.room_id:
                await self._move(intent, move)
        except MatrixRequestError as error:
            log.info("not known what a room replaces", room=turn.room_id, reason=refusal(error))

    async def _announced(self, intent: Intent, turn: Turn) -> _Move | None:
        """The move that the state of a turn's room tells of, if it is one to follow."""
        tombstone = await intent.state_event(turn.room_id, "m.room.tombstone")
        new = mapping(tombstone.get("content")).get("replacement_room")
        by = str(tombstone.get("sender"))
        if not are_ids(new) or new == turn.room_id or self._directory.by_room(str(new)) is not None:
            return None
        if self._directory.by_room(turn.room_id) is not None and not self._may_move_home(by):
            log.warning("an agent's room is not moved for this person", room=turn.room_id, by=by)
            return None
        return _Move(turn.room_id, str(new), by, turn.sent_at)

    def _may_move_home(self, user_id: str) -> bool:
        ours = is_ours(user_id, self._config.bot_user_id)
        return ours or self._config.role_of(user_id) == "admin"

    async def _came_along(self, intent: Intent, move: _Move) -> bool:
        """Whether one of us is in the new room now, and that is what it says it is."""
        was_in = move.new in await intent.joined_rooms()
        server = move.by.partition(":")[2]
        try:
            is_near = server == self._config.homeserver.domain
            await intent.join(move.new, via="" if is_near else server)
        except MatrixRequestError as error:
            if not is_refusal(error):
                raise
            log.info("not let into a new room", room=move.new, reason=refusal(error))
            return False
        if _predecessor(await intent.creation(move.new)) == move.old:
            return True
        log.warning("a room does not replace the one that says so", room=move.new, old=move.old)
        if not was_in:
            await intent.leave(move.new)
        return False

    async def _move(self, intent: Intent, move: _Move) -> None:
        agent = self._directory.by_user(intent.user_id)
        owner = self._directory.by_room(move.old)
        if agent is not None:
            await self._conversations.move(agent.agent_id, move.old, move.new)
            await self._rooms.move_settings(agent.agent_id, move.old, move.new)
        if agent is not None and agent is owner:
            await self._move_home(intent, agent, move)
        else:
            direct = self._rooms.ours_in(move.old).get(intent.user_id, False)
            await self._rooms.joined(move.new, intent.user_id, direct=direct, since=move.at)
        log.info("room followed", user=intent.user_id, room=move.old, now=move.new)
        await self._on_room(move.new)

    async def _move_home(self, ghost: Intent, agent: Agent, move: _Move) -> None:
        """An agent's own room is another one now."""
        alias = room_alias(agent.agent_id, self._config.homeserver.domain)
        pointed = await _accepted(self._point(ghost, alias, move.new))
        await _accepted(self._leave_space(move.old))
        # In the old one it is still there for those who mention it.
        await self._rooms.joined(move.old, ghost.user_id, direct=False, since=move.at)

        def moved(one: Agent) -> Agent:
            there = in_room(one, move.new)
            # What is not pointed there is tried again, as with a room made without an alias.
            return there if pointed else replace(there, applied={**there.applied, "alias": ""})

        agents = await self._directory.change([agent.agent_id], moved)
        for user_id in list(self._rooms.ours_in(move.new)):
            if user_id in (ghost.user_id, self._config.bot_user_id):
                await self._rooms.left(move.new, user_id)
        await self.on_moved(agents)

    async def _point(self, ghost: Intent, alias: str, room_id: str) -> None:
        if await ghost.resolve_alias(alias) != room_id:
            await ghost.point_alias(alias, room_id)

    async def _stay(self, intent: Intent, turn: Turn) -> None:
        """Say in the old room what is missing."""
        cause = txn_id(turn.event_id, intent.user_id, "left behind")
        text = notices.LEFT_BEHIND
        await notices.say(intent, turn.room_id, text, cause, turn_id=turn.turn_id)


async def _accepted(work: Awaitable[None]) -> bool:
    """Do what only decorates a room, which moves without; whether the homeserver let us."""
    try:
        await work
    except MatrixRequestError as error:
        if not is_refusal(error):
            raise
        log.warning("a room moves without its looks", reason=refusal(error))
        return False
    return True


def _predecessor(create: Mapping[str, Any]) -> str | None:
    room_id = mapping(mapping(create.get("content")).get("predecessor")).get("room_id")
    return str(room_id) if are_ids(room_id) else None
