"""What an admin of the homeserver does for agents, where its credentials are configured: accounts
of old get passwords, and rooms that others have made their agents' power."""

import secrets
import string

from mautrix.errors import MatrixRequestError

from letta_matrix.agents.decoration import NotAsWanted
from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.matrix.errors import refused_request
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.requests import Requests
from letta_matrix.matrix.server_admin import ServerAdmin
from letta_matrix.store.agents import Agent
from letta_matrix.store.passwords import PasswordStore

DEV_PASSWORD = "password"  # noqa: S105 - as the original integration's DEV_MODE
_CHARACTERS = string.ascii_letters + string.digits
_LENGTH = 32

ADMIN_WANTED = (
    "; homeserver.admin_username and homeserver.admin_password would let the bridge give it power"
)


@part
class ServerHelp:
    """Raises NotAsWanted with what an operator can do, MatrixRequestError, HomeserverUnavailable
    and StoreUnavailable. `admin` is None where no credentials are configured."""

    _config: Config
    admin: ServerAdmin | None
    _passwords: PasswordStore

    @property
    def can_empower(self) -> bool:
        return self.admin is not None

    @property
    def password_kind(self) -> str:
        """Which passwords agents are to have: "random", "dev" or "" for none."""
        if not self._config.agents.passwords:
            return ""
        return "dev" if self._config.agents.dev_mode else "random"

    async def give_password(self, agent: Agent) -> None:
        """Let an agent's account have its password, which is stored first."""
        if self.admin is None:
            return
        password = DEV_PASSWORD
        if not self._config.agents.dev_mode:
            kept = await self._passwords.of(agent.agent_id)
            password = kept if kept not in (None, DEV_PASSWORD) else random_password()
        await self._passwords.keep(agent.agent_id, password)
        try:
            await self.admin.set_password(agent.user_id, password)
        except MatrixRequestError as error:
            raise NotAsWanted(
                f"{refused_request(error)}: see whether homeserver.admin_username is an admin of "
                "the homeserver, and its password right; where logins are with another service "
                "(MAS, SSO) there are no such passwords"
            ) from None

    async def empower(self, ghost: Intent, room_id: str) -> None:
        """Bring an agent into its room with the power to invite and to change its state, if it is
        not there or has none: people of the original integration have made the room."""
        if self.admin is None or await ghost.has_power(room_id):
            return
        try:
            await self.admin.empower(ghost.user_id, room_id)
        except MatrixRequestError as error:
            raise NotAsWanted(
                f"an agent has no power in its room, and none can be given: "
                f"{refused_request(error)}. Where nobody of the homeserver has power there any "
                "more, `letta-matrix forget AGENT --new-room` makes another room"
            ) from None
        await ghost.join(room_id)


def server_help(config: Config, homeserver: Requests, passwords: PasswordStore) -> ServerHelp:
    """With the credentials of the configuration."""
    name, password = config.homeserver.admin_username, config.homeserver.admin_password
    if name is None or password is None:
        return ServerHelp(config, None, passwords)
    admin = ServerAdmin(homeserver, name, password.get_secret_value())
    return ServerHelp(config, admin, passwords)


def random_password() -> str:
    return "".join(secrets.choice(_CHARACTERS) for _ in range(_LENGTH))
