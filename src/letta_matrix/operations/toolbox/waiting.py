"""The tool that waits for the next message in a room."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import NotRequired

from pydantic import Field

from letta_matrix.access.faults import ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common import clock
from letta_matrix.common.json_fields import mapping
from letta_matrix.matrix.content import LIVE
from letta_matrix.matrix.events import Event, RawEvent, newest_content
from letta_matrix.operations.toolbox.arguments import OptionalEvent, OptionalUser, RoomParams
from letta_matrix.operations.toolbox.naming import joined_room
from letta_matrix.operations.toolbox.progress import telling
from letta_matrix.operations.toolbox.results import UNTRUSTED, OfRoom, fit_texts
from letta_matrix.operations.toolbox.timeline import FILTER, Message, entry, is_message
from letta_matrix.operations.toolbox.tool import LONGEST_WAIT, Caller, Result, tool
from letta_matrix.operations.toolbox.writing import existing

_PAGES, _PAGE, _KNOWN = 10, 100, 20
_NOTHING = "Nobody wrote within {seconds:g} seconds."
_GROWING = "This message is still being written; matrix_read_room reads it when it is complete."
_CUT = "The message is long and is cut."


class WaitForMessage(RoomParams):
    from_user: OptionalUser = Field("", description="by whom (@name:server); else by anybody else")
    after: OptionalEvent = Field(
        "", description="message ($...) since which to look first; else from now on"
    )
    timeout_seconds: float = Field(120.0, ge=0, le=LONGEST_WAIT, description="how long to wait")


class NextMessage(OfRoom):
    """Without `message` nobody wrote in time."""

    untrusted: NotRequired[str]
    message: NotRequired[Message]
    note: NotRequired[str]


@tool(
    "wait_for_message",
    "Wait for a message",
    Scope.AGENTS,
    NextMessage,
    read_only=True,
    seconds=None,
)
async def wait_for_message(caller: Caller, params: WaitForMessage) -> Result:
    """Wait for the next message that somebody else writes in a Matrix room you are in."""
    if params.from_user == caller.user_id:
        raise ToolError("`from_user` is you; wait for somebody else.")
    deadline = clock.now() + params.timeout_seconds
    async with joined_room(caller, params.room_id) as room_id:
        watch = _Watch(room_id, caller.user_id, params.from_user)
        token = await _begin(caller, watch, params.after)
        with caller.house.event_bus.listen(watch.see):
            # Listening already: what comes while we look is in one or the other.
            with watch.looking():
                await _look(caller, watch, token)
            async with telling(caller, params.timeout_seconds, "waiting for a message"):
                await watch.wait(deadline)
        if not watch.event_id:
            note = _NOTHING.format(seconds=params.timeout_seconds)
            return {"room_id": room_id, "note": note}
        # As the caller may see it, in its newest version. What an agent is still writing counts
        # once it is whole.
        event = await existing(caller, room_id, watch.event_id)
    return _told(caller, room_id, event)


def _told(caller: Caller, room_id: str, event: RawEvent) -> Result:
    names = caller.house.agent_names()
    note = {"note": _GROWING} if LIVE in newest_content(event) else {}

    def make(length: int) -> dict[str, object]:
        message = entry(event, names, length)
        return {"room_id": room_id, **UNTRUSTED, "message": message, **note}

    return fit_texts(make, _CUT)


class _Watch:
    """Looks out for the first message of others in a room, and for its end."""

    def __init__(self, room_id: str, own_id: str, from_user: str) -> None:
        self.room_id = room_id
        self.own_id = own_id
        self.from_user = from_user
        self.event_id = ""
        self._seen: list[object] = []
        self._not_before = 0
        self._held: list[RawEvent] | None = None
        self._whole: set[object] = set()
        self._done = asyncio.Event()

    @contextmanager
    def looking(self) -> Generator[None]:
        """What comes meanwhile is newer than what is looked at, and waits for its turn."""
        self._held = []
        yield
        held, self._held = self._held, None
        for event in held:
            self.take(event)

    def begin_after(self, *events: RawEvent) -> None:
        """Take none of these, nor what is older than the first one, though it may come again."""
        self._seen = [event.get("event_id") for event in events]
        self._not_before = Event(events[0]).sent_ms if events else 0

    def see(self, event: RawEvent) -> None:
        """An event that has come."""
        if event.get("room_id") != self.room_id:
            return
        if self._held is None:
            self.take(event)
        else:
            self._held.append(event)

    def take(self, event: RawEvent) -> bool:
        """An event of the room, in their order; whether the message is found with it."""
        if not self.event_id and self._fits(event):
            self.event_id = str(event.get("event_id"))
            if LIVE not in newest_content(event):
                self._whole.add(self.event_id)
        elif target := _completed(event):
            self._whole.add(target)
        if self.event_id and self.event_id in self._whole:
            self._done.set()
        return bool(self.event_id)

    async def wait(self, deadline: float) -> None:
        """Until the message is there and whole, or the time has come."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._done.wait()
        except TimeoutError:
            return

    def _fits(self, event: RawEvent) -> bool:
        sender, sent_ms = event.get("sender"), Event(event).sent_ms
        if not isinstance(sender, str) or sender == self.own_id:
            return False
        if self.from_user and sender != self.from_user:
            return False
        if event.get("event_id") in self._seen or not is_message(event):
            return False
        return not sent_ms or sent_ms >= self._not_before


def _completed(event: RawEvent) -> str:
    """The message that an edit makes whole, "" for none."""
    edit = Event(event)
    return edit.edited if LIVE not in mapping(edit.content.get("m.new_content")) else ""


async def _begin(caller: Caller, watch: _Watch, after: str) -> str:
    """Begin after an event, or after the newest; returns the place from which on to look."""
    if after:
        await existing(caller, watch.room_id, after)
        around = await caller.intent.around(watch.room_id, after, limit=0)
        watch.begin_after(around.event)
        return around.after.end
    # What the bridge hears late, after it was away, is told as if it were new. Times alone do
    # not tell it apart: servers' clocks differ.
    page = await caller.intent.messages(watch.room_id, limit=_KNOWN, filters=FILTER)
    watch.begin_after(*page.events[::-1])
    return page.start


async def _look(caller: Caller, watch: _Watch, token: str) -> None:
    """Look through what came after a place, page by page."""
    room_id, intent = watch.room_id, caller.intent
    wanted = {**FILTER, "not_senders": [watch.own_id]}
    wanted |= {"senders": [watch.from_user]} if watch.from_user else {}
    for _ in range(_PAGES):
        if not token:
            return
        page = await intent.messages(room_id, limit=_PAGE, after=token, filters=wanted)
        if any(map(watch.take, page.events)):
            return
        token = page.end
