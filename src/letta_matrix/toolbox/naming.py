"""Which room a caller means, and what it may do there."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from mautrix.errors import MatrixRequestError
from pydantic import AfterValidator, StringConstraints

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.matrix.intent import Intent
from letta_matrix.toolbox.tool import Caller, clean

_AT_ONCE = 8
_NAMED = 10
_ROOM_ID = re.compile(r"![!-~]{1,254}")


OptionalRoom = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=255), AfterValidator(clean)
]
"""As `RoomRef`, or ""."""

OptionalEvent = Annotated[
    str,
    StringConstraints(strip_whitespace=True, pattern=r"^(\$\S{1,254})?$"),
    AfterValidator(clean),
]
"""As `EventId`, or ""."""

OptionalUser = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, pattern=r"^(@[^:\s]{1,250}:\S{1,250})?$", max_length=255
    ),
    AfterValidator(clean),
]
"""As `UserRef`, or ""."""

Words = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(clean)]
"""Text of one or several lines, or ""."""


@asynccontextmanager
async def room_of(caller: Caller, ref: str) -> AsyncGenerator[str]:
    """The id of the room that `ref` names. What the homeserver refuses inside because the
    caller is not in it, or because another room has replaced it, becomes a ToolError that says
    so."""
    room_id = await find_room(caller, ref)
    check_permitted(caller, ref, room_id)
    if await caller.refuses(caller.intent, room_id):
        raise not_in(caller, ref)
    try:
        yield room_id
    except MatrixRequestError as error:
        if error.http_status not in (403, 404):
            raise
        if room_id not in await caller.intent.joined_rooms():
            raise not_in(caller, ref) from error
        if error.http_status == 403:
            await check_living(caller.intent, ref, room_id)
        raise


@asynccontextmanager
async def living_room(caller: Caller, ref: str) -> AsyncGenerator[str]:
    """As `room_of`, for what makes no sense in a room that another one has replaced."""
    async with room_of(caller, ref) as room_id:
        await check_living(caller.intent, ref, room_id)
        yield room_id


def check_permitted(caller: Caller, ref: str, room_id: str) -> None:
    """Raises ToolError for a room that the caller's token is not for."""
    if not caller.principal.may_act_in(room_id):
        raise ToolError(f"Your token is not for {ref}; it names its rooms.", Fault.FORBIDDEN)


async def check_living(intent: Intent, ref: str, room_id: str) -> None:
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


async def find_room(caller: Caller, ref: str) -> str:
    """The id of the room that `ref` names, whether the caller may act there or not."""
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
    names = await caller.known.names(caller.intent, room_ids)
    # A room renamed a moment ago is not acted in by the name it had.
    found = await _called(caller, name, [one for one in room_ids if names[one].strip() == name])
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
    """Those of the rooms that have this name, by the homeserver; a few are asked for at a
    time."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def is_called(room_id: str) -> bool:
        async with gate:
            return (await caller.intent.room_name(room_id)).strip() == name

    fit = await asyncio.gather(*map(is_called, room_ids))
    return [room_id for room_id, fits in zip(room_ids, fit, strict=True) if fits]
