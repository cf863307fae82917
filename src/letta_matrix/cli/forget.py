"""`letta-matrix forget`: rooms and accounts are found or made anew at the next start."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from letta_matrix.cli.faults import BadInput
from letta_matrix.cli.options import ConfigOption, DataOption, settings_in

if TYPE_CHECKING:
    from letta_matrix.config import Config


def forget(
    agents: Annotated[
        list[str] | None, typer.Argument(metavar="[AGENT]...", help="Ids or names of agents.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All agents, the bot, its space and its control room.")
    ] = False,
    new_room: Annotated[
        bool,
        typer.Option(
            "--new-room",
            help="Make the agents other rooms, though those they had are still there.",
        ),
    ] = False,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Forget what the homeserver is believed to have of agents: their accounts and their rooms.
    The next start of the bridge finds those that are there, and makes the others anew; nothing
    on the homeserver is removed, and conversations go on. Stop the bridge before."""
    from letta_matrix.app.logs import configure_logging, secrets_of

    if bool(agents) is everything:
        raise BadInput("name agents by id or name, or say --all")
    settings = settings_in(config, data)
    configure_logging(settings.logging, secrets_of(settings))
    names = asyncio.run(_forget(settings, agents or [], everything=everything, new_room=new_room))
    print(f"forgotten: {', '.join(names) or 'no agents'}")
    if new_room:
        print("Other rooms are made when the bridge is started.")
    else:
        print("Accounts and rooms are found or made anew when the bridge is started.")


async def _forget(
    config: "Config", refs: list[str], *, everything: bool, new_room: bool
) -> list[str]:
    """The names of the agents that it was. Raises BadInput, Failure."""
    from letta_matrix.cli.database import called, open_existing
    from letta_matrix.store.agents import AgentDirectory
    from letta_matrix.store.forgetting import forget_agents, forget_home
    from letta_matrix.store.meta import Meta

    async with open_existing(config) as database:
        # From here on no bridge can be started.
        await database.open(alone=True)
        directory = await AgentDirectory(database).load()
        known = directory.all()
        chosen = known if everything else [called(ref, known) for ref in refs]
        await forget_agents(directory, [one.agent_id for one in chosen], new_room=new_room)
        if everything:
            await forget_home(Meta(database))
    return [one.name for one in chosen]
