"""Which room a caller means, and what it may do there."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from mautrix.errors import MatrixRequestError

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.common.side_by_side import side_by_side
from letta_matrix.matrix.intent import Intent
from letta_matrix.operations.toolbox.tool import Caller

_NAMED = 10
_ROOM_ID = re.compile(r"![!-~]{1,254}")


@asynccontextmanager
async def room_of(caller: Caller, ref: str) -> AsyncGenerator[str]:
    """The id of the room that `ref` names. What the homeserver refuses inside because the
    caller is not in it, or because another room has replaced it, becomes a ToolError that says
    so."""
    room_id = await permitted_room(caller, ref)
    try:
        yield room_id
    except MatrixRequestError as error:
        if error.http_status not in (403, 404):
            raise
        if room_id not in await caller.intent.joined_rooms():
            raise not_in(caller, ref) from error
        if error.http_status == 403:
            await _check_living(caller.intent, ref, room_id)
        raise


@asynccontextmanager
async def writable_room(caller: Caller, ref: str) -> AsyncGenerator[str]:
    """As `room_of`, for what others in the room get to see. Raises ToolError for a talk on another
    network, which only the tools that are made for it write into: others know none of its rules."""
    async with room_of(caller, ref) as room_id:
        if caller.house.is_portal(room_id):
            text = f"{ref} is a talk on another network: what you say there is your answer to "
            text += "somebody who writes to you. portal_send_image sends them a picture meanwhile."
            raise ToolError(text, Fault.FORBIDDEN)
        yield room_id


@asynccontextmanager
async def living_room(caller: Caller, ref: str) -> AsyncGenerator[str]:
    """As `writable_room`, for what makes no sense in a room that another one has replaced."""
    async with writable_room(caller, ref) as room_id:
        await _check_living(caller.intent, ref, room_id)
        yield room_id


@asynccontextmanager
async def joined_room(caller: Caller, ref: str) -> AsyncGenerator[str]:
    """As `room_of`, for what the homeserver would also tell of rooms the caller is not in."""
    async with room_of(caller, ref) as room_id:
        if not await caller.house.known.is_in(caller.intent, room_id):
            raise not_in(caller, ref)
        yield room_id


async def permitted_room(caller: Caller, ref: str) -> str:
    """The id of the room that `ref` names, in it or not. Raises ToolError for one that the
    caller may not act in."""
    room_id = await _find_room(caller, ref)
    if not caller.principal.may_act_in(room_id):
        raise ToolError(f"Your token is not for {ref}; it names its rooms.", Fault.FORBIDDEN)
    if await caller.refuses(room_id):
        raise not_in(caller, ref)
    return room_id


async def _check_living(intent: Intent, ref: str, room_id: str) -> None:
    """Raises ToolError that names the successor of a room that was upgraded."""
    if (successor := await successor_of(intent, room_id)) is not None:
        raise ToolError(replaced(ref, successor), Fault.CONFLICT)


async def successor_of(intent: Intent, room_id: str) -> str | None:
    """The room that has replaced one (spec: m.room.tombstone), None if none has, "" if it is
    not told which."""
    tombstone = await intent.state(room_id, "m.room.tombstone")
    if not tombstone:
        return None
    successor = tombstone.get("replacement_room")
    is_one = isinstance(successor, str) and _ROOM_ID.fullmatch(successor) is not None
    return str(successor) if is_one else ""


def replaced(ref: str, successor: str) -> str:
    """Tells that a room was upgraded."""
    if not successor:
        return f"{ref} was closed: another room has replaced it."
    return f"{ref} was replaced by {successor}. Go on there; matrix_join_room joins it."


def not_in(caller: Caller, ref: str) -> ToolError:
    text = f"You are not in {ref}. Ask somebody there to invite {caller.user_id}."
    return ToolError(text, Fault.FORBIDDEN)


async def _find_room(caller: Caller, ref: str) -> str:
    if ref.startswith("!"):
        return ref
    if (before := caller.noted(ref)) is not None:
        return before
    by_alias = ref.startswith("#")
    room_id = await (_by_alias(caller.intent, ref) if by_alias else _by_name(caller, ref))
    await caller.note(ref, room_id)
    return room_id


async def _by_alias(intent: Intent, alias: str) -> str:
    localpart, _, server = alias.partition(":")
    if len(localpart) < 2 or not server:
        raise ToolError(f"{alias} is no room alias; one looks like #name:example.org.")
    room_id = await intent.resolve_alias(alias)
    if room_id is None:
        text = f"There is no room {alias}, or {server}, where it would be, cannot be reached."
        raise ToolError(text, Fault.NOT_FOUND)
    return room_id


async def _by_name(caller: Caller, name: str) -> str:
    room_ids = await caller.rooms()
    cards = await caller.house.known.cards(caller.intent, room_ids)
    # A room renamed a moment ago is not acted in by the name it had.
    found = await _called(
        caller, name, [one for one in room_ids if cards[one].name.strip() == name]
    )
    found = found or await _called(caller, name, room_ids)
    if not found:
        raise ToolError(
            f"None of your rooms is called {name!r}. matrix_list_rooms lists them; one you are "
            f"not in yet has to invite {caller.user_id}.",
            Fault.NOT_FOUND,
        )
    if len(found) > 1:
        ids = ", ".join(found[:_NAMED]) + (", ..." if len(found) > _NAMED else "")
        text = f"Several of your rooms are called {name!r}; give an id: {ids}."
        raise ToolError(text, Fault.AMBIGUOUS)
    return found[0]


async def _called(caller: Caller, name: str, room_ids: list[str]) -> list[str]:
    """Those of the rooms that have this name, by the homeserver."""
    names = await side_by_side(caller.intent.room_name, room_ids)
    return [one for one, called in zip(room_ids, names, strict=True) if called.strip() == name]
