"""Tokens of an OpenID Connect issuer: from a JWT access token (RFC 9068) to a principal."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from letta_matrix.access.principal import TOOL_SCOPES, Principal, Scope
from letta_matrix.access.refusals import Unauthorized
from letta_matrix.common.json_fields import items
from letta_matrix.common.once import Once
from letta_matrix.config.access import Oidc
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus

if TYPE_CHECKING:
    from letta_matrix.access.issuer import IssuerKeys

_LEEWAY = 30.0
_LONGEST = 255
_TYPES = (None, "jwt", "at+jwt", "application/at+jwt")
_NEEDED = ("iss", "aud", "exp", "sub")


class OidcVerifier:
    """Checks tokens of the configured issuer. Its libraries are loaded at the first token."""

    def __init__(self, settings: Oidc, directory: AgentDirectory) -> None:
        self._settings = settings
        self._directory = directory
        self._keys = Once(partial(_load, settings.issuer))

    async def principal(self, bearer: str) -> Principal:
        """Whose token it is. Raises Unauthorized, IdentityUnavailable."""
        return principal_of(await self._claims(bearer), self._settings, self._directory)

    async def _claims(self, bearer: str) -> dict[str, Any]:
        """What a token says, if its issuer says it of us now."""
        keys = await self._keys.get()
        kid, algorithm = _head(bearer)
        candidates = await keys.find(kid, algorithm)
        if not candidates:
            raise Unauthorized("The token is signed with a key that its issuer does not publish.")
        for candidate in candidates:
            claims = self._verified(bearer, candidate.key, algorithm, keys.name)
            if claims is not None:
                return claims
        raise Unauthorized("The token's signature is wrong.")

    def _verified(
        self, bearer: str, key: object, algorithm: str, issuer: str
    ) -> dict[str, Any] | None:
        """The claims; None where this is not the key. Raises Unauthorized."""
        import jwt

        try:
            claims = jwt.decode(
                bearer,
                key,  # pyright: ignore[reportArgumentType]
                algorithms=[algorithm],
                audience=self._settings.audience,
                issuer=issuer,
                leeway=_LEEWAY,
                options={"require": list(_NEEDED)},
            )
        except jwt.InvalidSignatureError:
            return None
        except (jwt.PyJWTError, *_MALFORMED) as error:
            raise Unauthorized(_reason(error)) from None
        if claims.keys() & {"at_hash", "c_hash"} or claims.get("typ") == "ID":
            # It tells a client who signed in, and is no leave to call anybody.
            raise Unauthorized("That is an ID token; send an access token.")
        return claims


_MALFORMED = (ValueError, TypeError, OverflowError, RecursionError)


def principal_of(claims: Mapping[str, Any], settings: Oidc, directory: AgentDirectory) -> Principal:
    """Whom a token's claims stand for: an agent that they name, else the bot for those who may.
    Its scopes are those of ours that it was granted. Raises Unauthorized."""
    subject = claims["sub"]
    if not (isinstance(subject, str) and 0 < len(subject) <= _LONGEST and subject.isprintable()):
        raise Unauthorized("The token has no usable `sub`.")
    named = claims.get(settings.agent_claim)
    if named is None and subject not in settings.admins:
        raise Unauthorized(
            f"The token names no agent in its claim `{settings.agent_claim}`, and its `sub` is "
            "not among `access.oidc.admins`."
        )
    agent_id = "" if named is None else _agent(named, directory).agent_id
    scopes = granted(claims) & (TOOL_SCOPES if agent_id else frozenset(Scope))
    if not scopes:
        known = ", ".join(str(scope) for scope in Scope if scope in TOOL_SCOPES)
        raise Unauthorized(f"The token grants none of the scopes {known}.")
    # One for each agent: a subject's transactions as one are not those as another.
    key = "/".join(["oidc:" + quote(subject, safe="@|"), *([agent_id] if agent_id else [])])
    return Principal(key=key, agent_id=agent_id, scopes=scopes)


def granted(claims: Mapping[str, Any]) -> frozenset[Scope]:
    """Our scopes in a token's `scope` (RFC 8693 section 4.2) or `scp`."""
    words: list[str] = []
    for name in ("scope", "scp"):
        value = claims.get(name)
        words += value.split() if isinstance(value, str) else []
        words += [word for word in items(value) or [] if isinstance(word, str)]
    return frozenset(scope for scope in Scope if scope in words)


def _agent(named: object, directory: AgentDirectory) -> Agent:
    found = directory.get(named) or directory.by_user(named) if isinstance(named, str) else None
    if found is None or found.status is not AgentStatus.ACTIVE:
        raise Unauthorized("The agent that the token names does not exist.")
    return found


def _load(issuer: str) -> "IssuerKeys":
    from letta_matrix.access.issuer import IssuerKeys

    return IssuerKeys(issuer)


def _head(bearer: str) -> tuple[str | None, str]:
    """A token's key id and algorithm, of the accepted kinds. Raises Unauthorized."""
    import jwt

    from letta_matrix.access.issuer import ALGORITHMS

    try:
        header = jwt.get_unverified_header(bearer)
    except (jwt.PyJWTError, *_MALFORMED):
        raise Unauthorized("The token is not known here.") from None
    algorithm, kind = header.get("alg"), header.get("typ")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Unauthorized("The token is not signed in a way that is accepted here.")
    if (kind.lower() if isinstance(kind, str) else kind) not in _TYPES:
        raise Unauthorized("The token is of another type than an access token.")
    kid = header.get("kid")
    return kid if isinstance(kid, str) else None, algorithm


def _reason(error: Exception) -> str:
    import jwt

    match error:
        case jwt.ExpiredSignatureError():
            return "The token has expired."
        case jwt.ImmatureSignatureError():
            return "The token is not valid yet."
        case jwt.InvalidAudienceError():
            return "The token is for somebody else: its `aud` does not name this server."
        case jwt.InvalidIssuerError():
            return "The token is of another issuer."
        case jwt.MissingRequiredClaimError():
            return f"The token has no `{error.claim}`."
        case _:
            return "The token is malformed."
