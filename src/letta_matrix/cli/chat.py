"""`letta-matrix chat`: talk to an agent in the terminal."""

import asyncio
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from letta_matrix import clock
from letta_matrix.cli.account import human_of
from letta_matrix.cli.faults import BadInput, Failure, Unreachable
from letta_matrix.cli.options import DataOption, data_directory

if TYPE_CHECKING:
    from letta_matrix.cli.matrix_client import MatrixClient
    from letta_matrix.store.agents import Agent

_POLL = 10.0
_HOMESERVER_AWAY = 60.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("chat")(chat)


def chat(
    agent: Annotated[str, typer.Argument(help="The agent's name or id.")],
    message: Annotated[
        str | None, typer.Argument(help="Say this, show the answer, and end.", show_default=False)
    ] = None,
    data: DataOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds of silence before giving up.")] = 300.0,
) -> None:
    """Talk to an agent at once, as the human of the embedded stack."""
    from letta_matrix.stack.state import read_state

    directory = data_directory(data)
    state = read_state(directory)
    with asyncio.Runner() as runner:
        found = runner.run(_find(directory, agent))
        room_id = found.room_id
        if room_id is None:
            raise Failure(f"{found.name} has no room yet; wait a moment")
        client = _client(state, runner)
        runner.run(client.__aenter__())
        try:
            for text in _texts(message):
                runner.run(_ask(client, room_id, found.user_id, text, timeout))
        finally:
            runner.run(client.__aexit__())


def _client(state: Mapping[str, Any], runner: asyncio.Runner) -> "MatrixClient":
    from letta_matrix.cli.matrix_client import MatrixClient

    user_id, password = human_of(state)

    async def make() -> MatrixClient:
        return MatrixClient(state["homeserver"]["url"], user_id, password)

    return runner.run(make())


def _texts(message: str | None) -> Iterator[str]:
    """What to say: the one message, else the lines of the terminal or of stdin."""
    if message is not None:
        yield message
        return
    prompt = "you> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            return
        if line:
            yield line


async def _find(directory: Path, wanted: str) -> "Agent":
    from letta_matrix.cli.database import load_agents
    from letta_matrix.config import load_config

    agents = await load_agents(load_config(directory / "config.yaml"))
    matching = [agent for agent in agents if wanted in (agent.agent_id, agent.user_id)] or [
        agent for agent in agents if agent.name.casefold() == wanted.casefold()
    ]
    if len(matching) == 1:
        return matching[0]
    if matching:
        ids = ", ".join(agent.agent_id for agent in matching)
        raise BadInput(f"several agents are named {wanted}; say which by its id: {ids}")
    names = ", ".join(agent.name for agent in agents) or "none yet"
    raise BadInput(f"no agent is named {wanted}; there are: {names}")


async def _ask(client: "MatrixClient", room_id: str, agent: str, text: str, timeout: float) -> None:
    """Send `text` and print the answer as it grows."""
    from letta_matrix.cli.transcript import Transcript

    await client.catch_up(room_id)
    transcript = Transcript(agent, await client.send(room_id, text))
    heard = clock.now()
    while (left := _left(transcript.patience, timeout, heard)) > 0:
        before = transcript.patience
        news = await _news(client, room_id, min(left, _POLL))
        added = "".join(transcript.take(event) for event in news)
        print(added, end="", flush=True)
        if added or transcript.patience != before:
            heard = clock.now()
    if transcript.patience is None:
        raise Failure(f"no answer for {timeout:g} s")
    print()


def _left(patience: float | None, timeout: float, heard: float) -> float:
    """Seconds of silence still to be waited."""
    return (timeout if patience is None else patience) - (clock.now() - heard)


async def _news(client: "MatrixClient", room_id: str, wait: float) -> list[Mapping[str, Any]]:
    """The room's new events, also across a restart of the homeserver."""
    gone_at = clock.now()
    said = False
    while True:
        try:
            news = await client.news(room_id, wait)
        except Unreachable:
            if clock.now() - gone_at > _HOMESERVER_AWAY + wait:
                raise
            if not said:
                _remark("\n(the homeserver is away; trying again for a minute)")
                said = True
            await asyncio.sleep(0.5)
        else:
            if said:
                _remark("(the homeserver is back)")
            return news


def _remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
