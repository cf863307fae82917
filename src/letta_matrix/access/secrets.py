"""Tokens of our own: what they look like, how they are made and read."""

import hashlib
import hmac
import secrets
import time

from letta_matrix.store.tokens import AccessToken
from letta_matrix.toolbox.principal import Scope

_PREFIX = "lm"
_ID_BYTES, _SECRET_BYTES = 6, 32


def issue(
    *,
    agent_id: str,
    scopes: frozenset[Scope],
    rooms: frozenset[str] | None = None,
    label: str = "",
    lifetime: float | None = None,
) -> tuple[str, AccessToken]:
    """A new token, as its holder gets it, and as it is stored. `lifetime` is in seconds, None for
    ever."""
    token_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    now = time.time()
    stored = AccessToken(
        token_id=token_id,
        digest=_digest(secret),
        agent_id=agent_id,
        scopes=tuple(sorted(scopes)),
        rooms=None if rooms is None else tuple(sorted(rooms)),
        label=label,
        created_at=now,
        expires_at=None if lifetime is None else now + lifetime,
    )
    return f"{_PREFIX}_{token_id}_{secret}", stored


def token_id_of(bearer: str) -> str | None:
    """The id in a token of ours; None for what does not look like one."""
    prefix, _, rest = bearer.partition("_")
    token_id, _, secret = rest.partition("_")
    return token_id if prefix == _PREFIX and token_id and secret else None


def is_secret_of(bearer: str, token: AccessToken) -> bool:
    """Whether this is the text of a stored token."""
    secret = bearer.split("_", 2)[2]
    return hmac.compare_digest(_digest(secret), token.digest)


def _digest(secret: str) -> str:
    # The secret has 256 random bits: there is nothing to guess, so no slow hash is needed.
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
