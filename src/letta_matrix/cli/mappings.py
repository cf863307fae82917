"""`export-mappings`: the agents in the original integration's format."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from letta_matrix.cli.options import ConfigOption, DataOption, settings_in

if TYPE_CHECKING:
    from letta_matrix.config import Config
    from letta_matrix.store.agents import Agent

FileArgument = Annotated[Path, typer.Argument(help="agent_user_mappings.json")]


def export_mappings(
    file: FileArgument, config: ConfigOption = None, data: DataOption = None
) -> None:
    """Write the agents' users and rooms in the original system's format."""
    from letta_matrix.common.private_files import write_private

    settings = settings_in(config, data)
    found, passwords = asyncio.run(_known(settings))
    entries = {
        agent.agent_id: _entry(agent, settings, passwords.get(agent.agent_id, ""))
        for agent in found
    }
    write_private(file, json.dumps(entries, indent=2) + "\n")
    print(f"wrote {len(entries)} agents to {file}")


async def _known(config: "Config") -> "tuple[list[Agent], dict[str, str]]":
    from letta_matrix.cli.database import agents_in, open_existing
    from letta_matrix.store.passwords import PasswordStore

    async with open_existing(config) as database:
        return await agents_in(database), await PasswordStore(database).all()


def _entry(agent: "Agent", config: "Config", password: str) -> dict[str, object]:
    members = config.agents.room_members if agent.room_id else []
    return {
        "agent_id": agent.agent_id,
        "agent_name": agent.name,
        "matrix_user_id": agent.user_id,
        "matrix_password": password,
        "created": True,
        "room_id": agent.room_id,
        "room_created": agent.room_id is not None,
        "invitation_status": dict.fromkeys(members, "joined"),
    }
