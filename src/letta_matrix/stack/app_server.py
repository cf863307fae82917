"""The embedded Letta App Server: its process and single requests to it.

Letta Code documentation, "App Server": one WebSocket, JSON frames with a
`request_id` that the answer repeats.
"""

import asyncio
import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from letta_matrix.common.connections.unreached import why_unreached
from letta_matrix.common.json_fields import mapping
from letta_matrix.stack.confine import Reach, own_rules
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.files import make_folder_beneath
from letta_matrix.stack.silence import status_of
from letta_matrix.stack.supervisor import Command

_TIMEOUT = 30.0
_KEPT = {"PATH", "LANG", "LANGUAGE", "TERM", "TZ", "USER", "LOGNAME", "SHELL", "SSL_CERT_FILE"} | {
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
}
"""What agents' tools see of our environment, with the locale: no keys, whatever they are called."""


_STRICT = '--import=data:text/javascript,globalThis[Symbol.for("@letta/permissionMode")]="strict"'
"""The mode of conversations that nobody has named one for, which schedules begin: of its own it is
`unrestricted`, and its server has no option nor setting for another."""
_GIT_SETTINGS = {"core.fsmonitor": "false", "core.hooksPath": os.devnull, "commit.gpgSign": "false"}
_GIT = {
    # Git gives up where it may not read the machine's settings.
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": os.devnull,
    # The App Server runs git unasked, and agents can write what git would run.
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_COUNT": str(len(_GIT_SETTINGS)),
    **{f"GIT_CONFIG_KEY_{number}": key for number, key in enumerate(_GIT_SETTINGS)},
    **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(_GIT_SETTINGS.values())},
    "GIT_SSH_COMMAND": "ssh -F none",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
}
"""Settings of git that stand above all that lies in files: no program from a file is run."""


@dataclass(frozen=True, slots=True)
class AppServerProcess:
    """Where the embedded App Server keeps its agents and listens.

    `openai_api` opens its OpenAI API too, through which tools run with no approval. `token` is
    what its clients have to know; "" lets every program of this machine in. The agents' own tools
    start in `workspace`. With `reach` it is confined to its own folders and those in there. `host`
    is the address it listens on.
    """

    home: Path
    port: int
    openai_api: bool = False
    token: str = ""
    workspace: Path = Path()
    reach: Reach | None = None
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        if self.workspace == Path():
            object.__setattr__(self, "workspace", self.home / "workspace")

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        # Beside its home: what agents could put a link in place of is nothing to write to.
        return self.home.parent / "app-server.log"

    @property
    def command(self) -> Command:
        """How to run it.

        Raises:
            StackError: Letta is not installed beside us.
        """
        argv = [*_letta().argv, "--backend", "local", "server"]
        argv += ["--listen", f"ws://{self.host}:{self.port}"]
        if self.openai_api:
            argv.append("--openai-api")
        if self.token:
            # Its digest: a file with the token would have to be in the agents' reach.
            digest = hashlib.sha256(self.token.encode()).hexdigest()
            argv += ["--ws-auth", "capability-token", "--ws-token-sha256", digest]
        if self.reach is not None:
            own = (self.home, self.workspace, *self.reach.write)
            programs = (Path(sys.prefix), Path(sys.base_prefix), *self.reach.read)
            argv = list(
                Reach(programs, own).around(argv, clean=self.settings, repositories=self._letta)
            )
        return Command(
            name="App Server",
            argv=tuple(argv),
            log=self.log,
            cwd=self.workspace,
            env=self._environment(),
        )

    @property
    def settings(self) -> list[Path]:
        """Where it takes settings from (Letta Code documentation, "Permissions", "Hooks")."""
        return [
            self.home / ".config" / "letta" / "settings.json",
            self.home / ".letta" / "settings.json",
            self.home / ".letta" / "remote-settings.json",
            self.workspace / ".letta" / "settings.json",
            self.workspace / ".letta" / "settings.local.json",
        ]

    def unasked(self) -> dict[Path, list[str]]:
        """What in its settings would let agents' tools run unasked, by file: rules, and hooks,
        which are programs that may answer questions. Each start takes it out."""
        return {path: found for path in self.settings if (found := own_rules(path))}

    def make_folders(self) -> None:
        """Create the home, with a place for temporary files, and the workspace."""
        for folder in (self.home, self.workspace):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_folder_beneath(self.home, Path(self._temporary.name))

    @property
    def _letta(self) -> Path:
        """Where it keeps what it knows, its agents' memories among it, which are repositories."""
        return self.home / ".letta"

    @property
    def _temporary(self) -> Path:
        return self.home / "tmp"

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k in _KEPT or k.startswith("LC_")}
        letta = _letta()
        path = os.pathsep.join([*letta.path, kept.get("PATH", os.defpath)])
        return {
            **kept,
            **_GIT,
            **letta.environment,
            "PATH": path,
            "HOME": str(self.home),
            "TMPDIR": str(self._temporary),
            # The home is the agents', and Python would run what lies there at its start.
            "PYTHONNOUSERSITE": "1",
            "LETTA_CODE_TELEM": "0",
            # Programs in its own folders that change tools and questions; agents could write them.
            "LETTA_DISABLE_MODS": "1",
            "DISABLE_AUTOUPDATER": "1",
        }

    @property
    def health_url(self) -> str:
        return f"{self.http_url}/readyz"

    async def is_open(self, http: aiohttp.ClientSession) -> bool:
        """Whether it answers somebody who has no token. Raises StackError when it does not."""
        url = f"{self.http_url}/app-server-info"
        status = await status_of(http, url)
        if status is None:
            raise StackError(f"the App Server at {self.url} does not answer any more")
        return status != 401

    @asynccontextmanager
    async def control(self, http: aiohttp.ClientSession) -> AsyncGenerator["Control"]:
        """A connection for a few requests. Raises StackError when there is none."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            async with http.ws_connect(f"{self.url}/ws", max_msg_size=0, headers=headers) as socket:
                yield Control(socket)
        except aiohttp.ClientError as error:
            raise StackError(
                f"the App Server at {self.url} cannot be reached: {why_unreached(error)}"
            ) from None


class Control:
    """Requests one after the other over one connection."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._count = 0

    async def request(self, kind: str, **fields: object) -> dict[str, Any]:
        """Send a frame and wait for its answer.

        Raises:
            StackError: refused, or no answer within 30 s.
        """
        self._count += 1
        request_id = f"up-{self._count}"
        await self._socket.send_json({"type": kind, "request_id": request_id, **fields})
        try:
            answer = await asyncio.wait_for(self._answer(request_id), _TIMEOUT)
        except TimeoutError:
            raise StackError(f"the App Server did not answer {kind} in {_TIMEOUT:g} s") from None
        if not answer.get("success"):
            raise StackError(f"the App Server refused {kind}: {answer.get('error')}")
        return answer

    async def _answer(self, request_id: str) -> dict[str, Any]:
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            frame = mapping(json.loads(message.data))
            if frame.get("request_id") == request_id:
                return frame
        raise StackError("the App Server closed the connection")


@dataclass(frozen=True, slots=True)
class _Letta:
    """How Letta is started, what its `PATH` has first, and what it is told of itself."""

    argv: tuple[str, ...]
    path: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


def _letta() -> _Letta:
    """The one that is installed beside us, by the Node it brings along; else any `letta`.

    Raises:
        StackError: there is none.
    """
    found = importlib.util.find_spec("letta_code")
    if found is not None and found.origin is not None:
        payload = Path(found.origin).parent / "_payload"
        node, script = payload / "bin" / "node", payload / "app" / "letta.js"
        if node.is_file() and script.is_file():
            # With a signal alone a process could open its debugger's port, which knows no secret.
            argv = (str(node), "--disable-sigusr1", _STRICT, str(script))
            # What its own launcher sets.
            return _Letta(argv, (str(node.parent),), {"LETTA_CODE_DISTRIBUTION": "pypi"})
    beside = Path(sys.executable).with_name("letta")
    program = str(beside) if beside.exists() else shutil.which("letta")
    if program is None:
        raise StackError("`letta` is not installed; pip install 'letta-matrix[embedded]'")
    return _Letta((program,))
