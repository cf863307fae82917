"""Real servers for tests: Synapse and the App Server, started once per session."""

import ctypes
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

import aiohttp
import yaml
from tests.doubles.gmessages.matrix import registration as gmessages_registration
from tests.waiting import DEADLINE, eventually

from letta_matrix.config import Config
from letta_matrix.stack.app_server import AppServerProcess
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.models import ModelChoice, ProviderFile
from letta_matrix.stack.ports import Ports
from letta_matrix.stack.registration import registration
from letta_matrix.stack.silence import status_of
from letta_matrix.stack.supervisor import Command, kill_group
from letta_matrix.stack.synapse import Synapse

_LIBC = ctypes.CDLL(None)
_UNSYNCED = Path(__file__).with_name("unsynced_synapse.py")
# Hundreds of people come from one address.
_OFTEN = {"per_second": 1000, "burst_count": 10000}
_LIGHT: dict[str, object] = {
    # Hashing passwords well takes a quarter of a second each time.
    "bcrypt_rounds": 4,
    # It lives for minutes: most of what the collector would look through ends with it.
    "gc_min_interval": ["30s", "5m", "1h"],
    "caches": {"global_factor": 10},
    "event_cache_size": "100K",
    "rc_login": dict.fromkeys(("address", "account", "failed_attempts"), _OFTEN),
    # What it would work out after each event, and nobody here asks for: figures of rooms and
    # people, a directory of people, and other servers that want to know.
    "stats": {"enabled": False},
    "update_user_directory_from_worker": "nobody",
    "send_federation": False,
}
_COMPILED = Path(__file__).parents[1] / "build" / "node-cache"
_FLUSH = 'import{flushCompileCache}from"node:module";setTimeout(flushCompileCache,5e3).unref()'
_KEEPING = f"data:text/javascript,{quote(_FLUSH)}"
_HELD: list[socket.socket] = []
_APART = 16
"""No two stacks whose offsets are different multiples of it share a port."""


def free_port() -> int:
    """A TCP port of loopback that nobody else gets as long as this process lives, not even while
    the server on it is down: it stays bound here, and servers listen with SO_REUSEADDR."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _HELD.append(held)
    return int(held.getsockname()[1])


def has_ipv6() -> bool:
    """Whether this machine's loopback has an address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


def free_offset() -> int:
    """An offset at which each port of an embedded stack is free, and which no other process of
    xdist gets: on what that has been given nobody may listen yet, or for a moment nobody does."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    # Below the ports that the kernel gives to whoever connects somewhere.
    most = 32768 - Ports().appservice
    offsets = range(_APART * (10 + worker), most, _APART * workers)
    for offset in random.sample(offsets, len(offsets)):
        try:
            Ports.with_offset(offset).check_free(0)
        except StackError:
            continue
        return offset
    raise AssertionError("no free ports")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        _LIBC.prctl(1, signal.SIGKILL)


def is_ready(http: aiohttp.ClientSession, url: str) -> Callable[[], Awaitable[bool]]:
    """Asks a server, at the address for that, whether it is ready."""

    async def ask() -> bool:
        return await status_of(http, url) == 200

    return ask


@dataclass
class ServerProcess:
    """A server process that tests may kill and start again."""

    command: Command
    ready: Callable[[], Awaitable[bool]]
    process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and wait until it answers."""
        process, log = self._spawn(), self.command.log

        async def answers() -> bool:
            assert process.poll() is None, log.read_text(errors="replace")[-2000:]
            return await self.ready()

        await eventually(answers, what=f"{self.command.name} answers; see {log}: it")

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.command.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.command.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.command.cwd,
                env=dict(self.command.env),
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - tests spawn from one thread
            )
        return self.process

    def end(self, number: signal.Signals) -> None:
        """Signal it, and wait until it is gone."""
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        kill_group(self.process.pid)
        self.process = None


@dataclass
class Homeserver:
    """A Synapse with our application service registered at `appservice_port`; `odd` are settings
    of its own."""

    synapse: Synapse
    config: Config
    http: aiohttp.ClientSession
    admin_token: str = ""
    odd: dict[str, object] = field(default_factory=dict[str, object])
    server: ServerProcess = field(init=False)

    @property
    def irc_registration(self) -> Path:
        """What it knows of a bridge to IRC, which runs only where a test wants it."""
        return self.synapse.registrations[1]

    @property
    def talks_registration(self) -> Path:
        """Likewise of a bridge that a test plays, and to which nothing is pushed: a homeserver asks
        ever more rarely for one that does not answer, and tells it all when it is there at last."""
        return self.synapse.registrations[3]

    @property
    def gmessages_registration(self) -> Path:
        """Likewise of the double of mautrix-gmessages."""
        return self.synapse.registrations[2]

    def __post_init__(self) -> None:
        self.server = ServerProcess(
            self.synapse.command, is_ready(self.http, self.synapse.health_url)
        )

    @property
    def url(self) -> str:
        return self.synapse.url

    @property
    def server_name(self) -> str:
        return self.synapse.server_name

    @property
    def appservice_port(self) -> int:
        return self.config.appservice.port

    @property
    def as_token(self) -> str:
        return self.config.appservice.as_token.get_secret_value()

    @property
    def hs_token(self) -> str:
        return self.config.appservice.hs_token.get_secret_value()

    async def start(self) -> None:
        """Start it the first time; `admin_token` is there afterwards."""
        self.synapse.write_files(self.config.bot_user_id)
        file = self.synapse.directory / "homeserver.yaml"
        settings = yaml.safe_load(file.read_text())
        # It finds modules in its folder.
        shutil.copy(_UNSYNCED, self.synapse.directory)
        settings["modules"].append({"module": f"{_UNSYNCED.stem}.Unsynced", "config": {}})
        file.write_text(yaml.safe_dump(settings | _LIGHT | self.odd))
        await self.server.start()
        _, self.admin_token, _ = await self.register("admin", admin=True)

    async def start_without_us(self) -> None:
        """Start it as it was before it knew our application service, to be stopped again."""
        alone = replace(self.synapse, registrations=())
        alone.write_files(self.config.bot_user_id)
        await self.server.start()

    async def register(self, localpart: str, admin: bool = False) -> tuple[str, str, str]:
        """A new person: user id, access token, password."""
        password = secrets.token_urlsafe(12)
        created = await self.synapse.create_account(self.http, localpart, password, admin=admin)
        assert created, f"@{localpart} exists already"
        token = await self.synapse.login(self.http, localpart, password, f"TEST{localpart}")
        return f"@{localpart}:{self.server_name}", token, password

    async def restart(self) -> None:
        """SIGTERM, and up again with the same data."""
        self.stop()
        await self.server.start()

    def kill(self) -> None:
        """SIGKILL; `restart` brings it back."""
        self.server.end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM."""
        self.server.end(signal.SIGTERM)


@dataclass
class LettaServer:
    """A real App Server whose agents think with the stub model."""

    app_server: AppServerProcess
    http: aiohttp.ClientSession
    server: ServerProcess = field(init=False)

    def __post_init__(self) -> None:
        command = self.app_server.command
        # It runs git eight times in a turn, and each fork copies the list of all its pages: let
        # them be few and large, where the kernel has such.
        large_pages = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        # Its program is 24 MB of JavaScript: what one has compiled of it, the next ones load, even
        # if the first is killed.
        cache = {"NODE_COMPILE_CACHE": str(_COMPILED), "NODE_OPTIONS": f"--import={_KEEPING}"}
        command = replace(command, env={**command.env, **large_pages, **cache})
        self.server = ServerProcess(command, is_ready(self.http, self.app_server.health_url))

    @property
    def url(self) -> str:
        """`ws://127.0.0.1:PORT`; the WebSocket is at `/ws`."""
        return self.app_server.url

    @property
    def openai_url(self) -> str:
        """Base URL of its OpenAI API, with `/v1`."""
        return f"{self.app_server.http_url}/v1"

    async def start(self, model_url: str) -> None:
        """Start it with the OpenAI-compatible provider at `model_url` connected."""
        self.app_server.make_folders()
        choice = ModelChoice("openai-compatible", "the stub", "stub-key", model_url)
        ProviderFile(self.app_server.home).connect(choice)
        await self.server.start()

    async def restart(self) -> None:
        """SIGTERM, and up again with the same data."""
        self.stop()
        await self.server.start()

    def kill(self) -> None:
        """SIGKILL; `restart` brings it back."""
        self.server.end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM."""
        self.server.end(signal.SIGTERM)


def irc_registration(port: int) -> dict[str, object]:
    """What the homeserver reads of heisenbridge, as that makes it itself (`--generate`)."""
    return {
        "id": "heisenbridge",
        "url": f"http://127.0.0.1:{port}",
        "as_token": secrets.token_hex(32),
        "hs_token": secrets.token_hex(32),
        "rate_limited": False,
        "sender_localpart": "heisenbridge",
        "namespaces": {
            "users": [{"regex": "@irc_.*", "exclusive": True}],
            "aliases": [],
            "rooms": [],
        },
    }


def talks_registration() -> dict[str, object]:
    """What the homeserver reads of a bridge that nothing is pushed to."""
    return {
        "id": "talks",
        "url": None,
        "as_token": secrets.token_hex(32),
        "hs_token": secrets.token_hex(32),
        "rate_limited": False,
        "sender_localpart": "talks",
        "namespaces": {"users": [{"regex": "@talk_.*", "exclusive": True}]},
    }


def homeserver_in(
    directory: Path,
    http: aiohttp.ClientSession,
    *,
    name: str = "localhost",
    host: str = "127.0.0.1",
) -> Homeserver:
    """A homeserver with its files in `directory`, not started yet."""
    port, appservice_port = free_port(), free_port()
    config = Config.model_validate(
        {
            "homeserver": {"url": f"http://{host}:{port}", "domain": name},
            "appservice": {
                "url": f"http://127.0.0.1:{appservice_port}",
                "port": appservice_port,
                "as_token": secrets.token_hex(32),
                "hs_token": secrets.token_hex(32),
            },
        }
    )
    registration_file = directory / "registration.yaml"
    registration_file.write_text(yaml.safe_dump(registration(config)))
    irc_file = directory / "heisenbridge.yaml"
    irc_file.write_text(yaml.safe_dump(irc_registration(free_port())))
    sms_file = directory / "gmessages.yaml"
    sms_file.write_text(yaml.safe_dump(gmessages_registration(free_port())))
    talks_file = directory / "talks.yaml"
    talks_file.write_text(yaml.safe_dump(talks_registration()))
    files = (registration_file, irc_file, sms_file, talks_file)
    synapse = Synapse(directory / "synapse", port, files, name, host)
    return Homeserver(synapse, config, http)


def letta_server_in(directory: Path, http: aiohttp.ClientSession) -> LettaServer:
    """An App Server with its home in `directory` and its OpenAI API open, not started yet."""
    return LettaServer(AppServerProcess(directory, free_port(), openai_api=True), http)


@contextmanager
def keeper_in(directory: Path) -> Generator[Path]:
    """The socket of a keeper that an adapter may start; it ends with the block."""
    socket = directory / "keeper.sock"
    try:
        yield socket
    finally:
        pid = socket.with_name("keeper.sock.pid")
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGTERM)


def children_of(pid: int) -> set[int]:
    """All descendants of a process, from /proc."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - numbers, not paths
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def is_running(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
