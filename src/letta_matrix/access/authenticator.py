"""Who comes through a door for programs: from a bearer token to a principal."""

import time

from letta_matrix.access.secrets import is_secret_of, token_id_of
from letta_matrix.config import Config
from letta_matrix.store.agents import AgentDirectory, AgentStatus
from letta_matrix.store.tokens import AccessToken, TokenStore
from letta_matrix.toolbox.principal import Principal, Scope
from letta_matrix.toolbox.rate_limit import RateLimit


class Unauthorized(Exception):
    """No token, or none that is accepted; the text says why."""


class TooOften(Exception):
    """Too many requests; `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("Too many requests.")
        self.retry_after = retry_after


class Authenticator:
    """Knows tokens. They are looked up at every use, so that a revoked one is refused at once."""

    def __init__(self, config: Config, tokens: TokenStore, directory: AgentDirectory) -> None:
        self._tokens = tokens
        self._directory = directory
        self._limit = RateLimit(config.access.calls_per_minute)

    async def admit(self, authorization: str | None) -> Principal:
        """Whoever sends an `Authorization` header (RFC 6750), counted against their rate.

        Raises Unauthorized, TooOften, StoreUnavailable.
        """
        scheme, _, bearer = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not bearer.strip():
            raise Unauthorized("Send a token: `Authorization: Bearer lm_...`.")
        principal = await self.identify(bearer.strip())
        self.count(principal)
        return principal

    async def identify(self, bearer: str) -> Principal:
        """Whose token it is. Raises Unauthorized, StoreUnavailable."""
        token_id = token_id_of(bearer)
        token = None if token_id is None else await self._tokens.get(token_id)
        if token is None or not is_secret_of(bearer, token):
            raise Unauthorized("The token is not known here.")
        if token.revoked_at is not None:
            raise Unauthorized("The token was revoked.")
        if token.expires_at is not None and token.expires_at <= time.time():
            raise Unauthorized("The token has expired.")
        return self._principal(token)

    def count(self, principal: Principal) -> None:
        """Count a request. Raises TooOften."""
        wait = self._limit.take(principal.key, time.monotonic())
        if wait > 0:
            raise TooOften(wait)

    def _principal(self, token: AccessToken) -> Principal:
        if token.agent_id:
            agent = self._directory.get(token.agent_id)
            if agent is None or agent.status is not AgentStatus.ACTIVE:
                raise Unauthorized("The agent of the token does not exist any more.")
        known = {str(scope) for scope in Scope}
        return Principal(
            key=f"token:{token.token_id}",
            agent_id=token.agent_id,
            scopes=frozenset(Scope(scope) for scope in token.scopes if scope in known),
            rooms=None if token.rooms is None else frozenset(token.rooms),
        )
