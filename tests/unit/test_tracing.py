"""Traces of turns, at a collector that decodes what it gets."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.builders import config_for, message
from tests.fake_homeserver import FakeHomeserver
from tests.servers import free_port
from tests.stage import Stage
from tests.waiting import eventually, within

from letta_matrix.app import telemetry
from letta_matrix.app import tracing as tracing_module
from letta_matrix.app.bridge import Bridge
from letta_matrix.app.telemetry import endpoint, tracing_of
from letta_matrix.app.tracing import Tracing, trace_id_of
from letta_matrix.config import ConfigError
from letta_matrix.runtimes.memory import MemoryRuntime

WORDS = "zanzibar"


class Collector:
    """Takes spans as OTLP over HTTP has them (OTLP specification, OTLP/HTTP)."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resource: dict[str, str] = {}
        self.raw = b""
        self.status = 200
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = threading.Event()
        self.url = ""

    def named(self, name: str) -> list[Span]:
        return [one for one in self.spans if one.name == name]

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        self.raw += body
        for group in request.resource_spans:
            self.resource = {one.key: one.value.string_value for one in group.resource.attributes}
            self.spans += [span for scope in group.scope_spans for span in scope.spans]


@contextmanager
def collecting() -> Generator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.asked.set()
            collector.may_answer.wait(50)
            if self.path == "/v1/traces" and collector.status == 200:
                collector.take(body)
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.may_answer.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def collector() -> Generator[Collector]:
    with collecting() as one:
        yield one


def tracing_to(url: str, stage: Stage) -> Tracing:
    tracing = Tracing(f"{url}/v1/traces", pause_ms=50)
    tracing.attach(stage.parts)
    return tracing


def attributes(span: Span) -> dict[str, str]:
    return {one.key: one.value.string_value for one in span.attributes}


async def test_a_turn_is_a_trace_with_its_stages_tools_and_requests(
    stage: Stage, collector: Collector
) -> None:
    tracing = tracing_to(collector.url, stage)
    event = message(f"tools {WORDS}")
    await stage.tell(event)
    await tracing.close()
    (turn,) = collector.named("turn")
    about = attributes(turn)
    assert about["letta_matrix.agent"] == "agent-1"
    assert about["letta_matrix.event"] == event["event_id"]
    assert about["letta_matrix.outcome"] == "answered"
    assert turn.trace_id == trace_id_of(about["letta_matrix.turn"]).to_bytes(16)
    assert turn.parent_span_id == b""
    below = [one for one in collector.spans if one is not turn]
    assert all((one.trace_id, one.parent_span_id) == (turn.trace_id, turn.span_id) for one in below)
    names = [one.name for one in below]
    for stage_name in ("admitted", "asked", "first_text", "final"):
        assert names.count(stage_name) == 1
    assert "runtime memory" in names
    assert [one for one in names if one.startswith("tool ")]
    assert [one for one in names if one.startswith("homeserver ")]
    for one in below:
        assert turn.start_time_unix_nano <= one.start_time_unix_nano <= one.end_time_unix_nano
    assert collector.resource["service.name"] == "letta-matrix"
    # Nothing that anybody said, and no secret.
    assert WORDS.encode() not in collector.raw
    assert b"secret" not in collector.raw


async def test_a_turn_that_fails_is_marked(stage: Stage, collector: Collector) -> None:
    tracing = tracing_to(collector.url, stage)
    await stage.tell(message(f"fail {WORDS}"))
    await tracing.close()
    (turn,) = collector.named("turn")
    assert turn.status.code == Status.StatusCode.STATUS_CODE_ERROR
    assert attributes(turn)["letta_matrix.outcome"] == "failed"
    assert WORDS.encode() not in collector.raw


async def test_a_collector_that_is_away_is_told_of_and_holds_nobody_up(
    stage: Stage, collector: Collector
) -> None:
    tracing = tracing_to(collector.url, stage)
    collector.status = 403
    await stage.tell(message("one"))
    trouble = await eventually(lambda: tracing.trouble)
    assert trouble is not None
    assert trouble.warns
    assert f"cannot be sent to {collector.url}; " in trouble.says
    collector.status = 200
    await stage.tell(message("two"))
    await eventually(lambda: tracing.trouble is None)
    await tracing.close()


async def test_a_collector_that_hangs_holds_nobody_up(stage: Stage, collector: Collector) -> None:
    collector.may_answer.clear()
    tracing = tracing_to(collector.url, stage)
    for number in range(3):
        # Answered to the end, while the collector keeps us waiting.
        await stage.tell(message(f"{number}"))
    assert await asyncio.to_thread(collector.asked.wait, 20)
    assert collector.spans == []
    await within(tracing.close())


async def test_nobody_listens_there(stage: Stage) -> None:
    tracing = tracing_to(f"http://me:pass-word@127.0.0.1:{free_port()}", stage)
    await stage.tell(message("hello"))
    trouble = await eventually(lambda: tracing.trouble)
    assert "pass-word" not in f"{trouble}"
    await within(tracing.close())


def test_where_traces_go(tmp_path: Path) -> None:
    plain = config_for(tmp_path)
    named = config_for(tmp_path, telemetry={"otlp_endpoint": "http://collector:4318/"})
    base = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other:4318"}
    whole = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://third/x"}
    assert endpoint(plain, {}) == ""
    assert endpoint(plain, base) == "http://other:4318/v1/traces"
    assert endpoint(plain, base | whole) == "http://third/x"
    assert endpoint(named, base | whole) == "http://collector:4318/v1/traces"
    assert endpoint(named, {"OTEL_SDK_DISABLED": "true"}) == ""


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(name: str) -> None:
        return None

    monkeypatch.setattr(telemetry, "find_spec", away)
    base = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other:4318"}
    assert tracing_of(config_for(tmp_path), base) is None
    named = config_for(tmp_path, telemetry={"otlp_endpoint": "http://collector:4318"})
    with pytest.raises(ConfigError, match=r"pip install 'letta-matrix\[otel\]'"):
        tracing_of(named, {})


def test_nothing_of_it_is_imported_where_nobody_wants_it(tmp_path: Path) -> None:
    code = (
        "import sys, letta_matrix.app.bridge\n"
        "from letta_matrix.app.telemetry import tracing_of\n"
        "from tests.builders import config_for\n"
        "from pathlib import Path\n"
        "assert tracing_of(config_for(Path('.')), {}) is None\n"
        "heavy = [one for one in sys.modules if one.startswith('opentelemetry.sdk')]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


async def test_the_bridge_watches_it_and_lets_go_of_it(
    fake: FakeHomeserver, collector: Collector, tmp_path: Path
) -> None:
    config = config_for(
        tmp_path,
        homeserver={"url": fake.url, "domain": "test"},
        appservice={"as_token": "as-secret", "hs_token": "hs-secret", "port": free_port()},
        api={"port": free_port()},
        mcp={"enabled": False},
        telemetry={"otlp_endpoint": collector.url},
    )
    bridge = Bridge(config, [MemoryRuntime()])
    await bridge.start()
    try:
        names = [one.name for one in bridge.app.vitals.checks()]
        assert "traces" in names
        assert isinstance(bridge.app.dispatcher.queues.journeys.watcher, Tracing)
    finally:
        await bridge.close()


async def test_what_a_turn_begins_with_does_not_stand_before_it(
    stage: Stage, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the machine's clock is set back meanwhile."""
    told = iter(range(10**18, 0, -(10**9)))
    monkeypatch.setattr(tracing_module.time, "time_ns", lambda: next(told))
    tracing = tracing_to(collector.url, stage)
    await stage.tell(message("hello"))
    await tracing.close()
    (turn,) = collector.named("turn")
    below = [one for one in collector.spans if one is not turn]
    assert below
    assert all(turn.start_time_unix_nano <= one.start_time_unix_nano for one in below)
