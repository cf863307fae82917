"""What is told of what is not taken over, each with what to do about it."""

from dataclasses import dataclass

from letta_matrix.agents.migration.found import Room
from letta_matrix.agents.migration.mappings_file import OldMapping


@dataclass(frozen=True, slots=True)
class Note:
    """What is not done, and what can be done about it."""

    what: str
    remedy: str


NEW_ROOM = "it gets a room of its own when the bridge starts"
ADMIN_WANTED = (
    "name an admin of the homeserver (homeserver.admin_username and admin_password), and import "
    "again before the bridge starts; else it gets a room of its own then"
)
NOBODY_LEFT = (
    f"{NEW_ROOM}: nobody of this homeserver has power in that one any more, so that no admin can "
    "give it"
)
REMOVE_OLD = (
    "whoever has power there can remove it; with an admin of the homeserver in the configuration "
    "another import does"
)
POWERLESS = Note(
    "it has no power in its room: it talks there, and can neither invite people nor change its "
    "name",
    "somebody with power there can give it some, or an admin of the homeserver in the "
    "configuration (homeserver.admin_username and admin_password) at the next start",
)
NO_USER = Note("its id is too long for a Matrix user", "the bridge cannot show this agent")
PASSWORD_STAYS = Note(
    "the password that its account had is still good: who knows it acts as the agent",
    "import again with an admin of the homeserver in the configuration (homeserver.admin_username "
    "and admin_password), which ends it",
)


def gone(one: OldMapping) -> Note:
    room = f"; its room {one.room_id} stays as it is" if one.room_id else ""
    return Note(
        f"no runtime has this agent any more{room}",
        "nothing, unless a runtime is missing in the configuration",
    )


def second(one: OldMapping, best: OldMapping) -> Note:
    place = f"entry {one.place}, {one.user_id or 'no user'} in {one.room_id or 'no room'}"
    return Note(
        f"it is there twice: {place}, is passed over for entry {best.place}",
        "nothing, if that is the room where people talk with it; else take the other entry out "
        "of the file",
    )


def unusable(room_id: str, room: Room) -> Note | None:
    """Why no agent can live in a room that is there."""
    if room.is_encrypted:
        return Note(f"its room {room_id} is encrypted, so that it could not read there", NEW_ROOM)
    if room.replaced_by:
        return Note(
            f"its room {room_id} was replaced by {room.replaced_by}",
            "write that one into the file, and import again; else it gets a room of its own when "
            "the bridge starts",
        )
    if room.is_space:
        return Note(f"its room {room_id} is a space", NEW_ROOM)
    return None
