"""A Matrix login, checked at the homeserver, for one of our own tokens.

Nobody can act as a person here: an application service has no power over people's accounts, and
their own tokens are given back at once. So an admin's token acts as the bot, and that of somebody
else reads, as the bot, the rooms that both are in: whoever may write as the bot has its power to
remove others' messages.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import aiohttp
import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix import clock
from letta_matrix.access.authenticator import TooOften
from letta_matrix.access.secrets import issue
from letta_matrix.api.changes import change
from letta_matrix.api.problems import Problem
from letta_matrix.api.services import Services
from letta_matrix.matrix.events import items, mapping
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.identifiers import is_ours
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.tokens import AccessToken
from letta_matrix.toolbox.principal import Principal, Scope
from letta_matrix.toolbox.rate_limit import RateLimit
from letta_matrix.toolbox.tool import Result

log = structlog.get_logger()

LIFETIME = 86_400.0
"""Seconds that a token of a login is accepted."""

_TRIES_OF_A_USER = 5
_TRIES_OF_A_PEER = 20
_TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=5)
_LOCALPART = re.compile(r"[^\s:@\x00-\x1f\x7f]{1,200}")
_LOGIN, _LOGOUT, _ROOMS = "login", "logout", "joined_rooms"
_READABLE = ("shared", "world_readable")
_AT_ONCE = 8
_AWAY = "The homeserver does not answer now. Try again in a minute."


@dataclass(frozen=True, slots=True)
class Login:
    """A login that was accepted: whose, and the token it is good for."""

    user_id: str
    secret: str
    token: AccessToken


class Logins:
    """Checks logins. Tries are limited for each user from a peer, and for each peer."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._config = services.config
        self._bot = Intent(services.homeserver, services.config.bot_user_id)
        self._of_users = RateLimit(_TRIES_OF_A_USER)
        self._of_peers = RateLimit(_TRIES_OF_A_PEER)

    async def login(self, user: str, password: str, peer: str) -> Login:
        """Check a login by id or localpart. Raises Problem, TooOften, StoreUnavailable."""
        self._count(self._of_peers, peer)
        user_id = self._user_id(user)
        # Tries from elsewhere keep nobody out; homeservers take names in any case.
        self._count(self._of_users, f"{peer} {user_id.casefold()}")
        self._role(user_id)
        try:
            async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
                user_id, rooms = await self._checked(http, user_id, password)
            return await self._granted(user_id, rooms)
        except (aiohttp.ClientError, TimeoutError, HomeserverUnavailable) as error:
            raise Problem("unavailable", _AWAY) from error

    async def _checked(
        self, http: aiohttp.ClientSession, user_id: str, password: str
    ) -> tuple[str, list[str]]:
        """Log in and out again; who it is, and the rooms they are in."""
        wanted = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user_id},
            "password": password,
            "initial_device_display_name": "letta-matrix",
        }
        status, answer = await self._request(http, "POST", _LOGIN, wanted)
        given = answer.get("access_token")
        if status != 200 or not isinstance(given, str):
            raise _refusal(status, answer)
        try:
            status, joined = await self._request(http, "GET", _ROOMS, token=given)
        finally:
            await asyncio.shield(self._log_out(http, user_id, given))
        rooms = items(joined.get("joined_rooms")) or [] if status == 200 else []
        return str(answer.get("user_id")), [room for room in rooms if isinstance(room, str)]

    async def _log_out(self, http: aiohttp.ClientSession, user_id: str, token: str) -> None:
        try:
            await self._request(http, "POST", _LOGOUT, {}, token=token)
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("a login was not ended", user=user_id, reason=type(error).__name__)

    async def _granted(self, user_id: str, rooms: list[str]) -> Login:
        role = self._role(user_id)
        scopes, limited = frozenset(Scope), None
        if role != "admin":
            scopes, limited = frozenset({Scope.READ}), await self._readable(rooms)
        label = f"login of {user_id}"
        secret, token = issue(
            agent_id="", scopes=scopes, rooms=limited, label=label, lifetime=LIFETIME
        )

        async def add(_: bool) -> Result:
            await self._services.tokens.add(token)
            return {}

        holder, told = Principal(f"user:{user_id}", ""), {"user_id": user_id}
        await change(self._services, holder, "login", told, "", add)
        log.info("a person logged in", user=user_id, role=role, token=token.token_id)
        return Login(user_id, secret, token)

    async def _readable(self, rooms: list[str]) -> frozenset[str]:
        """Those of a person's rooms of which the bot sees no more than they do."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def is_readable(room_id: str) -> bool:
            async with gate:
                try:
                    state = await self._bot.state(room_id, "m.room.history_visibility")
                except MatrixRequestError:
                    return False
                return state.get("history_visibility") in _READABLE

        shared = sorted(set(rooms) & set(await self._bot.joined_rooms()))
        readable = await asyncio.gather(*map(is_readable, shared))
        return frozenset(room for room, is_so in zip(shared, readable, strict=True) if is_so)

    async def _request(
        self,
        http: aiohttp.ClientSession,
        method: str,
        path: str,
        body: object = None,
        token: str = "",
    ) -> tuple[int, dict[str, Any]]:
        url = f"{self._config.homeserver.url.rstrip('/')}/_matrix/client/v3/{path}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with http.request(
            method, url, json=body, headers=headers, allow_redirects=False
        ) as response:
            try:
                return response.status, dict(mapping(await response.json(content_type=None)))
            except ValueError:
                return response.status, {}

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

    def _count(self, limit: RateLimit, key: str) -> None:
        wait = limit.take(key, clock.now())
        if wait > 0:
            raise TooOften(wait)


def _refusal(status: int, answer: dict[str, Any]) -> Exception:
    if status == 429:
        pause = answer.get("retry_after_ms")
        return TooOften(pause / 1000 if isinstance(pause, int) else 10.0)
    if status in (400, 401, 403):
        return Problem("login-failed", "The homeserver does not accept this user and password.")
    return Problem("unavailable", _AWAY)
