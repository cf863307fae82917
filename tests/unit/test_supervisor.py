"""The supervisor: restarts, readiness, and ends that leave nothing behind."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from tests.servers import free_port, is_running
from tests.waiting import DEADLINE, Clock, eventually

from letta_matrix.app.bridge import _STOPPING_TIMEOUT
from letta_matrix.cli.up.stack import _BRIDGE_GRACE, Options, Stack
from letta_matrix.common import log_files
from letta_matrix.stack import supervisor
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.silence import Silence, status_of, work_of
from letta_matrix.stack.supervisor import Child, Command, ending, pause_before


@pytest.fixture
async def children() -> AsyncGenerator[list[Child]]:
    """Children to end after the test."""
    started: list[Child] = []
    yield started
    for child in started:
        child.terminate()
        await child.wait_ended(1.0)


def _python(tmp_path: Path, code: str) -> Command:
    argv = (sys.executable, "-c", code)
    return Command("sleeper", argv, tmp_path / "sleeper.log", tmp_path)


async def _yes() -> bool:
    return True


async def _no() -> bool:
    return False


async def _gives_up(child: Child, clock: Clock) -> str:
    """What is said of a child that is never ready."""
    waiting = asyncio.create_task(child.wait_ready(_no, 1e9))
    await clock.until(waiting.done, step=0.1)
    with pytest.raises(StackError) as fault:
        await waiting
    return str(fault.value)


SLEEP = "import time; time.sleep(3600)"
SERVE = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Busy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(503)
HTTPServer(("127.0.0.1", {port}), Busy).serve_forever()
"""


async def test_a_log_stays_small_while_the_child_runs(
    tmp_path: Path, children: list[Child], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "MOST", 1_000)
    go = tmp_path / "go"
    code = f"""
import os, sys, time
print("x" * 2_000, flush=True)
while not os.path.exists({str(go)!r}): time.sleep(0.01)
print("later", flush=True)
{SLEEP}
"""
    child = Child(_python(tmp_path, code), print)
    children.append(child)
    await child.start()
    log = child.command.log
    await eventually(lambda: log.stat().st_size > 2_000)
    await clock.until(lambda: log.stat().st_size == 0)
    go.touch()
    await eventually(lambda: log.read_text() == "later\n")
    assert log.with_name(f"{log.name}.1").read_text() == "x" * 2_000 + "\n"


async def test_a_killed_child_is_started_again_and_said_so(
    tmp_path: Path, children: list[Child]
) -> None:
    said: list[str] = []
    pids: list[int] = []
    child = Child(_python(tmp_path, SLEEP), said.append, pids.append)
    children.append(child)
    await child.start()
    await child.wait_ready(_yes, DEADLINE)
    os.kill(pids[0], signal.SIGKILL)
    await eventually(lambda: len(pids) == 2)
    assert said == ["sleeper ended (SIGKILL); starting it again now"]
    assert child.pid == pids[1]


async def test_a_child_that_hangs_is_killed_and_started_again(
    tmp_path: Path, children: list[Child], http: aiohttp.ClientSession, clock: Clock
) -> None:
    port, said = free_port(), list[str]()
    url = f"http://127.0.0.1:{port}/"
    stack = Stack(Options(tmp_path), tmp_path, said.append, http)
    await stack._run("server", _python(tmp_path, SERVE.format(port=port)), url, 503)
    children += stack._children.values()
    hung = stack._pids["server"]
    os.kill(hung, signal.SIGSTOP)
    await clock.until(lambda: stack._pids["server"] != hung)
    # In its own time: by ours it would have hung again before it is up.
    await eventually(lambda: len(said) == 4)
    assert said[1:3] == [
        f"sleeper hangs: process {hung} does not answer any more; killing it",
        "sleeper ended (SIGKILL); starting it again now",
    ]
    assert said[3].startswith("sleeper is up again (")
    await eventually(partial(status_of, http, url), lambda status: status == 503)


def hung_after(silence: Silence, clock: Clock, *pauses: float) -> int | None:
    """The first of the missed probes, so many seconds apart, with which it counts as hung."""
    for number, pause in enumerate(pauses):
        clock.advance(pause)
        if silence.missed():
            return number
    return None


class Works:
    """What a process has worked, as a test has it."""

    def __init__(self) -> None:
        self.so_far: list[str] = []

    def __call__(self, _: int) -> list[str]:
        return self.so_far


async def test_three_missed_probes_and_a_minute_are_silence(clock: Clock) -> None:
    clock.stop()
    silence = Silence(1, Works())
    silence.answered()
    assert hung_after(silence, clock, 15, 1, 1, 1, 1) is None
    silence.answered()
    assert hung_after(silence, clock, 20, 20, 20, 19) is None
    assert hung_after(silence, clock, 1) == 0
    silence.answered()
    assert hung_after(silence, clock, 31, 31, 31) == 2


async def test_one_that_does_nothing_at_all_is_given_15_seconds(clock: Clock) -> None:
    clock.stop()
    works = Works()
    works.so_far = ["10 s"]
    silence = Silence(1, works)
    silence.answered()
    assert hung_after(silence, clock, 10, 5, 9) is None
    assert hung_after(silence, clock, 1) == 0
    silence.answered()
    assert hung_after(silence, clock, 10) is None
    works.so_far = ["10.1 s"]
    assert hung_after(silence, clock, 10, 10, 10, 29) is None
    assert hung_after(silence, clock, 1) == 0


async def test_what_runs_works_and_what_is_stopped_does_not(
    tmp_path: Path, children: list[Child]
) -> None:
    child = Child(_python(tmp_path, SLEEP), lambda _: None)
    children.append(child)
    await child.start()
    pid = child.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    stopped = await eventually(lambda: work_of(pid))
    assert stopped == work_of(pid)
    # We are on a CPU as we ask.
    assert work_of(os.getpid()) == []
    assert work_of(1 << 30) == []


async def test_a_machine_that_sleeps_silences_nobody(clock: Clock) -> None:
    clock.stop()
    silence = Silence(1, Works())
    silence.answered()
    assert hung_after(silence, clock, 20, 20, 20) is None
    assert hung_after(silence, clock, 8 * 3600, 20, 20, 8 * 3600, 20, 20) is None
    assert hung_after(silence, clock, 20) == 0


async def test_who_starts_has_two_minutes(clock: Clock) -> None:
    clock.stop()
    assert hung_after(Silence(1, Works()), clock, *[20] * 20) == 8


async def test_a_full_disk_does_not_end_the_watching(
    tmp_path: Path, children: list[Child], monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "sleeper.log")
    faults, said, pids = [full, full], list[str](), list[int]()

    def rotate(_: Path) -> None:
        if pids and faults:
            raise faults.pop()

    def note(pid: int) -> None:
        pids.append(pid)
        if len(pids) == 2:
            raise full

    monkeypatch.setattr(log_files, "put_away", rotate)
    child = Child(_python(tmp_path, SLEEP), said.append, note)
    children.append(child)
    await child.start()
    await child.wait_ready(_yes, DEADLINE)
    os.kill(pids[0], signal.SIGKILL)
    await clock.until(lambda: len(pids) == 2)
    os.kill(pids[1], signal.SIGKILL)
    await clock.until(lambda: len(pids) == 3)
    assert child.pid == pids[2]
    assert said.count("sleeper cannot be started: sleeper.log: No space left on device") == 2
    assert any(line.startswith("sleeper runs, but cannot be noted") for line in said)


def test_pauses_grow_to_ten_seconds() -> None:
    pauses = [pause_before(number) for number in range(20)]
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == 10


async def test_a_child_that_keeps_ending_is_reported_with_its_last_words(
    tmp_path: Path, children: list[Child], clock: Clock
) -> None:
    log = tmp_path / "sleeper.log"
    log.write_text("FatalError: of an earlier start\n")
    child = Child(_python(tmp_path, "raise SystemExit('no such key')"), lambda _: None)
    children.append(child)
    await child.start()
    assert await _gives_up(child, clock) == f"sleeper keeps ending; its log {log} says: no such key"


@pytest.mark.parametrize(
    ("log", "quoted"),
    [
        (
            "****\n x.OperationalError: table a exists\n\n There may be more.\n****\n",
            "table a exists",
        ),
        ("2026-01-01 ERROR cannot bind\nbye\n", "ERROR cannot bind"),
        ("Error: listen EADDRINUSE\n    at x (y:1)\n", "Error: listen"),
        ("Error during initialisation:\n  out of memory\n----\n", "out of memory"),
        ("****\n", "(nothing)"),
    ],
)
def test_the_line_that_says_what_went_wrong_is_quoted(
    tmp_path: Path, log: str, quoted: str
) -> None:
    before = "FatalError: of an earlier start\n"
    (tmp_path / "log").write_text(before + log * 3)
    assert quoted in supervisor._last_words(tmp_path / "log", len(before))


async def test_a_child_that_never_answers_is_reported(
    tmp_path: Path, children: list[Child]
) -> None:
    child = Child(_python(tmp_path, SLEEP), lambda _: None)
    children.append(child)
    await child.start()
    with pytest.raises(StackError, match=r"did not answer within 0\.2 s"):
        await child.wait_ready(_no, 0.2)


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    child = Child(Command("ghost", ("/no/such/program",), tmp_path / "log", tmp_path), print)
    with pytest.raises(StackError, match=r"ghost cannot be started: /no/such/program: No such"):
        await child.start()


async def test_a_stubborn_child_is_killed_with_its_own_children(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])\n"
        "print(inner.pid, flush=True)\n"
        "time.sleep(3600)\n"
    )
    child = Child(_python(tmp_path, code), lambda _: None)
    await child.start()
    log = tmp_path / "sleeper.log"
    await eventually(lambda: log.is_file() and log.read_text().strip())
    inner, outer = int(log.read_text()), child.pid
    child.terminate()
    # It would sleep for an hour: what ends it is SIGKILL.
    await child.wait_ended(0.1)
    assert outer is not None
    await eventually(lambda: not is_running(inner) and not is_running(outer))


def test_the_bridge_is_not_killed_while_it_ends() -> None:
    assert _BRIDGE_GRACE >= _STOPPING_TIMEOUT + 1


async def test_an_ended_child_stays_ended(tmp_path: Path) -> None:
    pids: list[int] = []
    child = Child(_python(tmp_path, SLEEP), lambda _: None, pids.append)
    await child.start()
    tasks = list(child._tasks)
    child.terminate()
    # What would start it again has ended with it.
    await child.wait_ended(DEADLINE)
    assert tasks
    assert all(task.done() for task in tasks)
    assert not child._tasks
    assert len(pids) == 1
    assert child.pid is None


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does this on Linux only")
async def test_children_end_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from letta_matrix.stack.supervisor import Child, Command\n"
        "async def main():\n"
        f"    here = Path({str(tmp_path)!r})\n"
        f"    argv = (sys.executable, '-c', {SLEEP!r})\n"
        "    child = Child(Command('c', argv, here / 'log', here), print)\n"
        "    await child.start()\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    await parent.communicate()
    await eventually(lambda: not is_running(pid))


@pytest.mark.parametrize(
    ("code", "text"), [(0, "exit status 0"), (-9, "SIGKILL"), (-99, "signal 99")]
)
def test_endings_are_named(code: int, text: str) -> None:
    assert ending(code) == text
