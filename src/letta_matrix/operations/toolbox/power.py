"""Changing who may do what in a room (spec: m.room.power_levels; Authorization rules)."""

import math
from collections.abc import Mapping
from typing import Any

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.common.json_fields import mapping
from letta_matrix.matrix.power_levels import creators, level_of, needed_for

HIGHEST = 2**53 - 1
"""The largest integer in an event (spec appendices: Canonical JSON)."""

_POWER_LEVELS = "m.room.power_levels"
_LEVELS = ("ban", "invite", "kick", "redact", "events_default", "state_default", "users_default")
_LISTS = ("events", "users", "notifications")


class Powers:
    """A room's power levels: the content of its `m.room.power_levels`, beside its whole
    `m.room.create` event. Raises ToolError if they are none that can be changed."""

    def __init__(self, content: Mapping[str, Any], create: Mapping[str, Any]) -> None:
        if not _is_sound(content):
            raise ToolError(
                "The power levels of this room are missing or broken; a person has to mend them "
                "in a Matrix client.",
                Fault.CONFLICT,
            )
        self._content = content
        self._creators = creators(create)

    def of(self, user_id: str) -> float:
        """A user's level, infinite for those above all levels."""
        return math.inf if user_id in self._creators else level_of(self._content, user_id)

    def changed(self, actor: str, user_id: str, level: int) -> tuple[int, dict[str, object]]:
        """A user's level till now, and the content that gives it another one in the name of
        `actor`. Raises ToolError where that is not possible, or where nobody could change levels
        any more."""
        before = self.of(user_id)
        if before == math.inf:
            raise ToolError(
                f"{user_id} has created this room and stands above all levels; that cannot be "
                "changed.",
                Fault.CONFLICT,
            )
        self._check_may(actor, user_id, level)
        users, default = {**mapping(self._content.get("users"))}, level_of(self._content, "")
        users[user_id] = level
        if level == default:
            del users[user_id]
        if not self._creators and max((default, *users.values())) < self._needed:
            raise ToolError(
                "Then nobody could change power levels any more; give somebody else that power "
                "first.",
                Fault.CONFLICT,
            )
        return int(before), {**self._content, "users": users}

    @property
    def _needed(self) -> int:
        """The level that changes levels."""
        default = needed_for(self._content)["state_default"]
        return int(mapping(self._content.get("events")).get(_POWER_LEVELS, default))

    def _check_may(self, actor: str, user_id: str, level: int) -> None:
        own = self.of(actor)
        if own < self._needed:
            raise ToolError(
                f"Your power level here is {own:g}; changing levels needs {self._needed}.",
                Fault.FORBIDDEN,
            )
        if level > own:
            text = f"You cannot give more power than your own level, {own:g}."
            raise ToolError(text, Fault.FORBIDDEN)
        if user_id != actor and self.of(user_id) >= own:
            text = f"{user_id} has as much power here as you, {own:g}, or more."
            raise ToolError(text, Fault.FORBIDDEN)


def _is_sound(content: Mapping[str, Any]) -> bool:
    """Whether levels are integers throughout: before room version 10 they may be text, too."""
    lists = [content.get(key, {}) for key in _LISTS]
    if not content or not all(isinstance(one, Mapping) for one in lists):
        return False
    levels = [content[key] for key in _LEVELS if key in content]
    levels += [level for one in lists for level in mapping(one).values()]
    return all(isinstance(level, int) and not isinstance(level, bool) for level in levels)
