"""A keeper beside a real App Server: another bridge takes a turn over, and the former one, which
was asleep or cut off, has no say in it any more."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.contract.relay import Relay
from tests.integration.runtime_bench import CLIENT, CLIENT_KEYS, ROOT, Bench, connected, text_of
from tests.keeper_beside import KeeperBeside, keeper_beside
from tests.servers import LettaServer
from tests.stub_model import StubModel
from tests.waiting import within

from letta_matrix.common.tools import ToolCall, ToolHandler, ToolResult, ToolSpec
from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.app_server.keepers import remote_keeper
from letta_matrix.runtimes.protocol import ApprovalRequested, TurnFinished, TurnRequest

NOTE = ToolSpec("matrix_note", "Takes a note.", {"type": "object"})


@pytest.fixture(scope="module")
async def beside(
    app_server: LettaServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[KeeperBeside]:
    async with keeper_beside(app_server.url, tmp_path_factory.mktemp("beside")) as keeper:
        yield keeper


@dataclass
class Former:
    """A bridge in a process of its own, in the midst of a turn; `state` is what it has saved."""

    process: asyncio.subprocess.Process
    state: Path

    async def line(self) -> dict[str, str]:
        """What it says next, empty at its end; not its log."""
        assert self.process.stdout is not None
        while line := await within(self.process.stdout.readline()):
            if line.startswith(b"{"):
                return json.loads(line)
        return {}

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    async def answer(self) -> None:
        """Let it allow what it was asked for."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()


@asynccontextmanager
async def former(
    beside: KeeperBeside,
    request: TurnRequest,
    state: Path,
    epoch: int,
    port: int = 0,
    **more: str,
) -> AsyncGenerator[Former]:
    options = {key: str(getattr(request, key)) for key in CLIENT_KEYS} | more
    options |= {**beside.settings(port), "epoch": str(epoch), "state": str(state)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *CLIENT, json.dumps(options)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    try:
        yield Former(process, state)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@asynccontextmanager
async def successor(
    beside: KeeperBeside, bench: Bench, epoch: int, tools: ToolHandler | None = None
) -> AsyncGenerator[Bench]:
    """The bench's adapter is that of another machine now."""
    await bench.runtime.close()
    settings = AppServerRuntime.model_validate(beside.settings())
    bench.runtime = AppServer(settings, remote_keeper(settings), epoch)
    if tools is not None:
        bench.runtime.offer_tools([NOTE], tools)
    await bench.runtime.start()
    await connected(bench.runtime)
    yield bench


async def test_one_that_slept_has_no_say_any_more(
    bench: Bench, beside: KeeperBeside, stub_model: StubModel, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    request = bench.request(f"tool:Bash:touch {made}")
    async with former(beside, request, tmp_path / "state", 1) as slept:
        asked = (await slept.line())["approval"]
        slept.send_signal(signal.SIGSTOP)
        await slept.answer()
        async with successor(beside, bench, 2):
            slept.send_signal(signal.SIGCONT)
            # The question still waits, and it has not allowed anything.
            assert "cannot be reached" in (await slept.line())["fault"]
            state = json.loads(slept.state.read_text())
            events = await within(bench.answered(request, state, allow=False))
            assert bench.answers == [asked]
            assert sum(isinstance(event, ApprovalRequested) for event in events) == 1
            assert isinstance(events[-1], TurnFinished)
            assert not made.exists()
            assert bench.connection.link.up
    assert stub_model.count(request.text) <= 2


async def test_one_that_is_cut_off_by_the_network_is_followed(
    bench: Bench, beside: KeeperBeside, stub_model: StubModel, tmp_path: Path
) -> None:
    request = bench.request(f"steps:9 {secrets.token_hex(4)}")
    async with (
        Relay(beside.port) as relay,
        former(beside, request, tmp_path / "state", 3, relay.port) as cut_off,
    ):
        words = [(await cut_off.line())["text"]]
        relay.part()
        # Neither it nor the keeper knows yet.
        async with successor(beside, bench, 4):
            turn = asyncio.create_task(bench.turn(request, json.loads(cut_off.state.read_text())))
            stub_model.steps.finish(request.text)
            events = await within(turn)
        relay.join()
        while line := await cut_off.line():
            assert "finished" not in line
            words += [line["text"]] * ("text" in line)
    assert text_of(events).split() == [f"word{number}" for number in range(1, 10)]
    assert len(words) < 9
    assert stub_model.count(request.text) == 1


async def test_a_call_that_the_former_had_is_answered(
    bench: Bench, beside: KeeperBeside, tmp_path: Path
) -> None:
    calls = list[str]()

    async def answer(call: ToolCall) -> ToolResult:
        calls.append(call.call_id)
        return ToolResult("noted")

    request = bench.request('tool:matrix_note:{"text": "tea"}')
    async with former(beside, request, tmp_path / "state", 5, tool="matrix_note") as killed:
        asked = (await killed.line())["call"]
        killed.send_signal(signal.SIGKILL)
        async with successor(beside, bench, 6, answer):
            events = await within(bench.turn(request, json.loads(killed.state.read_text())))
    assert text_of(events) == "tool said: noted"
    assert calls == [asked]
