"""Lets clients of the embedded homeserver's owner show agents' rooms as chats with the agents."""

from collections.abc import Mapping
from typing import Any, cast


def with_rooms(content: Mapping[str, Any], rooms: Mapping[str, str]) -> dict[str, Any]:
    """The content of `m.direct` (spec: Direct Messaging) with these rooms by user id, too."""
    direct = dict(content)
    for user_id, room_id in rooms.items():
        known: object = direct.get(user_id)
        listed = cast("list[object]", known) if isinstance(known, list) else []
        if room_id not in listed:
            direct[user_id] = [room_id, *listed]
    return direct
