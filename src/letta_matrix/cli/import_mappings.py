"""`import-mappings`: adopts what the original integration has left."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from letta_matrix.cli.faults import BadInput, Failure
from letta_matrix.cli.options import ConfigOption, DataOption, settings_in

if TYPE_CHECKING:
    from letta_matrix.agents.migration.importing import Importing
    from letta_matrix.agents.migration.mappings_file import OldMapping
    from letta_matrix.config import Config


def import_mappings(
    file: Annotated[Path, typer.Argument(help="agent_user_mappings.json")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")] = False,
    replace_rooms: Annotated[
        bool,
        typer.Option(
            "--replace-rooms",
            help="Let agents that have other rooms by now go on in those of the file.",
        ),
    ] = False,
    keep_logins: Annotated[
        bool,
        typer.Option(
            "--keep-logins",
            help="Leave the sessions and passwords of the agents' accounts as they are.",
        ),
    ] = False,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Adopt the users and rooms of an original installation: agents live on in the rooms that
    people know. Shows what it would do, and asks. Stop the original and the bridge before; a
    second import goes on where the first one ended."""
    from letta_matrix.agents.migration.mappings_file import NoMappings, read_mappings
    from letta_matrix.app.logs import configure_logging, secrets_of

    settings = settings_in(config, data)
    configure_logging(settings.logging, secrets_of(settings))
    if not settings.runtimes:
        raise BadInput("the configuration has no runtimes: the agents would live nowhere")
    try:
        mappings, faults = read_mappings(file)
    except NoMappings as error:
        raise BadInput(f"{file}: {error}") from None
    command = _Command(file, faults, dry_run=dry_run, yes=yes)
    choices = {"replaces_rooms": replace_rooms, "keeps_logins": keep_logins}
    if not asyncio.run(command.run(settings, mappings, choices)):
        raise typer.Exit(1)


class _Command:
    def __init__(self, file: Path, faults: Sequence[str], *, dry_run: bool, yes: bool) -> None:
        self._file = file
        self._faults = faults
        self._dry_run = dry_run
        self._yes = yes

    async def run(
        self, config: "Config", mappings: "Sequence[OldMapping]", choices: dict[str, bool]
    ) -> bool:
        """Whether all of the plan was done, or it was only to be shown. Raises BadInput,
        Failure."""
        from letta_matrix.agents.migration.importing import NotAllowed
        from letta_matrix.agents.migration.living import RuntimeSilent, living_in
        from letta_matrix.cli.migration_report import outcome_text, plan_text
        from letta_matrix.runtimes.adapters import make_runtime
        from letta_matrix.store.database import StoreError

        try:
            async with _import(config, choices) as work:
                living = await living_in(make_runtime(one, config) for one in config.runtimes)
                plan = await work.plan(mappings, living)
                print(plan_text(self._file, plan, self._faults))
                if plan.is_done or self._dry_run:
                    print("Nothing was changed.")
                    return True
                await self._be_sure()
                outcomes = await work.carry_out(plan)
        except (NotAllowed, RuntimeSilent, StoreError) as error:
            raise Failure(str(error)) from None
        print(outcome_text(outcomes))
        return all(one.is_whole for one in outcomes)

    async def _be_sure(self) -> None:
        """Raises BadInput, Failure: nothing is to be done."""
        if self._yes:
            return
        if not sys.stdin.isatty():
            raise BadInput("nothing was changed: say --yes to have this done without being asked")
        if not await asyncio.to_thread(typer.confirm, "Do this?"):
            raise Failure("nothing was changed")


@asynccontextmanager
async def _import(config: "Config", choices: dict[str, bool]) -> "AsyncGenerator[Importing]":
    """An import, while no bridge can be started. Raises StoreError."""
    from letta_matrix.access.database import url_of_database
    from letta_matrix.access.route import homeserver_of
    from letta_matrix.agents.migration.importing import importing
    from letta_matrix.store.agents import AgentDirectory
    from letta_matrix.store.database import Database
    from letta_matrix.store.passwords import PasswordStore

    async with Database(url_of_database(config)) as database:
        homeserver = homeserver_of(config)
        try:
            await database.open(alone=True)
            directory = await AgentDirectory(database).load()
            passwords = PasswordStore(database)
            async with importing(config, homeserver, directory, passwords, **choices) as work:
                yield work
        finally:
            await homeserver.close()
