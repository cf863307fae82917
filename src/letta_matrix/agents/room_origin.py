"""Whose room it is that an alias of ours leads to. The alias alone is no proof: it may be older
than our right to it."""

from collections.abc import Mapping
from typing import Any

import structlog
from mautrix.errors import MForbidden, MNotFound

from letta_matrix.common.json_fields import mapping
from letta_matrix.config import Config
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.power_levels import creators, level_of

log = structlog.get_logger()

_UPGRADES = 20
"""Rooms that are looked at, back to the one that was made first."""
_FULL_POWER = 100


async def turned_away(user: Intent, room_id: str, alias: str, config: Config) -> bool:
    """Whether a room that an alias of ours led to, and `user` is in, is somebody else's: that one
    is left, and the alias taken from it. It is ours if it `is_from_us`, or `is_held_by_us`.

    Raises MatrixRequestError or HomeserverUnavailable: nothing is known, and nothing done.
    """
    if await is_from_us(user, room_id, config) or await is_held_by_us(user, room_id, config):
        return False
    log.warning("somebody else's room had an alias of ours", room=room_id, alias=alias)
    await user.leave(room_id)
    await user.remove_alias(alias)
    return True


async def is_from_us(user: Intent, room_id: str, config: Config) -> bool:
    """Whether `user`, the bot or an admin has made a room, or one whose place it took: whoever
    upgraded that may be an admin no longer. Raises as `turned_away` does.

    A room names any predecessor it likes; who has power in that one says what took its place
    (spec: Room Upgrades).
    """
    for _ in range(_UPGRADES):
        creation = await user.creation(room_id)
        maker = _maker(creation, room_id)
        if maker in (user.user_id, config.bot_user_id) or config.role_of(maker) == "admin":
            return True
        before = mapping(mapping(creation.get("content")).get("predecessor")).get("room_id")
        if not isinstance(before, str) or await _replaced_by(user, before) != room_id:
            return False
        room_id = before
    return False


async def is_held_by_us(user: Intent, room_id: str, config: Config) -> bool:
    """Whether the bot is in a ghost's room, and one of the two has all power there. Raises as
    `turned_away` does.

    Whoever makes a room may give power to anybody. That the bot came is its own doing, and that is
    why its own rooms, which it has just joined, are not judged by this.
    """
    bot = config.bot_user_id
    if user.user_id == bot or bot not in await user.joined_members(room_id):
        return False
    levels = await user.state(room_id, "m.room.power_levels")
    above = creators(await user.creation(room_id))
    return any(one in above or level_of(levels, one) >= _FULL_POWER for one in (user.user_id, bot))


def _maker(creation: Mapping[str, Any], room_id: str) -> str:
    maker = creation.get("sender")
    if not isinstance(maker, str) or not maker.startswith("@"):
        raise HomeserverUnavailable(f"the homeserver does not say who made {room_id}")
    return maker


async def _replaced_by(user: Intent, room_id: str) -> object:
    """The room that took a room's place, None where `user` cannot see one."""
    try:
        return (await user.state(room_id, "m.room.tombstone")).get("replacement_room")
    except (MForbidden, MNotFound):
        return None
