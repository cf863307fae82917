"""A Matrix login, checked at the homeserver, for one of our own tokens.

An admin's token acts as the bot. That of somebody else reads, as themselves, the rooms that they
and the bot are in: whoever may write as the bot has its power to remove others' messages. The
session at the homeserver is kept as long as the token, to read with, and to see whether the login
still counts.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import aiohttp
import structlog

from letta_matrix.access.accounts import Accounts
from letta_matrix.access.authenticator import TooOften
from letta_matrix.access.login_limits import LoginLimits
from letta_matrix.access.login_sessions import LoginSession
from letta_matrix.access.route import route_to
from letta_matrix.common.identifiers import is_ours
from letta_matrix.common.json_fields import items
from letta_matrix.doors.rest.calling import DOOR
from letta_matrix.doors.rest.problems import Problem
from letta_matrix.doors.rest.services import Services
from letta_matrix.matrix.homeserver import HomeserverUnavailable

log = structlog.get_logger()

SESSION_NAME = "letta-matrix /login"
"""What people see the session called among their own; signed out, the token ends."""

_LOCALPART = re.compile(r"[^\s:@\x00-\x1f\x7f]{1,200}")
_NO_PASSWORDS = [
    (404, "M_UNRECOGNIZED"),  # Synapse, whose logins are with Matrix Authentication Service
    (405, "M_UNRECOGNIZED"),
    (400, "M_UNRECOGNIZED"),  # that service, without passwords
    (400, "M_UNKNOWN"),  # Synapse by SSO alone
]
_ELSEWHERE = (
    "The homeserver takes no passwords: people log in with another service, such as Matrix "
    "Authentication Service or SSO. Ask an operator for a token (`letta-matrix tokens create`)."
)
_LONGEST_PAUSE = 300.0
_AWAY = "The homeserver does not answer now. Try again in a minute."


@dataclass(frozen=True, slots=True)
class Login:
    """A login that was accepted: whose, and the token it is good for, with its scopes."""

    user_id: str
    secret: str
    scopes: tuple[str, ...]


class Logins:
    """Checks logins, of which wrong ones are limited."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._config = services.config
        self._accounts = Accounts(services.config.homeserver.url, route_to(services.config))
        self._limits = LoginLimits()

    async def login(self, user: str, password: str, peer: str) -> Login:
        """Check a login by id or localpart. Raises Problem, TooOften, StoreUnavailable."""
        # Homeservers take names in any case.
        name = user.strip().removeprefix("@").partition(":")[0].casefold()
        tried = self._limits.take(name, peer)
        user_id = self._user_id(user)
        self._role(user_id)
        await asyncio.sleep(tried.pause)
        try:
            session = await self._logged_in(user_id, password)
            self._limits.put_back(tried)
            return await self._granted(session)
        except (aiohttp.ClientError, TimeoutError, HomeserverUnavailable) as error:
            self._limits.put_back(tried)
            raise Problem("unavailable", _AWAY) from error

    async def _logged_in(self, user_id: str, password: str) -> LoginSession:
        wanted = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user_id},
            "password": password,
            "device_id": self._services.logins.device_of(user_id),
            "initial_device_display_name": SESSION_NAME,
        }
        status, answer = await self._accounts.ask("POST", "login", wanted)
        given = answer.get("access_token")
        if status != 200 or not isinstance(given, str):
            raise _refusal(status, answer)
        return self._services.logins.begin(str(answer.get("user_id")), given)

    async def _granted(self, session: LoginSession) -> Login:
        user_id = session.user_id
        try:
            role = self._role(user_id)
            rooms = None if role == "admin" else await self._shared(session)
            secret, token = await self._services.login_tokens.make(session, rooms, DOOR)
        except BaseException:
            await asyncio.shield(self._services.logins.end(session))
            raise
        log.info("a person logged in", user=user_id, role=role, token=token.token_id)
        return Login(user_id, secret, token.scopes)

    async def _shared(self, session: LoginSession) -> frozenset[str]:
        """A person's rooms that the bot is in, too."""
        status, told = await self._accounts.ask("GET", "joined_rooms", token=session.access_token)
        rooms = items(told.get("joined_rooms")) or [] if status == 200 else []
        bot = self._services.homeserver.acting_as(self._config.bot_user_id)
        return frozenset({*map(str, rooms)} & {*await bot.joined_rooms()})

    def _user_id(self, user: str) -> str:
        domain = self._config.homeserver.domain
        localpart, _, server = user.strip().removeprefix("@").partition(":")
        if not _LOCALPART.fullmatch(localpart) or server not in ("", domain):
            raise Problem("login-failed", f"`user_id` should be somebody of {domain}.")
        return f"@{localpart}:{domain}"

    def _role(self, user_id: str) -> str:
        role = self._config.role_of(user_id)
        if role == "block" or is_ours(user_id, self._config.bot_user_id):
            raise Problem("forbidden", "The bridge's `permissions` do not let this user in.")
        return role


def _refusal(status: int, answer: dict[str, Any]) -> Exception:
    if status == 429:
        pause = answer.get("retry_after_ms")
        seconds = pause / 1000 if isinstance(pause, int | float) else 10.0
        return TooOften(min(max(seconds, 1.0), _LONGEST_PAUSE))
    if (status, answer.get("errcode")) in _NO_PASSWORDS:
        return Problem("login-failed", _ELSEWHERE)
    if status in (400, 401, 403):
        return Problem("login-failed", "The homeserver does not accept this user and password.")
    return Problem("unavailable", _AWAY)
