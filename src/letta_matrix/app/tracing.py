"""Traces of turns for an OpenTelemetry collector: one for each message, with its stages, the tools
that were called, and the requests that were made for it. No text of anybody is in them.

Imported where traces are wanted alone: OpenTelemetry's SDK is an extra.
"""

import asyncio
import contextlib
import hashlib
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import INVALID_TRACE_ID, Span, Status, StatusCode, set_span_in_context

from letta_matrix import __version__
from letta_matrix.common import clock
from letta_matrix.common.vitals import Trouble
from letta_matrix.common.waiting import is_set
from letta_matrix.conversations.journeys import Stage, Watcher
from letta_matrix.store.turns import Outcome, Turn

if TYPE_CHECKING:
    from letta_matrix.app.assembly import App

_QUEUED, _AT_ONCE = 2048, 256
"""Spans that wait to be sent, and those of one request; what is too much is lost."""
_PAUSE_MS = 2000
_TIMEOUT = 5.0
_LAST_WORDS = 3.0
_LONGEST = 100


def trace_id_of(turn_id: str) -> int:
    """The trace of a turn: the first 16 bytes of its id's SHA-256."""
    found = int.from_bytes(hashlib.sha256(turn_id.encode()).digest()[:16])
    return found or INVALID_TRACE_ID + 1


class Tracing(Watcher):
    """Hears of messages' journeys and of requests (see `attach`), and sends spans from a thread of
    its own: whoever is slow there holds nobody up."""

    def __init__(self, endpoint: str, pause_ms: int = _PAUSE_MS) -> None:
        self._exporter = _Exporter(endpoint)
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=_QUEUED,
            schedule_delay_millis=pause_ms,
            max_export_batch_size=_AT_ONCE,
        )
        named = Resource({"service.name": "letta-matrix", "service.version": __version__})
        self._ids = _Ids()
        provider = TracerProvider(
            # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before.
            resource=named.merge(OTELResourceDetector().detect()),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("letta_matrix", __version__)
        self._turns: dict[str, _Trace] = {}
        self._tools: dict[tuple[str, str], Span] = {}

    def attach(self, app: "App") -> None:
        """Hear of what happens there."""
        app.dispatcher.queues.journeys.watcher = self
        app.homeserver.calls.heard = lambda labels, since, fault: self._asked(
            f"homeserver {' '.join(labels)}", since, fault
        )
        app.turn_runner.calls.heard = lambda labels, since, fault: self._asked(
            f"runtime {' '.join(labels)}", since, fault
        )

    @property
    def trouble(self) -> Trouble | None:
        """Whether traces are lost."""
        return self._exporter.trouble

    def began(self, turn: Turn, arrived: float) -> None:
        self._ids.next_trace = trace_id_of(turn.turn_id)
        ahead = time.time_ns() - round(clock.now() * 1e9)
        span = self._tracer.start_span(
            "turn",
            start_time=_at(arrived, ahead),
            attributes={
                "letta_matrix.turn": turn.turn_id,
                "letta_matrix.agent": turn.agent_id,
                "letta_matrix.room": turn.room_id,
                "letta_matrix.event": turn.event_id,
            },
        )
        self._turns[turn.turn_id] = _Trace(span, ahead)

    def reached(self, turn_id: str, stage: Stage, since: float) -> None:
        if (span := self._below(turn_id, str(stage), since)) is not None:
            span.end()

    def used(self, turn_id: str, call_id: str, tool: str) -> None:
        span = self._below(turn_id, f"tool {tool[:_LONGEST]}", clock.now())
        if span is not None:
            self._tools[turn_id, call_id] = span

    def used_up(self, turn_id: str, call_id: str, *, ok: bool) -> None:
        if (span := self._tools.pop((turn_id, call_id), None)) is not None:
            _end(span, "" if ok else "failed")

    def ended(self, turn_id: str, outcome: str) -> None:
        for key in [key for key in self._tools if key[0] == turn_id]:
            _end(self._tools.pop(key), "no answer")
        if (turn := self._turns.pop(turn_id, None)) is not None:
            turn.span.set_attribute("letta_matrix.outcome", outcome)
            _end(turn.span, outcome if outcome == str(Outcome.FAILED) else "")

    async def close(self) -> None:
        """Send what is left, as long as that takes three seconds at most."""
        done, loop = asyncio.Event(), asyncio.get_running_loop()

        def end() -> None:
            self._processor.shutdown()
            # The loop may have ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=end, name="last traces", daemon=True).start()
        if not await is_set(done, _LAST_WORDS):
            self._exporter.shutdown()

    def _asked(self, name: str, since: float, fault: str) -> None:
        """A request was made, for a turn if the context names one."""
        turn_id = str(structlog.contextvars.get_contextvars().get("turn", ""))
        if (span := self._below(turn_id, name, since)) is not None:
            _end(span, fault)

    def _below(self, turn_id: str, name: str, since: float) -> Span | None:
        turn = self._turns.get(turn_id)
        if turn is None:
            return None
        begun = _at(since, turn.ahead)
        return self._tracer.start_span(name, set_span_in_context(turn.span), start_time=begun)


class _Trace(NamedTuple):
    """A turn's span, and how far the time since 1970 is ahead of `clock.now` in all of its trace
    (nanoseconds): told anew for each, what came later might stand before what came first."""

    span: Span
    ahead: int


class _Ids(RandomIdGenerator):
    """The next trace has the id that was wished for."""

    next_trace = INVALID_TRACE_ID

    def generate_trace_id(self) -> int:
        wished, self.next_trace = self.next_trace, INVALID_TRACE_ID
        return wished or super().generate_trace_id()


class _Exporter(SpanExporter):
    """Counts what it cannot send. Called in a thread of the processor's."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        # Without what may be a secret.
        self._where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._inner = OTLPSpanExporter(endpoint, timeout=_TIMEOUT)
        self._lost, self._fails, self._ended = 0, False, False

    @property
    def trouble(self) -> Trouble | None:
        if not self._fails:
            return None
        return Trouble(
            f"traces cannot be sent to {self._where}; {self._lost} spans were lost",
            "see whether the collector runs there, and takes OTLP over HTTP; "
            "`telemetry.otlp_endpoint` or OTEL_EXPORTER_OTLP_ENDPOINT names it, "
            "OTEL_EXPORTER_OTLP_HEADERS what it wants besides. Nothing else waits for it",
            warns=True,
        )

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._ended:
            return SpanExportResult.FAILURE
        result = self._inner.export(spans)
        self._fails = result is not SpanExportResult.SUCCESS
        self._lost += len(spans) if self._fails else 0
        return result

    def shutdown(self) -> None:
        if not self._ended:
            self._ended = True
            self._inner.shutdown()


def _at(when: float, ahead: int) -> int:
    """Nanoseconds since 1970 of a moment as `clock.now` tells it."""
    return round(when * 1e9) + ahead


def _end(span: Span, fault: str) -> None:
    if fault:
        span.set_status(Status(StatusCode.ERROR))
        span.set_attribute("letta_matrix.fault", fault)
    span.end()
