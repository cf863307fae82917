"""`letta-matrix chat`: talk to an agent in the terminal."""

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from letta_matrix.cli.account import human_of
from letta_matrix.cli.faults import BadInput, Failure
from letta_matrix.cli.options import DataOption, above_zero, data_directory

if TYPE_CHECKING:
    from letta_matrix.cli.views import View
    from letta_matrix.config import Config
    from letta_matrix.store.agents import Agent


def chat(
    agent: Annotated[str, typer.Argument(help="The agent's name or id.")],
    message: Annotated[
        str | None, typer.Argument(help="Say this, show the answer, and end.", show_default=False)
    ] = None,
    data: DataOption = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds of silence before giving up.", callback=above_zero)
    ] = 300.0,
) -> None:
    """Talk to an agent at once, as the human of the embedded stack.

    Ctrl-C while it answers offers to stop it; a second one leaves, and it goes on.
    """
    from letta_matrix.cli.exchange import Left

    try:
        asyncio.run(_chat(data, agent, message, timeout))
    except (Left, asyncio.CancelledError):
        raise typer.Exit(130) from None


async def _chat(data: Path | None, wanted: str, message: str | None, timeout: float) -> None:
    from letta_matrix.cli.conversation import Conversation
    from letta_matrix.cli.exchange import Session
    from letta_matrix.cli.keyboard import Keyboard
    from letta_matrix.cli.matrix_client import MatrixClient
    from letta_matrix.config import load_config
    from letta_matrix.stack.bridge_config import known_synapse
    from letta_matrix.stack.state import read_state

    directory = data_directory(data)
    state = read_state(directory)
    settings = load_config(directory / "config.yaml")
    agent = await _find(settings, wanted)
    if agent.room_id is None:
        raise Failure(f"{agent.name} has no room yet; wait a moment")
    keyboard = Keyboard()
    # Standard input may be somebody else's: with a message given nothing more is wanted of it.
    typed = keyboard if message is None or keyboard.is_terminal else None
    url: str = state["homeserver"]["url"]
    async with MatrixClient(url, *human_of(state), known_synapse(directory, url)) as client:
        options = () if data is None else ("--data", str(data))
        who = agent.room_id, agent.name
        seen = _view(agent.name), typed, timeout, options
        session = Session(client, *who, *seen, settings.bot_user_id)
        await Conversation(session, agent.user_id).run(message)


def _view(agent: str) -> "View":
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from letta_matrix.cli.terminal_view import TerminalView

        return TerminalView(agent)
    from letta_matrix.cli.views import PlainView

    return PlainView()


async def _find(settings: "Config", wanted: str) -> "Agent":
    from letta_matrix.cli.database import load_agents
    from letta_matrix.store.agents import meant

    agents = await load_agents(settings)
    matching = meant(wanted, agents)
    if len(matching) == 1:
        return matching[0]
    if matching:
        ids = ", ".join(agent.agent_id for agent in matching)
        raise BadInput(f"several agents are named {wanted}; say which by its id: {ids}")
    names = ", ".join(agent.name for agent in agents) or "none yet"
    raise BadInput(f"no agent is named {wanted}; there are: {names}")
