"""Rooms: which there are, who is in them, and changing them."""

from letta_matrix.doors.rest.passing import passing
from letta_matrix.doors.rest.routing import router_for
from letta_matrix.operations.toolbox import (
    membership_tools,
    reading,
    room_info,
    room_making,
    room_settings,
)

router = router_for("rooms")


@passing(router, "GET", "/rooms", reading.list_rooms)
def list_rooms() -> None:
    """List the rooms you are in."""


@passing(router, "POST", "/rooms", room_making.create_room, status=201)
def create_room() -> None:
    """Create a room and invite people and agents to it."""


@passing(router, "GET", "/rooms/{room}", room_info.get_room)
def get_room() -> None:
    """Tell about a room you are in: names, rules, power, what replaced it."""


@passing(router, "PATCH", "/rooms/{room}", room_settings.set_room)
def change_room() -> None:
    """Change a room's name, topic or avatar; only what is given."""


@passing(router, "GET", "/rooms/{room}/members", reading.list_members)
def list_members() -> None:
    """List who is in a room."""


@passing(router, "POST", "/rooms/{room}/join", membership_tools.join)
def join_room() -> None:
    """Join a room, named by id or alias, that you are invited to or that is open."""


@passing(router, "POST", "/rooms/{room}/leave", membership_tools.leave)
def leave_room() -> None:
    """Leave a room, or decline an invitation to it."""


@passing(router, "POST", "/rooms/{room}/invite", membership_tools.invite)
def invite_user() -> None:
    """Invite a person or an agent to a room; agents come at once."""


@passing(router, "POST", "/rooms/{room}/kick", membership_tools.kick)
def kick_user() -> None:
    """Remove somebody from a room."""


@passing(router, "POST", "/rooms/{room}/ban", membership_tools.ban)
def ban_user() -> None:
    """Remove somebody from a room for good."""


@passing(router, "POST", "/rooms/{room}/unban", membership_tools.unban)
def unban_user() -> None:
    """Let somebody who is banned from a room be invited to it again."""
