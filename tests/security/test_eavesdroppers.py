"""Other users of the machine learn no secret: not by `ps`, not from files or an open folder."""

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer
from tests.servers import children_of, free_offset, free_port, is_running
from tests.waiting import eventually, within

KEY = "sk-the-key-itself"
EVERYBODY_READS = 0o022


@dataclass
class Command:
    """The program, as a user of umask 022 starts it."""

    process: asyncio.subprocess.Process

    async def ended(self) -> tuple[int, str]:
        """Its exit status and what it said on standard error."""
        _, said = await within(self.process.communicate())
        return self.process.returncode or 0, said.decode()

    def shown(self) -> str:
        """What `ps` shows of it and its children."""
        pids = {self.process.pid} | children_of(self.process.pid)
        lines = list[bytes]()
        for pid in pids:
            with contextlib.suppress(OSError):  # it may have ended
                lines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        return b"\n".join(lines).decode()


class Start(Protocol):
    async def __call__(
        self, *arguments: str, cwd: Path, environment: dict[str, str] | None = None
    ) -> Command: ...


@pytest.fixture
async def start() -> AsyncGenerator[Start]:
    """Starts the program; what still runs after the test is ended."""
    running = list[asyncio.subprocess.Process]()

    async def start(
        *arguments: str, cwd: Path, environment: dict[str, str] | None = None
    ) -> Command:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "letta_matrix", *arguments),
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            umask=EVERYBODY_READS,
        )
        running.append(process)
        return Command(process)

    yield start
    for process in running:
        if process.returncode is None:
            process.terminate()
            await within(process.wait())


@dataclass
class Endpoint:
    """A model's endpoint, which holds its answer back and then refuses the key."""

    server: BaseTestServer
    asked: list[str]
    answer: asyncio.Event

    @property
    def url(self) -> str:
        return str(self.server.make_url("/v1"))


@pytest.fixture
async def endpoint() -> AsyncGenerator[Endpoint]:
    asked, answer = list[str](), asyncio.Event()

    async def models(request: web.Request) -> web.Response:
        asked.append(request.headers.get("Authorization", ""))
        await answer.wait()
        return web.Response(status=401)

    app = web.Application()
    app.router.add_get("/v1/models", models)
    async with TestServer(app) as server:
        yield Endpoint(server, asked, answer)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("place", ["file", "variable"])
async def test_the_models_key_is_not_in_the_list_of_processes(
    start: Start, endpoint: Endpoint, tmp_path: Path, place: str
) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    given = ("--model-api-key-file", "key") if place == "file" else ()
    environment = {"LETTA_MATRIX_MODEL_API_KEY": KEY if place == "variable" else "another"}
    up = await start(
        *("up", "--data", "data", "--port-offset", str(free_offset())),
        *("--model-base-url", endpoint.url, *given),
        cwd=tmp_path,
        environment=environment,
    )
    await eventually(lambda: endpoint.asked)
    assert endpoint.asked == [f"Bearer {KEY}"]
    shown = up.shown()
    assert "--model-base-url" in shown
    assert KEY not in shown
    endpoint.answer.set()
    status, said = await up.ended()
    assert (status, "warning" in said, KEY in said) == (1, False, False)


async def test_a_key_on_the_command_line_works_and_is_warned_of(
    start: Start, endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.answer.set()
    up = await start(
        *("up", "--data", "data", "--port-offset", str(free_offset())),
        *("--model-base-url", endpoint.url, "--model-api-key", KEY),
        cwd=tmp_path,
    )
    status, said = await up.ended()
    assert endpoint.asked == [f"Bearer {KEY}"]
    first, *_ = said.split("\n")
    assert "warning: --model-api-key on the command line is seen by every user" in first
    assert "--model-api-key-file" in first
    assert (status, KEY in said) == (1, False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--model-api-key-file", "none"), "none: cannot be read: No such file"),
        (("--model-api-key-file", "empty"), "empty: expected one line with the secret"),
        (("--model-api-key-file", "two"), "two: expected one line with the secret"),
        (("--model-api-key-file", "key", "--model-api-key", "x"), "give one of them"),
        (("--model-base-url", f"http://me:{KEY}@host/v1"), "should have no user name or password"),
    ],
)
async def test_a_secret_in_the_wrong_place_is_refused(
    start: Start, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    for name, text in {"key": KEY, "empty": "\n", "two": f"{KEY}\n{KEY}\n"}.items():
        (tmp_path / name).write_text(text)
    up = await start("up", "--data", "data", *arguments, cwd=tmp_path)
    status, said = await up.ended()
    assert (status, told in said, KEY in said) == (2, True, False), said


@pytest.mark.parametrize(
    "arguments",
    [
        ("init", "--homeserver", f"https://me:{KEY}@host"),
        (
            "init",
            "--homeserver",
            "http://h",
            "--domain",
            "h",
            "--runtime",
            f"https://{KEY}@host/v1",
        ),
        ("mcp", "--url", f"ws://me:{KEY}@host/mcp"),
    ],
)
async def test_a_password_in_an_address_is_refused(
    start: Start, tmp_path: Path, arguments: Sequence[str]
) -> None:
    status, said = await (await start(*arguments, cwd=tmp_path)).ended()
    assert (status, "no user name or password" in said, KEY in said) == (2, True, False), said
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path) -> Generator[Path]:
    """A bridge's folder, which all may look into. Its keeper is ended after the test."""
    folder = tmp_path / "b"
    folder.mkdir()
    folder.chmod(0o755)
    settings = {
        "homeserver": {"url": f"http://127.0.0.1:{free_port()}", "domain": "test"},
        "appservice": {"as_token": "a", "hs_token": "h", "port": free_port()},
        "api": {"port": free_port()},
        "mcp": {"enabled": False},
        "runtimes": [{"type": "app_server", "url": f"ws://127.0.0.1:{free_port()}"}],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "config.yaml").chmod(0o600)
    yield folder
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((folder / "keeper.sock.pid").read_text()), signal.SIGTERM)


async def test_what_a_bridge_writes_is_for_its_user_alone(start: Start, folder: Path) -> None:
    # Put back from a copy that all may read.
    (folder / "letta-matrix.db").touch(0o644)
    bridge = await start("run", cwd=folder)
    names = {"letta-matrix.db", "letta-matrix.db-wal", "letta-matrix.db.lock"}
    names |= {f"keeper.sock{suffix}" for suffix in ("", ".lock", ".log", ".pid")}
    await eventually(lambda: names <= {path.name for path in folder.iterdir()})
    keeper = folder / "keeper.sock.pid"
    await eventually(lambda: keeper.read_text() and is_running(int(keeper.read_text())))
    open_ = [path.name for path in folder.iterdir() if path.stat().st_mode & 0o077]
    bridge.process.terminate()
    status, said = await bridge.ended()
    assert open_ == []
    assert status == 0, said
    assert f"warning: other users may look into {folder}" in said


async def test_a_folder_that_everybody_writes_to_is_refused(start: Start, folder: Path) -> None:
    folder.chmod(0o777)
    status, said = await (await start("run", cwd=folder)).ended()
    assert (status, said.count("\n")) == (1, 1)
    assert f"`chmod 700 {folder}`" in said
    assert {path.name for path in folder.iterdir()} == {"config.yaml"}


async def test_a_folder_that_init_makes_is_for_its_user_alone(start: Start, tmp_path: Path) -> None:
    flags = ("--homeserver", "http://h", "--domain", "h", "--runtime", "ws://h", "--admin", "@a:h")
    made = await start("init", "--directory", "new", *flags, cwd=tmp_path)
    assert (await made.ended())[0] == 0
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
    assert modes == {"config.yaml": 0o600, "registration.yaml": 0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
