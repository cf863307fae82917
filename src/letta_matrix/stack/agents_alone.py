"""An App Server by itself, with its model and its first agents: what its container runs.

`python -m letta_matrix.stack.agents_alone DATA`. In the environment: the token that its clients
have to know (`APP_SERVER_TOKEN_FILE`, a file with it), and the model as `letta-matrix up` takes it
(`ANTHROPIC_API_KEY` and the like; `LETTA_MATRIX_MODEL_BASE_URL`, `LETTA_MATRIX_MODEL_API_KEY`,
`LETTA_MATRIX_MODEL`). It listens on all addresses, or on `APP_SERVER_HOST`.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from letta_matrix.common.waiting import ended_by_signal, unless
from letta_matrix.stack.agents_home import AgentsHome
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.held_ports import HeldPorts
from letta_matrix.stack.models import Wanted
from letta_matrix.stack.ports import Ports
from letta_matrix.stack.silence import status_of
from letta_matrix.stack.supervisor import Child, Command

_EVERYWHERE = "0.0.0.0"  # noqa: S104 - the bridge is in another container
_START_TIMEOUT = 120.0
_GRACE = 5.0


class AgentsAlone:
    """The servers of one data folder, started in their order and ended together."""

    def __init__(self, data: Path, env: Mapping[str, str], http: aiohttp.ClientSession) -> None:
        self._http = http
        self._children: list[Child] = []
        self._wanted = Wanted(
            env.get("LETTA_MATRIX_MODEL_BASE_URL", ""),
            env.get("LETTA_MATRIX_MODEL_API_KEY", ""),
            env.get("LETTA_MATRIX_MODEL", ""),
        )
        token, host = _token(env), env.get("APP_SERVER_HOST") or _EVERYWHERE
        self._home = AgentsHome(data, Ports(), HeldPorts(), http, _say, token, host)

    async def start(self) -> None:
        """Raises StackError for what does not start."""
        choice = await self._home.choose(self._wanted)
        _say(f"model: {choice.origin}")
        names, _ = await self._home.start(choice, self._run, ())
        _say(f"agents: {', '.join(names)}")

    async def stop(self) -> None:
        """End them, within some seconds."""
        for child in self._children:
            child.terminate()
        await asyncio.gather(*(child.wait_ended(_GRACE) for child in self._children))

    async def _run(self, _: str, command: Command, url: str, status: int) -> None:
        child = Child(command, _say)
        self._children.append(child)
        await child.start()

        async def answers() -> bool:
            return await status_of(self._http, url) == status

        await child.wait_ready(answers, _START_TIMEOUT)


async def serve(data: Path, env: Mapping[str, str]) -> None:
    """Run until SIGTERM or SIGINT. Raises StackError for what does not start."""
    stop = ended_by_signal()
    async with aiohttp.ClientSession() as http:
        alone = AgentsAlone(data, env, http)
        try:
            if (started := await unless(stop, alone.start())) is not None:
                started.result()
                await stop.wait()
        finally:
            await alone.stop()


def _token(env: Mapping[str, str]) -> str:
    """Raises StackError where there is none: other machines are let in by it alone."""
    named = env.get("APP_SERVER_TOKEN_FILE", "")
    try:
        token = Path(named).read_text(encoding="utf-8").strip() if named else ""
    except OSError as error:
        raise StackError(f"APP_SERVER_TOKEN_FILE: {named}: {error.strerror}") from None
    if not token:
        raise StackError("APP_SERVER_TOKEN_FILE: name a file with the token that clients must know")
    return token


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the container's log


def main() -> None:
    """Faults are one line, exit status 1."""
    os.umask(0o077)
    data = Path(sys.argv[1])
    data.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(serve(data, os.environ))
    except StackError as error:
        sys.exit(f"letta-matrix: {error}")


if __name__ == "__main__":
    main()
