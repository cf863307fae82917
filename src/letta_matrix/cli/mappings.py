"""`export-mappings` and `import-mappings`: the original system's agent_user_mappings.json."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from letta_matrix.cli.faults import BadInput
from letta_matrix.cli.options import ConfigOption, DataOption, config_path

if TYPE_CHECKING:
    from letta_matrix.config import Config
    from letta_matrix.store.agents import Agent

FileArgument = Annotated[Path, typer.Argument(help="agent_user_mappings.json")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("export-mappings")(export_mappings)
    app.command("import-mappings")(import_mappings)


def export_mappings(
    file: FileArgument, config: ConfigOption = None, data: DataOption = None
) -> None:
    """Write the agents' users and rooms in the original system's format."""
    from letta_matrix.cli.database import load_agents
    from letta_matrix.config import load_config
    from letta_matrix.stack.files import write_private

    settings = load_config(config_path(config, data))
    found = asyncio.run(load_agents(settings))
    entries = {agent.agent_id: _entry(agent, settings) for agent in found}
    write_private(file, json.dumps(entries, indent=2) + "\n")
    print(f"wrote {len(entries)} agents to {file}")


def import_mappings(
    file: FileArgument, config: ConfigOption = None, data: DataOption = None
) -> None:
    """Adopt the users and rooms of an original installation. Stop the bridge before."""
    from letta_matrix.config import load_config
    from letta_matrix.logs import configure_logging, secrets_of

    settings = load_config(config_path(config, data))
    configure_logging(settings.logging, secrets_of(settings))
    entries = _read(file, settings)
    added = asyncio.run(_adopt(settings, entries))
    print(f"adopted {added} agents; {len(entries) - added} were known already")


def _read(file: Path, config: "Config") -> list[dict[str, object]]:
    try:
        data: object = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadInput(f"{file}: is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise BadInput(f"{file}: expected an object with one entry per agent id")
    entries = cast("dict[str, object]", data)
    return [_checked(file, key, entry, config) for key, entry in entries.items()]


def _checked(file: Path, key: str, entry: object, config: "Config") -> dict[str, object]:
    if not isinstance(entry, dict):
        raise BadInput(f"{file}: {key}: expected an object")
    fields = cast("dict[str, object]", entry)
    user_id = str(fields.get("matrix_user_id") or "")
    if not user_id.startswith("@") or user_id.partition(":")[2] != config.homeserver.domain:
        raise BadInput(
            f"{file}: {key}: matrix_user_id: expected a user of {config.homeserver.domain}"
        )
    return {**fields, "agent_id": key, "matrix_user_id": user_id}


async def _adopt(config: "Config", entries: list[dict[str, object]]) -> int:
    """Reserve rows for agents not known yet; how many. Raises StoreError."""
    from letta_matrix.store.agents import Agent, AgentDirectory
    from letta_matrix.store.database import Database, database_url

    if not config.runtimes:
        raise BadInput("the configuration has no runtimes: the agents would live nowhere")
    database = Database(database_url(config.database.url, config.directory))
    try:
        await database.open()
        directory = AgentDirectory(database)
        await directory.load()
        new = [entry for entry in entries if directory.get(str(entry["agent_id"])) is None]
        await directory.reserve(
            [
                Agent(
                    agent_id=str(entry["agent_id"]),
                    runtime=config.runtimes[0].name,
                    name=str(entry.get("agent_name") or entry["agent_id"]),
                    user_id=str(entry["matrix_user_id"]),
                    room_id=str(entry["room_id"]) if entry.get("room_id") else None,
                )
                for entry in new
            ]
        )
    finally:
        await database.close()
    return len(new)


def _entry(agent: "Agent", config: "Config") -> dict[str, object]:
    members = config.agents.room_members if agent.room_id else []
    return {
        "agent_id": agent.agent_id,
        "agent_name": agent.name,
        "matrix_user_id": agent.user_id,
        "matrix_password": "",
        "created": True,
        "room_id": agent.room_id,
        "room_created": agent.room_id is not None,
        "invitation_status": dict.fromkeys(members, "joined"),
    }
