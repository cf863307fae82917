"""`export-mappings` and `import-mappings`: the original system's agent_user_mappings.json."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from letta_matrix.cli.faults import BadInput
from letta_matrix.cli.options import ConfigOption, DataOption, settings_in, text_in

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


def import_mappings(
    file: FileArgument, config: ConfigOption = None, data: DataOption = None
) -> None:
    """Adopt the users and rooms of an original installation. Stop the bridge before."""
    from letta_matrix.app.logs import configure_logging, secrets_of

    settings = settings_in(config, data)
    configure_logging(settings.logging, secrets_of(settings))
    entries = _read(file, settings)
    added = asyncio.run(_adopt(settings, file, entries))
    print(f"adopted {added} agents; {len(entries) - added} were known already")


async def _known(config: "Config") -> "tuple[list[Agent], dict[str, str]]":
    from letta_matrix.cli.database import agents_in, open_existing
    from letta_matrix.store.passwords import PasswordStore

    async with open_existing(config) as database:
        return await agents_in(database), await PasswordStore(database).all()


def _read(file: Path, config: "Config") -> "list[Agent]":
    try:
        data: object = json.loads(text_in(file))
    except ValueError as error:
        raise BadInput(f"{file}: is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise BadInput(f"{file}: expected an object with one entry per agent id")
    if not config.runtimes:
        raise BadInput("the configuration has no runtimes: the agents would live nowhere")
    entries = cast("dict[str, object]", data)
    found = [_agent(file, key, entry, config) for key, entry in entries.items()]
    _refuse(file, [*_strangers(found, config), *_clashes(found)])
    return found


def _agent(file: Path, key: str, entry: object, config: "Config") -> "Agent":
    from letta_matrix.store.agents import Agent

    if not isinstance(entry, dict):
        raise BadInput(f"{file}: {key}: expected an object")
    fields = cast("dict[str, object]", entry)
    return Agent(
        agent_id=key,
        runtime=config.runtimes[0].name,
        name=str(fields.get("agent_name") or key),
        user_id=str(fields.get("matrix_user_id") or ""),
        room_id=str(fields["room_id"]) if fields.get("room_id") else None,
    )


def _refuse(file: Path, faults: Sequence[str]) -> None:
    if faults:
        raise BadInput("\n".join(f"{file}: {fault}" for fault in faults))


def _strangers(found: "Iterable[Agent]", config: "Config") -> list[str]:
    """A line for each user that the bridge may not act as."""
    from letta_matrix.matrix.identifiers import RESERVED_PREFIXES

    domain = config.homeserver.domain
    ours = tuple(f"@{prefix}" for prefix in RESERVED_PREFIXES)
    names = " or ".join(f"{prefix}...:{domain}" for prefix in ours)
    return [
        f"{agent.agent_id}: matrix_user_id {agent.user_id or '(none)'}: expected {names}; "
        "the bridge can act as no other user"
        for agent in found
        if agent.user_id.partition(":")[2] != domain or not agent.user_id.startswith(ours)
    ]


def _clashes(found: "Iterable[Agent]") -> list[str]:
    """A line for each user or room that an earlier agent has already."""
    owners: dict[str, str] = {}
    faults: list[str] = []
    for agent in found:
        for thing in (agent.user_id, agent.room_id):
            if thing and owners.setdefault(thing, agent.agent_id) != agent.agent_id:
                faults.append(f"{agent.agent_id}: {thing} belongs to {owners[thing]} already")
    return faults


async def _adopt(config: "Config", file: Path, found: "list[Agent]") -> int:
    """Reserve rows for agents not known yet; how many. Raises BadInput, StoreError."""
    from letta_matrix.store.agents import AgentDirectory
    from letta_matrix.store.database import Database, database_url

    database = Database(database_url(config.database.url, config.directory))
    try:
        await database.open()
        directory = await AgentDirectory(database).load()
        new = [agent for agent in found if directory.get(agent.agent_id) is None]
        _refuse(file, _clashes([*directory.all(), *new]))
        await directory.reserve(new)
    finally:
        await database.close()
    return len(new)


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
