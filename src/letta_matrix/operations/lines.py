"""Talking to a bridge's own bot as the line that is logged in to it."""

import asyncio
from collections.abc import Sequence
from typing import Any

from mautrix.errors import MatrixRequestError
from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common import clock
from letta_matrix.common.json_fields import mapping
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.operation import operation
from letta_matrix.operations.portals import Network, network_of
from letta_matrix.portals.bridges import Bridge
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.meta import Meta
from letta_matrix.toolbox.tool import Caller, Result, WriteParams

_COMES_WITHIN, _ANSWERS_WITHIN, _QUIET = 20.0, 8.0, 0.6
_LOOK = 0.2
_MOST, _LONGEST = 20, 1_000


class TellBridge(WriteParams):
    text: str = Field(min_length=1, max_length=4_000)
    room: str = Field(
        "", max_length=255, description="id or name of a room of the line; default: with the bot"
    )
    network: Network = ""


class Said(TypedDict):
    room_id: str
    event_id: str
    answers: list[str]  # what the bot said to it within some seconds


class LineOperations:
    """Says what operators want to have said, and tells what the bot answers."""

    def __init__(self, policy: PortalPolicy, homeserver: Homeserver, meta: Meta) -> None:
        self._policy = policy
        self._homeserver = homeserver
        self._meta = meta

    @operation("portals.tell", Scope.ADMIN, Said)
    async def _tell(self, caller: Caller, params: TellBridge) -> Result:
        """Say something to a bridge's bot, as its line."""
        bridge = self._policy.bridges[network_of(self._policy, params.network)]
        if bridge.line is None:
            text = (
                f"{code(bridge.name)} has no `line`: whoever is logged in there talks to its bot."
            )
            raise ToolError(text, Fault.CONFLICT)
        line = self._homeserver.acting_as(bridge.line)
        try:
            room_id = await self._room(bridge, line, params.room)
            content = {
                "msgtype": "m.text",
                "body": params.text,
                MARKER: {"txn": caller.txn("said")},
            }
            event_id = await line.send(
                room_id, "m.room.message", content, caller.txn("said"), look_first=caller.again
            )
            answers = await _answers(bridge, line, room_id, event_id)
        except MatrixRequestError as error:
            raise ToolError(f"The homeserver refuses: {refusal(error)}", Fault.FORBIDDEN) from error
        return {"room_id": room_id, "event_id": event_id, "answers": answers}

    async def _room(self, bridge: Bridge, line: Intent, wanted: str) -> str:
        joined = await line.joined_rooms()
        if wanted:
            names = {one: await line.room_name(one) for one in joined if one != wanted}
            found = [wanted] if wanted in joined else [one for one in names if names[one] == wanted]
            if len(found) != 1:
                text = f"The line is in no one room {code(wanted)}."
                raise ToolError(text, Fault.NOT_FOUND)
            return found[0]
        key = f"line room {bridge.name}"
        known = await self._meta.get(key)
        if known in joined:
            return str(known)
        content = {"preset": "private_chat", "is_direct": True, "invite": [bridge.bot]}
        room_id = await line.create_room(content)
        await self._meta.set(key, room_id)
        until = clock.now() + _COMES_WITHIN
        while bridge.bot not in await line.joined_members(room_id):
            if clock.now() > until:
                text = (
                    f"{code(bridge.bot)} does not come: is the bridge running, and may we use it?"
                )
                raise ToolError(text, Fault.UNAVAILABLE)
            await asyncio.sleep(_LOOK)
        return room_id


async def _answers(bridge: Bridge, line: Intent, room_id: str, event_id: str) -> list[str]:
    """What the bot has said since an event, once it has said all for now."""
    heard, changed, until = list[str](), clock.now(), clock.now() + _ANSWERS_WITHIN
    while clock.now() < until:
        page = await line.messages(room_id, limit=_MOST)
        new = _said_since(page.events, event_id, bridge.bot)
        if new != heard:
            heard, changed = new, clock.now()
        elif heard and clock.now() - changed > _QUIET:
            break
        await asyncio.sleep(_LOOK)
    return heard


def _said_since(newest_first: Sequence[dict[str, Any]], event_id: str, bot: str) -> list[str]:
    said: list[str] = []
    for event in newest_first:
        if event.get("event_id") == event_id:
            break
        body = mapping(event.get("content")).get("body")
        if event.get("sender") == bot and isinstance(body, str):
            said.append(body[:_LONGEST])
    return said[::-1]
