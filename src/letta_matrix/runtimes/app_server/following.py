"""Running a turn, and following it again after anything went away in the meantime."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field

import structlog

from letta_matrix.runtimes.app_server.connection import Connection, Feed, Mark
from letta_matrix.runtimes.app_server.frames import (
    Json,
    Scope,
    ScopedFrame,
    as_dict,
    error_line,
    id_of,
    parse,
    scope_of,
)
from letta_matrix.runtimes.app_server.history import StoredTurn, find_turn
from letta_matrix.runtimes.app_server.turns import TurnReader
from letta_matrix.runtimes.protocol import (
    ConversationGone,
    RuntimeRefused,
    SaveTurnState,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnLost,
    TurnRequest,
    TurnStarted,
    TurnState,
)

QUIET = 5.0
"""Seconds without a frame of an accepted turn after which the stored messages are read."""
REPORT_WAIT = 3.0
"""Seconds in which the App Server reports a conversation's state after `runtime_start`."""
REQUEUE_WAIT = 0.4
"""Seconds after that report in which it takes up inputs it had not finished."""
SEND_TRIES = 5
SEND_PAUSE = 0.1
_log = structlog.get_logger()

Events = AsyncGenerator[TurnEvent]


@dataclass(slots=True)
class Kept:
    """Frames of a turn that the keeper still had, read: all of them if `whole`, brought by
    the upstream connection `generation`; live frames go on after `seq`."""

    reader: TurnReader
    generation: object
    events: list[TurnEvent] = field(default_factory=list[TurnEvent])
    whole: bool = False
    seq: int = 0


@dataclass(slots=True)
class Follower:
    """One run of one turn; made anew for each try."""

    connection: Connection
    request: TurnRequest
    feed: Feed
    save: SaveTurnState
    had_tools: bool = False

    @property
    def scope(self) -> Scope:
        return Scope(self.request.agent_id, self.request.conversation_id)

    @property
    def request_id(self) -> str:
        """Derived from the message id, so that its acceptance is known again in a replay."""
        return f"turn:{self.request.message_id}"

    def new_reader(self) -> TurnReader:
        return TurnReader(self.request.message_id, self.request_id)

    async def ask(self) -> Events:
        """Prompt the agent and follow the turn."""
        await self.connection.start_runtime(self.scope)
        if self.scope in self.connection.unsettled:
            raise await self._lost("the conversation is stuck in a turn that was cancelled", None)
        await self.save(self.state())
        await self._send()
        async for event in self._follow(self.new_reader()):
            yield event

    async def resume(self, state: TurnState) -> Events:
        """Follow a turn that an earlier try may have started; prompt only if it did not."""
        link = self.connection.link
        unbroken = link.same_stream(state.get("epoch"), state.get("generation"))
        kept = await self._read_kept(state)
        if kept.whole and (kept.reader.finished or kept.generation == link.generation):
            for event in kept.events:
                yield event
            async for event in self._follow(kept.reader, after=kept.seq):
                yield event
            return
        if not unbroken:
            await self._refuse_to_repeat_tools(kept.reader.tools_started)
        async for event in self._recover(unbroken=unbroken):
            yield event

    def state(self) -> dict[str, object]:
        """Where a turn that starts now begins in the keeper's stream."""
        link = self.connection.link
        place = {"epoch": link.epoch, "generation": link.generation}
        return {**place, "seq": self.connection.seq}

    async def _send(self) -> None:
        message = {
            "role": "user",
            "content": self.request.text,
            "client_message_id": self.request.message_id,
        }
        payload = {"kind": "create_message", "messages": [message]}
        answer: Json = {}
        for attempt in range(SEND_TRIES):
            await self.connection.start_runtime(self.scope)
            answer = await self._input(self.request_id, payload)
            if answer.get("accepted"):
                return
            # Straight after a turn's end an input is sometimes rejected; later it is taken.
            await asyncio.sleep(SEND_PAUSE * 2**attempt)
        raise RuntimeRefused(f"the App Server took no message: {error_line(answer.get('error'))}")

    async def _input(self, request_id: str, payload: Json) -> Json:
        return await self.connection.request(
            "input", request_id=request_id, runtime=self.scope.as_json(), payload=payload
        )

    async def _read_kept(self, state: TurnState) -> Kept:
        """What the keeper still has of the turn."""
        kept = Kept(self.new_reader(), state.get("generation"))
        since = state.get("seq")
        if state.get("epoch") != self.connection.link.epoch or not isinstance(since, int):
            return kept
        replay = await self.connection.replay(self.scope, since)
        for frame in replay.frames:
            data = parse(frame.text)
            if data is None or scope_of(data) != self.scope or kept.reader.finished:
                continue
            if frame.generation != kept.generation:
                # Another connection: a turn cut off, and perhaps begun anew.
                kept = Kept(self.new_reader(), frame.generation)
            scoped = ScopedFrame(frame.seq, frame.generation, data)
            kept.events += self._count(kept.reader, kept.reader.read(scoped))
        kept.whole = kept.reader.from_start and not replay.gap
        kept.seq = replay.seq
        return kept

    async def _follow(self, reader: TurnReader, after: int = 0) -> Events:
        while not reader.finished:
            try:
                async with asyncio.timeout(None if reader.begun else QUIET):
                    frame = await self.feed.get()
            except TimeoutError:
                stored = await find_turn(self.connection, self.scope, self.request.message_id)
                if stored is None or reader.begun:
                    continue
                async for event in self._recover(unbroken=True):
                    yield event
                return
            if frame is Mark.LOST:
                raise self.connection.unavailable()
            if frame is Mark.CANCELLED:
                yield TurnFinished(StopReason.CANCELLED, run_id=reader.run_id)
                return
            if isinstance(frame, Mark) or frame.seq <= after:
                continue
            for event in self._count(reader, reader.read(frame)):
                if reader.wedged:
                    raise await self._lost("the conversation was stuck", None)
                if reader.gone and isinstance(event, TurnFinished):
                    raise ConversationGone(event.error)
                yield event

    async def _recover(self, *, unbroken: bool) -> Events:
        """Follow a turn whose frames are lost: by what the App Server still does with it,
        else by what it has stored of it, else by asking."""
        place = self.state()
        reader, events, joined = await self._report()
        if joined:
            async for event in self._join(reader):
                yield event
            return
        if reader.taken:
            if self.had_tools:
                await self.connection.call("abort_message", runtime=self.scope.as_json())
                raise await self._lost("the App Server was restarted while a tool ran", None)
            await self.save(place)
            for event in events:
                yield event
            async for event in self._follow(reader):
                yield event
            return
        stored = await find_turn(self.connection, self.scope, self.request.message_id)
        if stored is None:
            async for event in self.ask():
                yield event
            return
        if reader.busy and not stored.followed:
            reader.adopt()
            async for event in self._join(reader):
                yield event
            return
        # A run the App Server remembers but no longer works on either ended, or was cut off
        # with the connection and blocks its conversation for ever; nothing tells which.
        wedged = reader.remembered and not unbroken and not stored.followed
        if wedged or not stored.texts:
            raise await self._lost("the reply was cut off", stored)
        for event in _stored_events(stored, TurnFinished(StopReason.END_TURN)):
            yield event

    async def _refuse_to_repeat_tools(self, seen: bool) -> None:
        """Raise TurnLost where following a turn that was cut off would run its tools again.

        A restarted App Server asks the model anew, from the prompt on, for every turn it had
        not finished, as soon as somebody subscribes to the conversation.
        """
        stored = await find_turn(self.connection, self.scope, self.request.message_id)
        if stored is None or stored.followed or not stored.tools:
            return
        self.had_tools = True
        if (seen or stored.in_tools) and not self.connection.has_spare:
            raise await self._lost("the App Server went away while a tool ran", stored)

    async def _report(self) -> tuple[TurnReader, list[TurnEvent], bool]:
        """Ask for the conversation's state: a reader fed with the answer, the events, and
        whether the turn was in full swing already, so that its first text is missing.

        A restarted App Server takes up unfinished inputs by itself when asked this.
        """
        while not self.feed.empty():
            self.feed.get_nowait()
        await self.connection.start_runtime(self.scope, again=True)
        reader, events = self.new_reader(), list[TurnEvent]()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + REPORT_WAIT
        reported = joined = False
        while not reader.begun:
            try:
                async with asyncio.timeout_at(deadline):
                    frame = await self.feed.get()
            except TimeoutError:
                break
            if isinstance(frame, Mark):
                raise self.connection.unavailable()
            queued = reader.taken
            events += self._count(reader, reader.read(frame))
            if frame.type == "update_loop_status" and not reported:
                reported = True
                joined = reader.begun and not queued
                deadline = loop.time() + REQUEUE_WAIT
        return reader, events, joined

    async def _join(self, reader: TurnReader) -> Events:
        """Wait for the end of a turn that is under way, then tell it from what is stored."""
        yield TurnStarted(reader.run_id)
        finish = TurnFinished(StopReason.END_TURN)
        async for event in self._follow(reader):
            if isinstance(event, TurnFinished):
                finish = event
            elif not isinstance(event, TextDelta | TurnStarted):
                yield event
        stored = await find_turn(self.connection, self.scope, self.request.message_id)
        for event in _stored_events(stored or StoredTurn(), finish):
            if not isinstance(event, TurnStarted):
                yield event

    async def _lost(self, reason: str, stored: StoredTurn | None) -> TurnLost:
        """The error to raise, with a fork to go on in: a repeated message id is answered in
        no conversation that has it. The fork ends before this turn's prompt, unless the agent
        should know of tools it has used."""
        stored = stored or await find_turn(self.connection, self.scope, self.request.message_id)
        tools = self.had_tools or (stored is not None and stored.tools)
        fresh = await self._fork(stored.before if stored and not tools else None)
        _log.warning("turn lost", reason=reason, tools_started=tools)
        return TurnLost(reason, tools_started=tools, fresh_conversation=fresh)

    async def _fork(self, up_to: str | None) -> str:
        """A conversation with the same past; `up_to` a message id, "" for none of it, None
        for all of it."""
        agent_id = self.request.agent_id
        if up_to != "":
            body = {"agent_id": agent_id} | ({"message_id": up_to} if up_to else {})
            made = await self.connection.create(
                "conversation_fork",
                "conversation",
                conversation_id=self.request.conversation_id,
                body=body,
            )
        else:
            old = await self.connection.call("conversation_retrieve", **self.scope.as_json())
            summary = as_dict(old.get("conversation")).get("summary") or ""
            body = {"agent_id": agent_id, "summary": summary}
            made = await self.connection.create("conversation_create", "conversation", body=body)
        return id_of(made)

    def _count(self, reader: TurnReader, events: Iterable[TurnEvent]) -> list[TurnEvent]:
        read = list(events)
        for kind in reader.unknown:
            self.connection.counters[f"unknown {kind}"] += 1
        reader.unknown.clear()
        return read


def _stored_events(stored: StoredTurn, finish: TurnFinished) -> list[TurnEvent]:
    texts = [TextDelta(part_id, text) for part_id, text in stored.texts]
    return [TurnStarted(), *texts, finish]
