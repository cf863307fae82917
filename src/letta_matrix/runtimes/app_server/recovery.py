"""What can still be learnt of a turn after somebody went away in its midst."""

from dataclasses import dataclass, field

from letta_matrix.common import clock
from letta_matrix.common.json_fields import id_of, mapping
from letta_matrix.runtimes.app_server.connection import Connection
from letta_matrix.runtimes.app_server.feeds import Feed, Mark, next_of
from letta_matrix.runtimes.app_server.frames import Scope, ScopedFrame, parse, scope_of
from letta_matrix.runtimes.app_server.history import StoredTurn, find_turn
from letta_matrix.runtimes.app_server.turns import TurnReader
from letta_matrix.runtimes.protocol import (
    StopReason,
    TurnEvent,
    TurnFinished,
    TurnRequest,
    TurnState,
)

REPORT_WAIT = 3.0
"""Seconds in which the App Server reports a conversation's state after `runtime_start`."""
REQUEUE_WAIT = 0.4
"""Seconds after that report in which it takes up inputs it had not finished."""


@dataclass(slots=True)
class Kept:
    """Frames of a turn that the keeper still had, read: all of them if `whole`, brought by
    the upstream connection `generation`; live frames go on after `seq`."""

    reader: TurnReader
    generation: object
    events: list[TurnEvent] = field(default_factory=list[TurnEvent])
    whole: bool = False
    seq: int = 0

    @property
    def end(self) -> TurnFinished | None:
        """How the turn ended, if the frames tell: an App Server whose clients are all gone
        cancels it by itself, and that is no end."""
        ends = [event for event in self.events if isinstance(event, TurnFinished)]
        return ends[0] if ends and ends[0].stop_reason is not StopReason.CANCELLED else None


@dataclass(slots=True)
class Report:
    """A conversation's state as the App Server told it: a reader fed with it, the events, and
    whether the turn was in full swing already or just over, so that its first text is missing."""

    reader: TurnReader
    events: list[TurnEvent] = field(default_factory=list[TurnEvent])
    joined: bool = False


@dataclass(slots=True)
class Recovery:
    """Looks for one turn in everything that may know of it."""

    connection: Connection
    request: TurnRequest
    feed: Feed

    @property
    def scope(self) -> Scope:
        return Scope(self.request.agent_id, self.request.conversation_id)

    @property
    def request_id(self) -> str:
        """Derived from the message id, so that its acceptance is known again in a replay; one
        message may be for several agents."""
        return f"turn:{self.request.conversation_id}:{self.request.message_id}"

    def new_reader(self, *, anew: bool = False) -> TurnReader:
        unasked = self.connection.tools.unasked
        return TurnReader(self.request.message_id, self.request_id, unasked, anew=anew)

    def read(self, reader: TurnReader, frame: ScopedFrame) -> list[TurnEvent]:
        """The frame's events; what is unknown in it is counted."""
        events = list(reader.read(frame))
        for kind in reader.unknown:
            self.connection.counters[f"unknown {kind}"] += 1
        reader.unknown.clear()
        return events

    async def kept(self, state: TurnState) -> Kept:
        """What the keeper still has of the turn."""
        kept = Kept(self.new_reader(), state.get("generation"))
        since = state.get("seq")
        if state.get("life") != self.connection.link.life or not isinstance(since, int):
            return kept
        replay = await self.connection.replay(self.scope, since)
        for frame in replay.frames:
            data = parse(frame.text)
            if data is None or scope_of(data) != self.scope or kept.reader.finished:
                continue
            if frame.generation != kept.generation:
                # Another connection: a turn cut off, and perhaps begun anew.
                kept = Kept(self.new_reader(), frame.generation)
            kept.events += self.read(kept.reader, ScopedFrame(frame.seq, frame.generation, data))
        kept.whole = kept.reader.from_start and not replay.gap
        kept.seq = replay.seq
        return kept

    async def stored(self) -> StoredTurn | None:
        return await find_turn(self.connection, self.scope, self.request.message_id)

    async def report(self) -> Report:
        """Ask for the conversation's state.

        A restarted App Server takes up unfinished inputs by itself when asked this. Pending
        approvals come before the status that tells whose they are.
        """
        while not self.feed.empty():
            self.feed.get_nowait()
        await self.connection.start_runtime(self.scope, again=True)
        # A turn that it still works on is joined: its beginning is not told by this reader.
        report, approvals = Report(self.new_reader(anew=True)), list[ScopedFrame]()
        reader, reported, remembered = report.reader, False, False
        deadline = clock.now() + REPORT_WAIT
        while not reader.begun:
            if (frame := await next_of(self.feed, deadline)) is None:
                break
            if isinstance(frame, Mark):
                raise self.connection.unavailable()
            queued = reader.taken
            report.events += self.read(reader, frame)
            if frame.type == "control_request":
                approvals.append(frame)
            elif frame.type == "update_loop_status" and not reported:
                reported = True
                # After a restart it has no run of the turn yet. Otherwise it knows of one, though
                # between a tool and the model's next word none is active.
                remembered = reader.remembered and not queued
                deadline = clock.now() + REQUEUE_WAIT
        report.joined = remembered and reader.begun
        if report.joined:
            for frame in approvals:
                report.events += self.read(reader, frame)
        return report

    async def fork(self, up_to: str | None) -> str:
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
            summary = mapping(old.get("conversation")).get("summary") or ""
            body = {"agent_id": agent_id, "summary": summary}
            made = await self.connection.create("conversation_create", "conversation", body=body)
        return id_of(made)
