"""Which room a caller means, and what it may do there."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from mautrix.errors import MatrixRequestError

from letta_matrix.matrix.intent import Intent
from letta_matrix.toolbox.faults import Fault, ToolError
from letta_matrix.toolbox.tool import Caller

_AT_ONCE = 8


@asynccontextmanager
async def room_of(caller: Caller, ref: str) -> AsyncGenerator[str]:
    """The id of the room that `ref` names. What the homeserver refuses inside because the
    caller is not in it becomes a ToolError that says so."""
    room_id = await _find(caller, ref)
    if not caller.principal.may_act_in(room_id):
        raise ToolError(f"Your token is not for {ref}; it names its rooms.", Fault.FORBIDDEN)
    if await caller.refuses(caller.intent, room_id):
        raise not_in(caller, ref)
    try:
        yield room_id
    except MatrixRequestError as error:
        if error.http_status not in (403, 404):
            raise
        if room_id not in await caller.intent.joined_rooms():
            raise not_in(caller, ref) from error
        raise


def not_in(caller: Caller, ref: str) -> ToolError:
    text = f"You are not in {ref}. Ask somebody there to invite {caller.user_id}."
    return ToolError(text, Fault.FORBIDDEN)


async def names_of(intent: Intent, room_ids: list[str]) -> list[str]:
    """The rooms' names, "" where there is none; a few are asked for at a time."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def name(room_id: str) -> str:
        async with gate:
            return await intent.room_name(room_id)

    return await asyncio.gather(*(name(room_id) for room_id in room_ids))


async def _find(caller: Caller, ref: str) -> str:
    if ref.startswith("!"):
        return ref
    if ref.startswith("#"):
        return await _by_alias(caller.intent, ref)
    return await _by_name(caller, ref)


async def _by_alias(intent: Intent, alias: str) -> str:
    localpart, _, server = alias.partition(":")
    if len(localpart) < 2 or not server:
        raise ToolError(f"{alias} is no room alias; one looks like #name:example.org.")
    room_id = await intent.resolve_alias(alias)
    if room_id is None:
        raise ToolError(f"There is no room {alias}.", Fault.NOT_FOUND)
    return room_id


async def _by_name(caller: Caller, name: str) -> str:
    room_ids = await caller.rooms()
    names = await names_of(caller.intent, room_ids)
    found = [
        room_id for room_id, known in zip(room_ids, names, strict=True) if known.strip() == name
    ]
    if not found:
        raise ToolError(
            f"None of your rooms is called {name!r}. matrix_list_rooms lists them; one you are "
            f"not in yet has to invite {caller.user_id}.",
            Fault.NOT_FOUND,
        )
    if len(found) > 1:
        raise ToolError(
            f"Several of your rooms are called {name!r}: {', '.join(found)}.", Fault.AMBIGUOUS
        )
    return found[0]
