"""How one of our users stands to a room that we remember: whether it is still there."""

from collections.abc import Collection
from enum import Enum, auto

from mautrix.api import ClientPath, Method
from mautrix.errors import MatrixRequestError, MForbidden, MNotFound

from letta_matrix.common.json_fields import mapping
from letta_matrix.matrix import answers
from letta_matrix.matrix.intent import Intent

_NOT_FOUND = 404


class Standing(Enum):
    """MEMBER is in the room. OUT: the room is there, and it is not in it. MOVED: the room's alias
    leads to another one. GONE: the homeserver has no such room of ours any more."""

    MEMBER = auto()
    OUT = auto()
    MOVED = auto()
    GONE = auto()


async def standing(user: Intent, room_id: str, alias: str, joined: Collection[str]) -> Standing:
    """How `user` stands to a room that it was in. `joined` are those that it is in; `alias` leads
    to the room, as far as we know, and is ours to give.

    That the room is closed to us says nothing: somebody may have put us out. It is gone where we
    are not in it, nobody put us out, and joining it fails for want of a room: the answer of Synapse
    (404) for rooms that were purged or deleted, or that nobody of its own is in, whether or not
    the alias is left. Joining where nobody put us out is all that may be written here.

    Raises MatrixRequestError or HomeserverUnavailable: nothing is known.
    """
    if room_id in joined:
        return Standing.MEMBER
    if await put_out_by(user, room_id):
        return Standing.OUT
    if await leading_to(user, alias) not in (None, room_id):
        return Standing.MOVED
    try:
        await user.join(room_id)
    except MForbidden:
        return Standing.OUT
    except MatrixRequestError as error:
        if error.http_status == _NOT_FOUND and error.errcode in ("M_NOT_FOUND", "M_UNKNOWN"):
            return Standing.GONE
        raise
    return Standing.MEMBER


async def leading_to(user: Intent, alias: str) -> str | None:
    """The room that an alias of our homeserver leads to, None where it says that there is none.
    Raises as `standing` does."""
    path = ClientPath.v3.directory.room[alias]
    try:
        answer = await user.homeserver.request(
            Method.GET, path, user_id=user.user_id, shape=answers.room_id
        )
    except MNotFound:
        return None
    return str(answer["room_id"])


async def put_out_by(user: Intent, room_id: str) -> str:
    """Who put `user` out of a room; "" for nobody, or where the homeserver does not know it
    there. Raises as `standing` does."""
    state, by = await membership(user, room_id, user.user_id)
    return by if state in ("leave", "ban") and by != user.user_id else ""


async def membership(user: Intent, room_id: str, of: str) -> tuple[str, str]:
    """The `membership` of somebody in a room, and whose doing that is, as `user` sees it; ("",
    "") for none. Raises as `standing` does."""
    try:
        event = await user.state_event(room_id, "m.room.member", of)
    except (MForbidden, MNotFound):
        return "", ""
    return str(mapping(event.get("content")).get("membership") or ""), str(event.get("sender"))
