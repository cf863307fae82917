"""An import from its file to its outcome: what is found, the plan, and carrying it out."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

from mautrix.api import ClientPath, Method
from mautrix.errors import MatrixRequestError, MForbidden

from letta_matrix.agents.migration.adopting import Adopting, Outcome
from letta_matrix.agents.migration.found import Living
from letta_matrix.agents.migration.mappings_file import OldMapping
from letta_matrix.agents.migration.old_users import old_users
from letta_matrix.agents.migration.plan import Plan, Rules, plan_of
from letta_matrix.agents.migration.survey import Survey
from letta_matrix.agents.server_help import server_help
from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.matrix.errors import refused_request
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.passwords import PasswordStore

_FIRST_LOOK = 10.0


class NotAllowed(Exception):
    """The homeserver does not let us look; one line for an operator. Nothing was changed."""


@part
class Importing:
    """One import; `directory` is loaded, and no bridge runs on its database."""

    _homeserver: Homeserver
    _directory: AgentDirectory
    _survey: Survey
    _adopting: Adopting
    _rules: Rules

    async def plan(self, mappings: Sequence[OldMapping], living: Mapping[str, Living]) -> Plan:
        """What is to be done. Raises NotAllowed."""
        known = {one.agent_id: one for one in self._directory.all()}
        try:
            await self._greet()
            found = await self._survey.look(mappings, living, known)
        except MatrixRequestError as error:
            raise NotAllowed(
                f"{refused_request(error)}. Is homeserver.admin_username an admin of the "
                "homeserver, and its password right? Without the two the import does what can be "
                "done without"
            ) from None
        except HomeserverUnavailable as error:
            raise NotAllowed(str(error)) from None
        return plan_of(mappings, found, self._rules)

    async def carry_out(self, plan: Plan) -> list[Outcome]:
        """Raises StoreUnavailable."""
        return await self._adopting.carry_out(plan)

    async def _greet(self) -> None:
        """See whether the homeserver is there and knows us, before it is asked much."""
        bot = self._rules.bot
        try:
            await self._homeserver.request(
                Method.GET, ClientPath.v3.account.whoami, user_id=bot, give_up_after=_FIRST_LOOK
            )
        except MForbidden:
            # The bot has no account yet.
            return


@asynccontextmanager
async def importing(
    config: Config,
    homeserver: Homeserver,
    directory: AgentDirectory,
    passwords: PasswordStore,
    *,
    replaces_rooms: bool = False,
    keeps_logins: bool = False,
) -> AsyncGenerator[Importing]:
    """An import; sessions that it opens for old users end with the block."""
    helped = server_help(config, homeserver, passwords)
    rules = Rules(
        config.homeserver.domain,
        config.bot_user_id,
        frozenset(
            who for who in (*config.agents.room_members, *config.permissions) if who[:1] == "@"
        ),
        _admin_of(config),
        replaces_rooms,
        keeps_logins,
    )
    async with old_users(homeserver, config.bot_user_id, helped.admin) as users:
        survey = Survey(homeserver, users, helped.admin, rules)
        adopting = Adopting(homeserver, users, helped, directory, rules)
        yield Importing(homeserver, directory, survey, adopting, rules)


def _admin_of(config: Config) -> str:
    name = config.homeserver.admin_username or ""
    return name if name[:1] in ("", "@") else f"@{name}:{config.homeserver.domain}"
