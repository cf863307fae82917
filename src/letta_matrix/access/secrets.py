"""Tokens of our own: what they look like, how they are made and read."""

import hashlib
import hmac
import re
import secrets
import time

from letta_matrix.access.principal import Scope
from letta_matrix.store.tokens import AccessToken

_PREFIX = "lm"
_ID_BYTES, _SECRET_BYTES = 6, 32
_FORM = re.compile(rf"{_PREFIX}_([0-9a-f]{{{2 * _ID_BYTES}}})_([A-Za-z0-9_-]{{43}})")
_NO_DIGEST = "0" * 64


def issue(
    *,
    agent_id: str,
    scopes: frozenset[Scope],
    rooms: frozenset[str] | None = None,
    label: str = "",
    lifetime: float | None = None,
    user_id: str = "",
) -> tuple[str, AccessToken]:
    """A new token, as its holder gets it, and as it is stored. `lifetime` is in seconds, None for
    ever; `user_id` is the person whose login it is for."""
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
        user_id=user_id,
    )
    return f"{_PREFIX}_{token_id}_{secret}", stored


def is_ours(bearer: str) -> bool:
    """Whether this claims to be a token of ours."""
    return bearer.startswith(f"{_PREFIX}_")


def token_id_of(bearer: str) -> str | None:
    """The id in a token of ours; None for what does not look like one."""
    match = _FORM.fullmatch(bearer)
    return None if match is None else match[1]


def is_secret_of(bearer: str, token: AccessToken | None) -> bool:
    """Whether this is the text of a stored token, in a time that does not tell; None: of one that
    does not exist."""
    match = _FORM.fullmatch(bearer)
    secret = "" if match is None else match[2]
    known = _NO_DIGEST if token is None else token.digest
    return hmac.compare_digest(_digest(secret), known) and token is not None


def _digest(secret: str) -> str:
    # The secret has 256 random bits: there is nothing to guess, so no slow hash is needed.
    return hashlib.sha256(secret.encode()).hexdigest()
