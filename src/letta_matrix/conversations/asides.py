"""Words to somebody elsewhere than in the room where they wrote: in one they share with us."""

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.conversations.roster import Roster
from letta_matrix.matrix.content import MARKER, text_content
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Turn

log = structlog.get_logger()


class Asides:
    """Says them, each once to a person about a room, until that is forgotten."""

    def __init__(
        self, homeserver: Homeserver, directory: AgentDirectory, rooms: Rooms, roster: Roster
    ) -> None:
        self._homeserver = homeserver
        self._directory = directory
        self._rooms = rooms
        self._roster = roster
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
        marker = {"agent_id": turn.agent_id, "turn_id": turn.turn_id, "txn": cause}
        content = text_content(text, marker=marker, msgtype="m.notice")
        await intent.send(
            room_id, "m.room.message", content, cause, give_up_after=60, look_first=True
        )

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
