"""From when on somebody may read what was said in a room: what came before is not told to them."""

import asyncio
import math
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.json_fields import mapping
from letta_matrix.conversations.new_turns import sent_at
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent

log = structlog.get_logger()

_PATIENCE = 10.0
_MOST_ROOMS = 2_000
_STEPS = 20
"""How many changes of a name and the like are looked behind for the arrival itself."""


class Horizons:
    """Asks the homeserver for a room's rule (spec: Room history visibility) and for how somebody
    came in, once until `forget`."""

    def __init__(self, homeserver: Homeserver) -> None:
        self._homeserver = homeserver
        self._known: dict[str, dict[str, float]] = {}

    async def of(self, room_id: str, person: str, user_id: str) -> float:
        """From when on (Unix time) a person may read a room, as its member `user_id` sees it: 0.0
        where they may read all of it, infinity where they are not in it or nobody can tell."""
        known = self._known.get(room_id)
        if known is None:
            if len(self._known) >= _MOST_ROOMS:
                del self._known[next(iter(self._known))]
            known = self._known[room_id] = {}
        if person in known:
            return known[person]
        try:
            async with asyncio.timeout(_PATIENCE):
                since = await _since(self._homeserver.acting_as(user_id), room_id, person)
        except (MatrixRequestError, HomeserverUnavailable, TimeoutError) as error:
            log.info("nobody can tell what a person may read", room=room_id, reason=str(error))
            return math.inf
        # What was forgotten in the meantime is no longer in `_known`.
        known[person] = since
        return since

    def forget(self, room_id: str) -> None:
        """Somebody came or went, or the rule has changed: ask again next time."""
        self._known.pop(room_id, None)


async def _since(intent: Intent, room_id: str, person: str) -> float:
    history = await intent.state(room_id, "m.room.history_visibility")
    rule = history.get("history_visibility", "shared")
    if rule in ("shared", "world_readable"):
        return 0.0
    since, event = math.inf, await intent.state_event(room_id, "m.room.member", person)
    for _ in range(_STEPS):
        match mapping(event.get("content")).get("membership"):
            case "join":
                since = sent_at(event)
            case "invite" if rule == "invited":
                return sent_at(event)
            case "invite":
                # By the inviter's clock: a guest's own server may say any time of the joining.
                return max(since, sent_at(event))
            case _:
                return since
        if (earlier := await _before(intent, room_id, event)) is None:
            return since
        event = earlier
    return since


async def _before(intent: Intent, room_id: str, event: dict[str, Any]) -> dict[str, Any] | None:
    """The membership that one took the place of, None where there was none that can be seen."""
    replaced = mapping(event.get("unsigned")).get("replaces_state")
    if not isinstance(replaced, str):
        return None
    try:
        return await intent.event(room_id, replaced)
    except MatrixRequestError as error:
        if error.http_status != 404:
            raise
        return None
