"""Who comes through a door for programs: from a bearer token to a principal."""

import re
import time
from dataclasses import replace

import structlog

from letta_matrix.access.login_sessions import LoginSessions
from letta_matrix.access.oidc import OidcVerifier
from letta_matrix.access.principal import TOOL_SCOPES, Principal, Scope
from letta_matrix.access.rate_limit import RateLimit
from letta_matrix.access.refusals import IdentityUnavailable, TooOften, Unauthorized
from letta_matrix.access.secrets import is_ours, is_secret_of, token_id_of
from letta_matrix.common import clock
from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.store.agents import AgentDirectory, AgentStatus
from letta_matrix.store.tokens import AccessToken, TokenStore

__all__ = ["Authenticator", "IdentityUnavailable", "TooOften", "Unauthorized", "bearer_of"]

log = structlog.get_logger()

_LONGEST = 16_384
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_FAILURES_PER_MINUTE = 60
_REPORT_EVERY = 60.0


@part
class Authenticator:
    """Knows tokens. They are looked up at every use, so that a revoked one is refused at once.

    Who sends wrong ones again and again hears for a while only that it is too often. Good ones
    get through all the same: the address may be that of many.
    """

    _config: Config
    _tokens: TokenStore
    _directory: AgentDirectory
    _logins: LoginSessions | None = None

    def __post_init__(self) -> None:
        oidc = self._config.access.oidc
        self._oidc = None if oidc is None else OidcVerifier(oidc, self._directory)
        self._limit = RateLimit(self._config.access.calls_per_minute)
        self._failures = RateLimit(_FAILURES_PER_MINUTE)
        self._unreported = 0
        self._report_at = 0.0

    async def admit(self, authorization: str | None, peer: str = "") -> Principal:
        """Whoever sends an `Authorization` header (RFC 6750), counted against their rate; `peer`
        is the address they come from.

        Raises Unauthorized, TooOften, StoreUnavailable.
        """
        principal = await self.identify(bearer_of(authorization), peer)
        self.count(principal)
        return principal

    async def identify(self, bearer: str, peer: str = "") -> Principal:
        """Whose token it is. Connections that live long ask at every message.

        Raises Unauthorized, TooOften, StoreUnavailable.
        """
        try:
            return await self._identified(bearer)
        except IdentityUnavailable:
            raise
        except Unauthorized as error:
            if (wait := self._failed(peer, error)) > 0:
                raise TooOften(wait) from error
            raise

    def count(self, principal: Principal) -> None:
        """Count a request. Raises TooOften."""
        wait = self._limit.take(principal.key, clock.now())
        if wait > 0:
            raise TooOften(wait)

    async def _identified(self, bearer: str) -> Principal:
        if self._oidc is not None and not is_ours(bearer):
            return await self._oidc.principal(bearer)
        token_id = token_id_of(bearer)
        token = None if token_id is None else await self._tokens.get(token_id)
        if not is_secret_of(bearer, token) or token is None:
            raise Unauthorized("The token is not known here.")
        if token.revoked_at is not None:
            raise Unauthorized("The token was revoked.")
        if token.expires_at is not None and token.expires_at <= time.time():
            raise Unauthorized("The token has expired.")
        principal = self._principal(token)
        if not token.user_id:
            return principal
        if self._logins is None:
            raise Unauthorized("Tokens of logins do not count here.")
        session = await self._logins.session_of(token)
        if session.rooms is None:
            return principal
        return replace(
            principal,
            rooms=session.rooms,
            person=session.user_id,
            access_token=session.access_token,
        )

    def _principal(self, token: AccessToken) -> Principal:
        if token.agent_id:
            agent = self._directory.get(token.agent_id)
            if agent is None or agent.status is not AgentStatus.ACTIVE:
                raise Unauthorized("The agent of the token does not exist any more.")
        allowed = TOOL_SCOPES if token.agent_id else frozenset(Scope)
        return Principal(
            key=f"token:{token.token_id}",
            agent_id=token.agent_id,
            scopes=frozenset(scope for scope in allowed if scope in token.scopes),
            rooms=None if token.rooms is None else frozenset(token.rooms),
        )

    def _failed(self, peer: str, error: Unauthorized) -> float:
        """Count a wrong token; after how many seconds its sender is told why again, 0: now."""
        now = clock.now()
        self._unreported += 1
        if now >= self._report_at:
            # One line a minute, however many come.
            log.warning("tokens refused", count=self._unreported, peer=peer, last=str(error))
            self._unreported, self._report_at = 0, now + _REPORT_EVERY
        return self._failures.take(peer, now)


def bearer_of(authorization: str | None) -> str:
    """The token in an `Authorization` header. Raises Unauthorized."""
    scheme, _, bearer = (authorization or "").strip().partition(" ")
    bearer = bearer.strip()
    if scheme.lower() != "bearer" or not bearer:
        raise Unauthorized("Send a token: `Authorization: Bearer lm_...`.", error="")
    if len(bearer) > _LONGEST or _BEARER.fullmatch(bearer) is None:
        raise Unauthorized("The token is not known here.")
    return bearer
