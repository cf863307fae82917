"""Tokens that people are given for a login."""

import time

from letta_matrix.access.login_sessions import LoginSession, LoginSessions
from letta_matrix.access.principal import Scope
from letta_matrix.access.secrets import issue
from letta_matrix.common.parts import part
from letta_matrix.operations.toolbox.ledger import Ledger
from letta_matrix.store.audit import AuditEntry, fingerprint
from letta_matrix.store.tokens import AccessToken, TokenStore

LIFETIME = 86_400.0
"""Seconds that a token of a login is accepted."""


@part
class LoginTokens:
    """Makes them. It is noted who has logged in, as whom of us they act, and by which door."""

    _tokens: TokenStore
    _ledger: Ledger
    _logins: LoginSessions
    _bot_user_id: str

    async def make(
        self, session: LoginSession, rooms: frozenset[str] | None, door: str
    ) -> tuple[str, AccessToken]:
        """A token that counts as long as the session: for everything, or for reading these rooms.

        Raises StoreUnavailable, ToolError.
        """
        user_id = session.user_id
        scopes, label = frozenset(Scope if rooms is None else {Scope.READ}), f"login of {user_id}"
        secret, token = issue(
            agent_id="", scopes=scopes, rooms=rooms, label=label, lifetime=LIFETIME, user_id=user_id
        )

        async def add(_: bool) -> dict[str, object]:
            await self._tokens.add(token)
            return {}

        who, call = f"user:{user_id}", fingerprint({"user_id": user_id})
        entry = AuditEntry(who, self._bot_user_id, door, "login", call, time.time())
        await self._ledger.run(entry, add)
        await self._logins.keep(session, token)
        return secret, token
