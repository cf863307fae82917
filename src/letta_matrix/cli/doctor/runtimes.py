"""Checks of where agents live, and of the keepers in between."""

import asyncio
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from letta_matrix.cli.doctor.check import PATIENCE, check
from letta_matrix.cli.doctor.finding import Finding, Findings, fine, trouble, warning
from letta_matrix.cli.doctor.subject import Subject, is_private
from letta_matrix.cli.doctor.tried import older, tried
from letta_matrix.common.connections.known_servers import server_at
from letta_matrix.common.json_fields import string_of
from letta_matrix.common.lenient_json import printable
from letta_matrix.common.side_by_side import side_by_side
from letta_matrix.config import AppServerRuntime, Config, OpenAICompatibleRuntime, Runtime
from letta_matrix.runtimes.adapters import make_runtime
from letta_matrix.runtimes.app_server.keepers import remote_keeper
from letta_matrix.runtimes.app_server.look import MOST, count_agents, version_of
from letta_matrix.runtimes.faults import CredentialsRefused, RuntimeFault
from letta_matrix.runtimes.keeper.local import MAX_SOCKET_PATH
from letta_matrix.runtimes.keeper.pid_file import KeeperProcess
from letta_matrix.runtimes.keeper.places import KeeperFault

_PATIENCE = PATIENCE - 5.0
"""Seconds that one runtime may take, less than all of them together: or nobody would be told which
one hangs. Its own `request_timeout` may be as long as the check, or longer."""

_AGENTS_AWAY = "its agents answer nobody, and say once that they cannot be reached"


@check(
    "runtimes",
    shows=_AGENTS_AWAY,
    remedy="start it, and see that `runtimes[].url` in config.yaml leads to it",
    vital="runtime ",
)
async def runtimes(subject: Subject) -> Findings:
    """Whether each can be reached, takes our token, and asks before tools run."""

    async def looked_at(runtime: Runtime) -> Findings:
        name = f"runtime {runtime.name}"
        found = await _reached(runtime, subject.config, name)
        return [found, *judge_permissions(runtime, name)]

    return [*chain.from_iterable(await side_by_side(looked_at, subject.config.runtimes))]


async def _reached(runtime: Runtime, config: Config, name: str) -> Finding:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await _found(runtime, config, name)
    except CredentialsRefused as fault:
        return trouble(str(fault), "write the right one into config.yaml", name=name)
    except RuntimeFault as fault:
        return trouble(str(fault), "", name=name)
    except TimeoutError:
        hangs = f"has not listed its agents for {_PATIENCE:g} s: it hangs"
        return trouble(f"the runtime {runtime.name!r} {hangs}", "", name=name)


async def _found(runtime: Runtime, config: Config, name: str) -> Finding:
    """Raises RuntimeFault."""
    if runtime.type == "app_server":
        return await _app_server(runtime, config, name)
    adapter = make_runtime(runtime, config)
    try:
        await adapter.start()
        found = len(await adapter.list_agents())
    finally:
        await adapter.close()
    url = "" if runtime.type == "memory" else f" at {runtime.url}"
    return fine(f"{runtime.type}{url}: {_agents(found)}", name)


async def _app_server(runtime: AppServerRuntime, config: Config, name: str) -> Finding:
    if runtime.keeper is not None:
        return await _by_keeper(runtime, config, name)
    pid_file = None if runtime.pid_file is None else config.path(runtime.pid_file)
    known = server_at(runtime.url, pid_file, "App Server")
    found, version = await count_agents(runtime, known), await version_of(runtime, known)
    return judge_app_server(runtime, found, version, name)


async def _by_keeper(runtime: AppServerRuntime, config: Config, name: str) -> Finding:
    """Its keeper alone knows where it is, and how it is reached."""
    try:
        seen = await remote_keeper(runtime, config).look()
    except KeeperFault as fault:
        # The keeper's own check says more of it.
        return trouble(f"{runtime.server} cannot be reached: {fault}", "", name=name)
    if not seen.get("up"):
        reason = printable(string_of(seen, "reason"))
        return trouble(
            f"the keeper at {runtime.keeper} does not reach its App Server: {reason}",
            "start the App Server, and see what the keeper's --app-server and "
            "--app-server-token-file say",
            name=name,
        )
    return fine(f"{runtime.server} is there; tools ask: {runtime.permission_mode}", name)


def judge_app_server(
    runtime: AppServerRuntime, agents: int, version: str, name: str = ""
) -> Finding:
    """One that answers; `version` is "" where it does not tell."""
    known = tried("letta")
    if older(version, known):
        return warning(
            f"the App Server at {runtime.shown_url} is {version}, older than what the bridge is "
            "tried "
            f"with ({known})",
            "upgrade it when you can (`pip install -U letta`)",
            shows="perhaps not at all",
            name=name,
        )
    called = f"App Server {version}".strip()
    how = f"tools ask: {runtime.permission_mode}"
    return fine(f"{called} at {runtime.shown_url}: {_agents(agents)}; {how}", name)


def judge_permissions(runtime: Runtime, name: str = "") -> Iterator[Finding]:
    """Whether tools run unasked that reach a shell, a file or the network."""
    if isinstance(runtime, AppServerRuntime):
        if runtime.permission_mode in ("acceptEdits", "unrestricted"):
            what = "files are changed" if runtime.permission_mode == "acceptEdits" else "all runs"
            yield warning(
                f"`permission_mode` is {runtime.permission_mode}: {what} without asking",
                "`strict` lets agents ask first (docs/how-to/approvals.md)",
                shows="whoever may talk to an agent can have it do so",
                name=name,
            )
        if runtime.keeper is None and runtime.token is None and not is_private(runtime.url):
            yield warning(
                f"{runtime.shown_url} is another machine, and no token is set",
                "start the App Server with --ws-auth capability-token, and write its token into "
                "`runtimes[].token`",
                shows="anybody who reaches it runs commands there",
                name=name,
            )
    if isinstance(runtime, OpenAICompatibleRuntime):
        yield fine(f"tools at {runtime.url} never ask: its API has no approvals", name)


def _agents(count: int) -> str:
    return f"{count}{' or more' if count >= MOST else ''} agent{'' if count == 1 else 's'}"


@check("keeper", shows="answers under way are cut off when the bridge starts again")
async def keeper(subject: Subject) -> Finding | Findings:
    """Whether the processes that hold the connections are there, and can be."""
    servers = [one for one in subject.config.runtimes if isinstance(one, AppServerRuntime)]
    if not servers:
        return fine("none is needed: there is no App Server")
    return [await _keeper(one, subject) for one in servers]


async def _keeper(runtime: AppServerRuntime, subject: Subject) -> Finding:
    if runtime.keeper is not None:
        return await _remote(runtime, subject.config)
    socket = subject.config.path(runtime.keeper_socket)
    process = KeeperProcess(socket)
    answers = await process.answers()
    runs = answers or await asyncio.to_thread(lambda: process.holds_lock)
    private = await asyncio.to_thread(_is_private, socket.with_name(f"{socket.name}.key"))
    return judge_keeper(
        socket, runs=runs, answers=answers, private=private, bridge=subject.health is not None
    )


async def _remote(runtime: AppServerRuntime, config: Config) -> Finding:
    keeper = remote_keeper(runtime, config)
    try:
        await keeper.look()
    except KeeperFault as fault:
        return trouble(
            str(fault),
            "see that `letta-matrix keeper --listen` runs there, of the same version as the bridge "
            "and with the same token (docs/how-to/runtimes.md)",
            shows="its agents cannot be reached",
        )
    return fine(f"{keeper.name} answers, and knows our token")


def judge_keeper(
    socket: Path, *, runs: bool, answers: bool, private: bool, bridge: bool
) -> Finding:
    """By what is seen of it: whether its process `runs` and `answers`, its secret is `private`,
    and a `bridge` runs that has to have one."""
    if len(str(socket)) > MAX_SOCKET_PATH:
        return trouble(
            f"{socket} is longer than {MAX_SOCKET_PATH} characters, which no socket's path may be",
            "name a shorter one as `runtimes[].keeper_socket`",
            shows="its agents cannot be reached",
        )
    if not private:
        return trouble(
            f"{socket}.key can be read by others, or is somebody else's",
            f"remove it: `rm {socket}.key`; the next keeper makes another one",
            shows="its agents cannot be reached",
        )
    if runs and not answers:
        return trouble(
            f"the keeper at {socket} hangs",
            f"end it where it runs: `fuser -k {socket}.lock`, or start its container again; the "
            "bridge starts another one",
            shows="its agents cannot be reached",
        )
    if bridge and not runs:
        return trouble(
            f"no keeper runs at {socket}, though the bridge does",
            f"{socket}.log says why it ends",
            shows="its agents cannot be reached",
        )
    if runs:
        return fine(f"it runs at {socket}")
    return fine("it does not run; the bridge starts it")


def _is_private(key: Path) -> bool:
    return not key.exists() or not key.stat().st_mode & 0o077
