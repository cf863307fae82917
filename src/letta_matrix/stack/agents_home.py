"""Where the embedded agents live: the App Server, confined, and the model that they think with."""

import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp

from letta_matrix.common.parts import part
from letta_matrix.common.private_files import write_private
from letta_matrix.stack import confine
from letta_matrix.stack.app_server import AppServerProcess
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.files import keep_secret
from letta_matrix.stack.held_ports import HeldPorts
from letta_matrix.stack.models import (
    ModelChoice,
    ProviderFile,
    Wanted,
    check_endpoint,
    choose_model,
    demo_choice,
    demo_key,
)
from letta_matrix.stack.ports import Ports
from letta_matrix.stack.starter import create_starters, leave_gone_models, list_names, model_handle
from letta_matrix.stack.supervisor import Announce, Command

Run = Callable[[str, Command, str, int], Awaitable[None]]
"""Starts a child by its key, waits until an address of it answers with that status, and looks
after it from then on."""


@part
class AgentsHome:
    """The App Server of a data folder. `token` is what its clients have to know: the one it is
    given, else another one each time. `_host` is the address it listens on."""

    _data: Path
    _ports: Ports
    _held: HeldPorts
    _http: aiohttp.ClientSession
    _announce: Announce
    _token: str = ""
    _host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        self._demo_file = self._data / "demo-model.key"
        self.token = self._token or secrets.token_urlsafe(24)
        write_private(self._data / "app-server.token", self.token + "\n")
        self._folder = self._data / "letta"
        self._server = self._confined(())

    @property
    def url(self) -> str:
        return self._server.url

    async def choose(self, wanted: Wanted) -> ModelChoice:
        """The model; it is connected to the App Server, and answers.

        Raises:
            StackError: it does not, or there is no such model to be had.
        """
        self._move_workspace()
        self._server.make_folders()
        providers = ProviderFile(self._server.home)
        asked = choose_model(os.environ, providers.connected(), wanted)
        choice = asked or demo_choice(
            self._ports.demo_model, demo_key(keep_secret(self._demo_file))
        )
        await check_endpoint(self._http, choice)
        for path in providers.connect(choice):
            self._announce(f"warning: {path} was in the way of the App Server's own files")
        return choice

    async def start(
        self, choice: ModelChoice, run: Run, allowed: Sequence[Path]
    ) -> tuple[list[str], str]:
        """Start it, with the paths `allowed` to its agents beside their own folders; the agents'
        names, and the model that new ones get.

        Raises:
            StackError: it does not start, or lets programs in that have no token.
        """
        self._server = self._confined(allowed)
        if self._server.reach is None:
            self._announce(
                "warning: this system has no Landlock, so what agents run reaches all that you "
                "reach; approve with care"
            )
        if choice.demo:
            url = f"http://127.0.0.1:{self._ports.demo_model}/v1/models"
            await run("demo_model", self._demo_command(), url, 401)
        else:
            self._held.give_back_demo_model()
        for path, rules in self._server.unasked().items():
            self._announce(
                f"warning: {path} has what lets tools run unasked ({', '.join(rules)}); a confined "
                "App Server takes it out at its start"
            )
        await run("app_server", self._server.command, self._server.health_url, 200)
        if await self._server.is_open(self._http):
            raise StackError(
                f"the App Server at {self.url} answers programs that have no token; is another one "
                "listening there?"
            )
        async with self._server.control(self._http) as control:
            handle = await model_handle(control, choice)
            if created := await create_starters(control, handle, self._data / "starters"):
                self._announce(f"created the agents {' and '.join(created)}")
            if moved := await leave_gone_models(control, handle, demo=choice.demo):
                self._announce(f"{', '.join(moved)}: now on {handle}")
            return await list_names(control), handle

    def _confined(self, allowed: Sequence[Path]) -> AppServerProcess:
        reach = confine.Reach(write=allowed) if confine.version() else None
        return AppServerProcess(
            self._folder,
            self._ports.app_server,
            token=self.token,
            workspace=self._data / "workspace",
            reach=reach,
            host=self._host,
        )

    def _move_workspace(self) -> None:
        """Folders of earlier versions had it among the App Server's own files."""
        old, new = self._folder / "workspace", self._server.workspace
        if old.is_dir() and not old.is_symlink() and not new.exists():
            old.rename(new)

    def _demo_command(self) -> Command:
        module = "letta_matrix.stack.demo_model"
        options = ("--port", str(self._ports.demo_model), "--key-file", str(self._demo_file))
        argv = (sys.executable, "-m", module, *options)
        log = self._data / "demo-model.log"
        return Command("demo model", argv, log, self._data, sockets=self._held.demo_model)
