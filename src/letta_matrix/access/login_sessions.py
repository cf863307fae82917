"""What people's logins are good for now: a token that `/login` gave follows its person.

The session that a login opened at the homeserver is kept as long as the token, in memory alone.
It ends when the account is deactivated or locked, when its password is changed, or when the
person signs it out, and no homeserver pushes any of this to an application service. So it is
asked again; a process that does not have it accepts the token no more.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import structlog

from letta_matrix.access.accounts import Accounts
from letta_matrix.access.refusals import IdentityUnavailable, Unauthorized
from letta_matrix.access.route import route_to
from letta_matrix.common import clock
from letta_matrix.common.json_fields import mapping
from letta_matrix.config import Config
from letta_matrix.matrix.event_bus import EventBus
from letta_matrix.store.tokens import AccessToken

log = structlog.get_logger()

RECHECK = 5.0
"""Seconds for which an account is taken to be as it was."""

MOST = 20
"""Logins of a person that count at a time; a further one ends the oldest."""

_FAREWELL = 2.0
"""Seconds that the homeserver has to end the sessions when the bridge ends."""

_ENDED = "The login that gave this token has ended; log in again."
_AWAY = "The homeserver does not tell now whether your login still counts."


@dataclass(eq=False, slots=True)
class LoginSession:
    """A login. `rooms` are those its token may read, None for all; `left` are those it may not
    any more, whatever was thought of them when it began."""

    user_id: str
    access_token: str = field(repr=False)
    token_id: str = ""
    rooms: set[str] | None = None
    ends_at: float = 0.0
    left: set[str] = field(default_factory=set[str])
    looked_at: float = field(default_factory=clock.now)
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)


class LoginSessions:
    """Knows the logins of this process, and looks after their sessions at the homeserver."""

    def __init__(self, config: Config, event_bus: EventBus) -> None:
        self._config = config
        self._event_bus = event_bus
        self._accounts = Accounts(config.homeserver.url, route_to(config))
        self._sessions: set[LoginSession] = set()
        self._listening = contextlib.ExitStack()
        self._devices = Counter[str]()

    def begin(self, user_id: str, access_token: str) -> LoginSession:
        """A login that the homeserver has accepted; from now on its person is followed."""
        if not self._sessions:
            self._listening.close()
            self._listening.enter_context(self._event_bus.listen(self._see))
        session = LoginSession(user_id, access_token)
        self._sessions.add(session)
        return session

    def device_of(self, user_id: str) -> str:
        """The device for a person's next login: one of a few that take turns, so that a process
        that was killed leaves no sessions for ever. A new one replaces the old one of that name."""
        self._devices[user_id] += 1
        return f"LETTAMATRIX{self._devices[user_id] % (MOST + 1)}"

    async def keep(self, session: LoginSession, token: AccessToken) -> None:
        """`token` is what a login is good for. Ends what is over, and what is too much."""
        session.token_id, session.ends_at = token.token_id, token.expires_at or 0.0
        session.rooms = None if token.rooms is None else set(token.rooms) - session.left
        theirs = [one for one in self._sessions if one.user_id == session.user_id and one.token_id]
        newest = sorted(theirs, key=lambda one: one.ends_at)[-MOST:]
        over = [one for one in self._sessions if one.token_id and one.ends_at <= time.time()]
        await self._end({*over, *theirs} - set(newest))

    async def end(self, session: LoginSession) -> None:
        """Log its person out again."""
        await self._end([session])

    async def end_of(self, token_id: str) -> None:
        """Log out whose login gave a token, if one did."""
        await self._end([one for one in self._sessions if one.token_id == token_id])

    async def close(self) -> None:
        """End all of them: no other process can look after them."""
        self._listening.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await self._end(list(self._sessions))

    async def session_of(self, token: AccessToken) -> LoginSession:
        """The login that gave a token, if it still counts. Its `rooms` are kept true.

        Raises Unauthorized, IdentityUnavailable.
        """
        session = next((one for one in self._sessions if one.token_id == token.token_id), None)
        if session is None:
            raise Unauthorized(_ENDED)
        role = self._config.role_of(session.user_id)
        if role == "block" or (role != "admin" and session.rooms is None):
            raise Unauthorized("The bridge's `permissions` have changed since this login.")
        async with session.looking:
            if session in self._sessions and clock.now() - session.looked_at >= RECHECK:
                await self._look(session)
        if session not in self._sessions:
            raise Unauthorized(_ENDED)
        return session

    async def _look(self, session: LoginSession) -> None:
        """Ask whether the session still lives. Raises IdentityUnavailable."""
        try:
            status, told = await self._accounts.ask(
                "GET", "account/whoami", token=session.access_token
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise IdentityUnavailable(_AWAY) from error
        if status in (401, 403):
            log.info("a login has ended", user=session.user_id, reason=told.get("errcode"))
            self._sessions.discard(session)
        elif status != 200 or told.get("user_id") != session.user_id:
            raise IdentityUnavailable(_AWAY)
        session.looked_at = clock.now()

    def _see(self, event: Mapping[str, Any]) -> None:
        """A room that somebody has left."""
        room_id, kind, key = (event.get(name) for name in ("room_id", "type", "state_key"))
        if kind != "m.room.member" or not isinstance(room_id, str):
            return
        # An invite from before the login may be told after it.
        if mapping(event.get("content")).get("membership") not in ("leave", "ban"):
            return
        for session in self._sessions:
            if session.user_id == key:
                session.left.add(room_id)
                if session.rooms is not None:
                    session.rooms.discard(room_id)

    async def _end(self, sessions: Iterable[LoginSession]) -> None:
        ended = [one for one in sessions if one in self._sessions]
        self._sessions.difference_update(ended)
        await asyncio.gather(*map(self._log_out, ended))

    async def _log_out(self, session: LoginSession) -> None:
        try:
            await self._accounts.ask("POST", "logout", {}, session.access_token)
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = type(error).__name__
            log.warning("a login was not ended", user=session.user_id, reason=reason)
