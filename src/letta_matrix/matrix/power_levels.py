"""Power levels as a room has them (spec: m.room.power_levels; Authorization rules)."""

from collections.abc import Mapping
from typing import Any

from letta_matrix.common.json_fields import items, mapping

_CREATORS_RULE = 12
"""Since this room version creators stand above all levels and may not be listed (MSC4289)."""

_ACTIONS = {"invite": 0, "kick": 50, "ban": 50, "redact": 50, "state_default": 50}
"""Power that an action needs where a room does not say."""


def creators(create: Mapping[str, Any]) -> list[str]:
    """Those above all levels in a room, by its whole `m.room.create` event; whoever made it comes
    first."""
    content = mapping(create.get("content"))
    version = str(content.get("room_version") or "1")
    # The unstable versions of MSC4289 are called after a monster.
    if not (version.isdecimal() and int(version) >= _CREATORS_RULE) and "hydra" not in version:
        return []
    more = items(content.get("additional_creators")) or []
    return list(dict.fromkeys(one for one in (create.get("sender"), *more) if isinstance(one, str)))


def can_administer(levels: Mapping[str, Any], creation: Mapping[str, Any], user_id: str) -> bool:
    """Whether somebody may invite and change the state of a room, by the content of its
    `m.room.power_levels` and its whole `m.room.create` event."""
    needed = needed_for(levels)
    wanted = max(needed["invite"], needed["state_default"])
    return user_id in creators(creation) or level_of(levels, user_id) >= wanted


def needed_for(levels: Mapping[str, Any]) -> dict[str, int]:
    """The levels that actions need, by the content of `m.room.power_levels`, whatever it is."""
    return {action: level(levels.get(action), least) for action, least in _ACTIONS.items()}


def needed_to_send(levels: Mapping[str, Any], event_type: str = "m.room.message") -> int:
    """The level that sending an event (no state event) needs."""
    default = level(levels.get("events_default"), 0)
    return level(mapping(levels.get("events")).get(event_type), default)


def needed_to_change(levels: Mapping[str, Any], event_type: str) -> int:
    """The level that changing a piece of state needs."""
    default = needed_for(levels)["state_default"]
    return level(mapping(levels.get("events")).get(event_type), default)


def is_powerful(levels: Mapping[str, Any], create: Mapping[str, Any], user_id: str) -> bool:
    """Whether a user may invite and change state, or has made the room, by its whole
    `m.room.create` event: who has less in a room of its own was given less there."""
    return user_id == create.get("sender") or can_administer(levels, create, user_id)


def level_of(levels: Mapping[str, Any], user_id: str) -> int:
    """A user's level, by the content of `m.room.power_levels`, whatever it is."""
    default = level(levels.get("users_default"), 0)
    return level(mapping(levels.get("users")).get(user_id), default)


def level(value: object, default: int) -> int:
    """A level as a room has it. Rooms before version 10 may have it as text."""
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else default
