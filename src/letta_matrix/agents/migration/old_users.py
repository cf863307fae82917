"""Users that the original has made with other ids than their agents': acting as them once more."""

import asyncio
from collections import defaultdict
from contextlib import aclosing

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.agents.migration.found import OldUser, Way
from letta_matrix.agents.migration.mappings_file import OldMapping
from letta_matrix.common.identifiers import is_ours
from letta_matrix.matrix.errors import refusal, why
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.logins import log_in, log_out
from letta_matrix.matrix.server_admin import ServerAdmin

log = structlog.get_logger()

_LOGIN_TIME = 5.0


class OldUsers:
    """Those of a domain: ours are impersonated, of others an admin opens sessions when they are
    needed, and where there is none their passwords do at once. Sessions end with `aclose`."""

    def __init__(self, homeserver: Homeserver, bot_user_id: str, admin: ServerAdmin | None) -> None:
        self._homeserver = homeserver
        self._bot = bot_user_id
        self._admin = admin
        self._tokens: dict[str, str] = {}
        self._opening = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._limited = ""

    async def meet(self, one: OldMapping) -> OldUser:
        """How we act as the user of a mapping. Raises HomeserverUnavailable."""
        who = one.user_id
        if not who.endswith(f":{self._bot.partition(':')[2]}"):
            return OldUser(who, Way.NONE, "a user of another homeserver")
        if is_ours(who, self._bot):
            return OldUser(who, Way.OURS)
        if self._admin is not None:
            return OldUser(who, Way.ADMIN)
        if who in self._tokens:
            return OldUser(who, Way.PASSWORD)
        reason = await self._log_in(who, one.password)
        return OldUser(who, Way.NONE if reason else Way.PASSWORD, reason)

    async def acting_as(self, who: str) -> Intent:
        """What one of them does. Raises MatrixRequestError and HomeserverUnavailable."""
        if is_ours(who, self._bot):
            return self._homeserver.acting_as(who)
        # Several agents may have had one user, and each session is ended by its token.
        async with self._opening[who]:
            if who not in self._tokens and self._admin is not None:
                self._tokens[who] = await self._admin.session_of(who)
        return Intent(self._homeserver.with_token(self._tokens[who]), who)

    async def aclose(self) -> None:
        """End the sessions that were opened."""
        for who, token in self._tokens.items():
            try:
                await log_out(self._homeserver, token)
            except (MatrixRequestError, HomeserverUnavailable) as error:
                log.info("a session cannot be ended", user=who, reason=why(error))
        self._tokens.clear()

    async def _log_in(self, who: str, password: str) -> str:
        """Why it fails, "" where it does not."""
        if not password:
            return "the file has no password of it"
        if self._limited:
            return self._limited
        try:
            self._tokens[who] = await log_in(
                self._homeserver, who, password, give_up_after=_LOGIN_TIME
            )
        except MatrixRequestError as error:
            return f"its password does not let us in: {refusal(error)}"
        except HomeserverUnavailable as error:
            # Homeservers count logins, and let one wait for minutes.
            self._limited = f"{error}; import again later"
            return self._limited
        return ""


def old_users(
    homeserver: Homeserver, bot_user_id: str, admin: ServerAdmin | None
) -> aclosing[OldUsers]:
    """Their sessions end with the block."""
    return aclosing(OldUsers(homeserver, bot_user_id, admin))
