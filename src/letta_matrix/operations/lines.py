"""Talking to a bridge's own bot as the line that is logged in to it."""

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from mautrix.errors import MatrixRequestError
from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common import clock
from letta_matrix.common.json_fields import mapping, string_of
from letta_matrix.common.parts import part
from letta_matrix.common.waiting import is_set
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.event_bus import EventBus
from letta_matrix.matrix.events import RawEvent
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.operation import operation
from letta_matrix.operations.portals import Network, network_of
from letta_matrix.operations.toolbox.tool import Caller, Result, WriteParams
from letta_matrix.portals.bridges import NetworkBridge
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.meta import Meta

_COMES_WITHIN, _ANSWERS_WITHIN, _QUIET = 20.0, 8.0, 0.6
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
    answers: Annotated[list[str], Field(description="of the bot, within some seconds")]


@part
class LineOperations:
    """Says what operators want to have said, and tells what the bot answers."""

    _policy: PortalPolicy
    _homeserver: Homeserver
    _meta: Meta
    _event_bus: EventBus

    @operation("portals.tell", Scope.ADMIN, Said, rest="POST /portals/tell")
    async def tell_bridge(self, caller: Caller, params: TellBridge) -> Result:
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
            with self._heard(bridge.bot, room_id) as heard:
                event_id = await _said(caller, line, room_id, params.text)
                await _pause_in(heard)
            page = await line.messages(room_id, limit=_MOST)
            answers = _said_since(page.events, event_id, bridge.bot)
        except MatrixRequestError as error:
            raise ToolError(f"The homeserver refuses: {refusal(error)}", Fault.FORBIDDEN) from error
        return {"room_id": room_id, "event_id": event_id, "answers": answers}

    async def _room(self, bridge: NetworkBridge, line: Intent, wanted: str) -> str:
        joined = await line.joined_rooms()
        if wanted:
            names = {one: await line.room_name(one) for one in joined if one != wanted}
            found = [wanted] if wanted in joined else [one for one in names if names[one] == wanted]
            if len(found) != 1:
                text = f"The line is in no one room {code(wanted)}."
                raise ToolError(text, Fault.NOT_FOUND)
            return found[0]
        key = f"line room {bridge.name}"
        room_id = await self._meta.get(key) or ""
        there = await _membership(line, room_id, bridge.bot) if room_id in joined else "ban"
        if there == "join":
            return room_id
        with self._heard(bridge.bot) as heard:
            if there == "ban":
                content = {"preset": "private_chat", "is_direct": True, "invite": [bridge.bot]}
                room_id = await line.create_room(content)
                await self._meta.set(key, room_id)
            else:
                if there == "invite":
                    # One that came while the bridge was starting is taken by nobody any more.
                    await line.kick(room_id, bridge.bot)
                await line.invite(room_id, bridge.bot)
            until = clock.now() + _COMES_WITHIN
            while bridge.bot not in await line.joined_members(room_id):
                if not await is_set(heard, until - clock.now()):
                    who = code(bridge.bot)
                    text = f"{who} does not come: is the bridge running, and may we use it?"
                    raise ToolError(text, Fault.UNAVAILABLE)
                heard.clear()
        return room_id

    @contextmanager
    def _heard(self, user_id: str, room_id: str = "") -> Generator[asyncio.Event]:
        """Is set whenever something comes of a user, in a room if given."""
        heard = asyncio.Event()

        def listen(event: RawEvent) -> None:
            if event.get("sender") == user_id and room_id in ("", event.get("room_id")):
                heard.set()

        with self._event_bus.listen(listen):
            yield heard


async def _membership(line: Intent, room_id: str, user_id: str) -> str:
    """ "" where they were never there."""
    state = await line.state(room_id, "m.room.member", user_id)
    return string_of(state, "membership")


async def _said(caller: Caller, line: Intent, room_id: str, text: str) -> str:
    txn = caller.txn("said")
    content = {"msgtype": "m.text", "body": text, MARKER: {"txn": txn}}
    return await line.send(room_id, "m.room.message", content, txn, look_first=caller.again)


async def _pause_in(heard: asyncio.Event) -> None:
    """Wait until somebody has spoken and says no more for now, or says nothing."""
    until, patience = clock.now() + _ANSWERS_WITHIN, _ANSWERS_WITHIN
    while await is_set(heard, min(patience, until - clock.now())):
        heard.clear()
        patience = _QUIET


def _said_since(newest_first: Sequence[dict[str, Any]], event_id: str, bot: str) -> list[str]:
    said: list[str] = []
    for event in newest_first:
        if event.get("event_id") == event_id:
            break
        body = mapping(event.get("content")).get("body")
        if event.get("sender") == bot and isinstance(body, str):
            said.append(body[:_LONGEST])
    return said[::-1]
