"""Tokens that people are given for a login."""

import time

from letta_matrix.access.login_sessions import LoginSession, LoginSessions
from letta_matrix.access.principal import Scope
from letta_matrix.access.secrets import issue
from letta_matrix.common.parts import part
from letta_matrix.store.audit import AuditEntry, fingerprint
from letta_matrix.store.tokens import TokenStore
from letta_matrix.toolbox.ledger import Ledger
from letta_matrix.toolbox.tool import Result


@part
class LoginTokens:
    """Makes them. It is noted who has logged in, as whom of us they act, and by which door."""

    _tokens: TokenStore
    _ledger: Ledger
    _logins: LoginSessions
    _bot_user_id: str

    async def make(
        self,
        session: LoginSession,
        scopes: frozenset[Scope],
        rooms: frozenset[str] | None,
        *,
        lifetime: float,
        door: str,
    ) -> str:
        """A token that is good as long as the session, and `lifetime` seconds at most. Raises
        StoreUnavailable, ToolError."""
        user_id = session.user_id
        secret, token = issue(
            agent_id="",
            scopes=scopes,
            rooms=rooms,
            label=f"login of {user_id}",
            lifetime=lifetime,
            user_id=user_id,
        )

        async def add(_: bool) -> Result:
            await self._tokens.add(token)
            return {}

        entry = AuditEntry(
            principal=f"user:{user_id}",
            user_id=self._bot_user_id,
            door=door,
            tool="login",
            fingerprint=fingerprint({"user_id": user_id}),
            at=time.time(),
        )
        await self._ledger.run(entry, add)
        await self._logins.keep(session, token)
        return secret
