"""Running a turn, and following it again after anything went away in the meantime."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from letta_matrix.common import clock
from letta_matrix.common.json_fields import Json, as_texts
from letta_matrix.runtimes.app_server.feeds import Mark, next_of
from letta_matrix.runtimes.app_server.frames import refusal
from letta_matrix.runtimes.app_server.history import StoredTurn
from letta_matrix.runtimes.app_server.images import why_dropped
from letta_matrix.runtimes.app_server.recovery import Kept, Recovery, Report
from letta_matrix.runtimes.app_server.trails import Trail
from letta_matrix.runtimes.app_server.turns import TurnReader
from letta_matrix.runtimes.error_lines import error_line
from letta_matrix.runtimes.faults import TurnLost
from letta_matrix.runtimes.letta_json import content_of
from letta_matrix.runtimes.protocol import (
    ImagesDropped,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnStarted,
    TurnState,
)

QUIET = 5.0
"""Seconds without a frame of an accepted turn after which the stored messages are read."""
SEND_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
APPROVAL_ID = "perm-"
"""What the App Server puts before the id of a call to name its approval."""
_log = structlog.get_logger()

Events = AsyncGenerator[TurnEvent]


@dataclass(slots=True)
class Follower(Recovery):
    """One run of one turn; made anew for each try."""

    trail: Trail
    had_tools: bool = False
    only_asked: bool = False
    dropped: str = ""

    async def run(self, state: TurnState | None) -> Events:
        """Prompt the agent, with the saved `state` of an earlier try only if that did not, and
        follow the turn."""
        told = await (self._ask() if state is None else self._resume(state))
        if self.dropped:
            yield ImagesDropped(self.dropped)
        async with aclosing(told):
            async for event in told:
                yield event

    async def _ask(self) -> Events:
        """Prompt the agent; what comes of it."""
        await self.connection.start_runtime(self.scope)
        if self.scope in self.connection.unsettled:
            raise await self._lost("the conversation is stuck in a turn that was cancelled", None)
        if self.request.images:
            self.dropped = await why_dropped(self.connection, self.scope)
        await self.trail.remember(self._state())
        await self._send()
        return self._follow(self.new_reader())

    async def _resume(self, state: TurnState) -> Events:
        """What becomes of a turn that an earlier try may have started."""
        link = self.connection.link
        unbroken = link.same_stream(state.get("life"), state.get("generation"))
        self.dropped = str(state.get("dropped") or "")
        kept = await self.kept(state)
        if kept.whole and (kept.reader.finished or kept.generation == link.generation):
            return self._follow(kept.reader, kept.events, after=kept.seq)
        if kept.end is not None and (stored := await self.stored()) is not None:
            # Another connection brought the end, and not all that came before it.
            return _told(stored, kept.end)
        self.only_asked = await self._has_only_asked(state)
        if not unbroken and not self._only_asked(kept) and not self.only_asked:
            await self._refuse_to_repeat_tools(kept.reader.tools_started)
        return await self._recover(unbroken=unbroken)

    def _state(self) -> dict[str, object]:
        """Where a turn that starts now begins in the keeper's stream."""
        link = self.connection.link
        place = {"life": link.life, "generation": link.generation}
        dropped = {"dropped": self.dropped} if self.dropped else {}
        return {**place, "seq": self.connection.seq, **dropped}

    async def _send(self) -> None:
        message = {
            "role": "user",
            "content": content_of(self.request),
            "client_message_id": self.request.message_id,
        }
        payload = {"kind": "create_message", "messages": [message]}
        answer: Json = {}
        for pause in SEND_PAUSES:
            await self.connection.start_runtime(self.scope)
            if self.scope in self.connection.stopped:
                # Stopped before it was told: there would be nobody to stop it again.
                raise self.connection.unavailable()
            answer = await self.connection.request(
                "input",
                request_id=self.request_id,
                runtime=self.scope.as_json(),
                payload=payload,
            )
            if answer.get("accepted"):
                return
            # Straight after a turn's end an input is sometimes rejected; later it is taken.
            await asyncio.sleep(pause)
        raise refusal(error_line(answer.get("error")), "the App Server took no message")

    async def _follow(
        self, reader: TurnReader, told: Iterable[TurnEvent] = (), *, after: int = 0
    ) -> Events:
        """Go on behind what was `told`, with the frames after a place, to the turn's end."""
        for event in told:
            yield event
        looked = False
        while not reader.finished:
            frame = await next_of(self.feed, None if reader.begun else clock.now() + QUIET)
            if frame is None:
                stored = await self.stored()
                if stored is None and not looked:
                    # Behind a turn that waits for an approval, which is told again.
                    looked = True
                    await self.connection.start_runtime(self.scope, again=True)
                if stored is None or reader.begun:
                    continue
                async with aclosing(await self._recover(unbroken=True)) as events:
                    async for event in events:
                        yield event
                return
            if frame is Mark.LOST:
                raise self.connection.unavailable()
            if frame is Mark.CANCELLED:
                yield TurnFinished(StopReason.CANCELLED, run_id=reader.run_id)
                return
            if isinstance(frame, Mark) or frame.seq <= after:
                continue
            for event in self.read(reader, frame):
                if reader.wedged:
                    raise await self._lost("the conversation was stuck", None)
                if reader.gone is not None and isinstance(event, TurnFinished):
                    raise reader.gone
                yield event

    async def _recover(self, *, unbroken: bool) -> Events:
        """What becomes of a turn whose frames are lost: by what the App Server still does with
        it, else by what it has stored of it, else by asking."""
        place = self._state()
        report = await self.report()
        reader = report.reader
        if report.joined:
            return self._join(report, unbroken=unbroken)
        if reader.taken:
            if self.had_tools:
                await self.connection.call("abort_message", runtime=self.scope.as_json())
                raise await self._lost("the App Server was restarted while a tool ran", None)
            await self.trail.remember(place)
            return self._follow(reader, report.events)
        stored = await self.stored()
        if stored is None:
            return await self._ask()
        if reader.busy and not stored.followed:
            reader.adopt()
            return self._join(report, unbroken=unbroken)
        # A run the App Server remembers but no longer works on either ended, or was cut off
        # with the connection and blocks its conversation for ever; nothing tells which.
        wedged = reader.remembered and not unbroken and not stored.followed
        if wedged or not stored.texts:
            raise await self._lost("the reply was cut off", stored)
        return _told(stored, TurnFinished(StopReason.END_TURN))

    def _only_asked(self, kept: Kept) -> bool:
        """Whether the turn came no further than approvals that nobody has answered, so that none
        of its tools has run. What another process did about them cannot be known."""
        reader, unanswered = kept.reader, self.trail.unanswered
        waiting = bool(reader.approvals) and unanswered.issuperset(reader.approvals)
        return kept.whole and waiting and not reader.tools_started

    async def _has_only_asked(self, state: TurnState) -> bool:
        """Whether, by what was saved before any answer was given, all that the turn has called
        waited for an approval."""
        waiting = {
            approval_id.removeprefix(APPROVAL_ID) for approval_id in as_texts(state.get("waiting"))
        }
        stored = await self.stored() if waiting else None
        return stored is not None and not stored.returned and stored.calls <= waiting

    async def _refuse_to_repeat_tools(self, seen: bool) -> None:
        """Raise TurnLost where following a turn that was cut off would run its tools again.

        A restarted App Server asks the model anew, from the prompt on, for every turn it had
        not finished, as soon as somebody subscribes to the conversation.
        """
        stored = await self.stored()
        if stored is None or stored.followed or not stored.tools:
            return
        self.had_tools = True
        if (seen or stored.in_tools) and not self.connection.has_spare:
            raise await self._lost("the App Server went away while a tool ran", stored)

    async def _join(self, report: Report, *, unbroken: bool) -> Events:
        """Wait for the end of a turn that is under way, then tell it from what is stored."""
        yield TurnStarted(report.reader.run_id)
        finish = TurnFinished(StopReason.END_TURN)
        async with aclosing(self._follow(report.reader, report.events)) as events:
            async for event in events:
                if isinstance(event, TurnFinished):
                    finish = event
                elif not isinstance(event, TextDelta | TurnStarted):
                    yield event
        cancelled = finish.stop_reason is StopReason.CANCELLED
        if cancelled and not unbroken and self.scope not in self.connection.stopped:
            # By the App Server, which saw all its clients gone and was not done with it yet.
            raise await self._lost("the reply was cut off", None)
        for event in (await self.stored() or StoredTurn()).said:
            yield event
        yield finish

    async def _lost(self, reason: str, stored: StoredTurn | None) -> TurnLost:
        """The error to raise, with a fork to go on in: a repeated message id is answered in
        no conversation that has it. The fork ends before this turn's prompt, unless the agent
        should know of tools it has used."""
        stored = stored or await self.stored()
        tools = self.had_tools or (stored is not None and stored.tools and not self.only_asked)
        fresh = await self.fork(stored.before if stored and not tools else None)
        _log.warning("turn lost", reason=reason, tools_started=tools)
        return TurnLost(reason, tools_started=tools, fresh_conversation=fresh)


async def _told(stored: StoredTurn, end: TurnFinished) -> Events:
    """A turn that is over, from what is stored of it."""
    yield TurnStarted()
    for event in stored.said:
        yield event
    yield end
