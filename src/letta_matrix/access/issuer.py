"""An OpenID Connect issuer's signing keys, fetched from it and kept for a while."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import structlog
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from letta_matrix.access.refusals import IdentityUnavailable
from letta_matrix.common import clock
from letta_matrix.common.connections.unreached import why_unreached

log = structlog.get_logger()

_RSA = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
ALGORITHMS = _RSA | frozenset(_CURVES.values())
"""Signatures that are accepted: only such that the verifier cannot make (RFC 8725 section 3.1)."""

_TIMEOUT = aiohttp.ClientTimeout(total=10)
_LARGEST = 1_000_000
_MOST_KEYS = 100
_SMALLEST_RSA = 2048
_FRESH = 3_600.0
_STALE = 6 * 3_600.0
_PAUSE = 60.0
_FIRST_PAUSE = 5.0


class _FetchError(Exception):
    """The issuer does not give out what it should."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key; `kid` is None where the issuer does not name it."""

    kid: str | None
    algorithms: frozenset[str]
    key: Any


class IssuerKeys:
    """The keys that an issuer publishes (OpenID Connect Discovery; RFC 8414, RFC 7517).

    They are asked for again after an hour, and at most once a minute for a key that is not known.
    While the issuer is away, those from before are good for six hours.
    """

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer.rstrip("/")
        self._keys: list[SigningKey] = []
        self._fetched_at = 0.0
        self._tried_at: float | None = None
        self._trouble = False
        self._door = asyncio.Lock()
        self.name = issuer

    async def find(self, kid: str | None, algorithm: str) -> list[SigningKey]:
        """The keys that can have made such a signature. Raises IdentityUnavailable."""
        found = self._matching(kid, algorithm)
        # While somebody else waits for the issuer, what was good a moment ago will do.
        if found and self._age < (_STALE if self._door.locked() else _FRESH):
            return found
        async with self._door:
            found = self._matching(kid, algorithm)
            if not (found and self._age < _FRESH) and self._may_try:
                await self._refresh()
                found = self._matching(kid, algorithm)
        if (self._trouble and not found) or self._age > _STALE:
            raise IdentityUnavailable
        return found

    @property
    def _age(self) -> float:
        return clock.now() - self._fetched_at if self._keys else float("inf")

    @property
    def _may_try(self) -> bool:
        pause = _PAUSE if self._keys else _FIRST_PAUSE
        return self._tried_at is None or clock.now() - self._tried_at >= pause

    def _matching(self, kid: str | None, algorithm: str) -> list[SigningKey]:
        return [
            key
            for key in self._keys
            if algorithm in key.algorithms and (kid is None or key.kid in (None, kid))
        ]

    async def _refresh(self) -> None:
        self._tried_at = clock.now()
        try:
            self.name, keys = await self._fetch()
        except (_FetchError, aiohttp.ClientError, TimeoutError, ValueError) as error:
            reason = why_unreached(error)
            log.error("the keys of the tokens' issuer cannot be fetched", reason=reason)
            self._trouble = True
            return
        self._keys, self._fetched_at, self._trouble = keys, clock.now(), False

    async def _fetch(self) -> tuple[str, list[SigningKey]]:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
            about = await _document(http, f"{self._issuer}/.well-known/openid-configuration")
            name, address = about.get("issuer"), about.get("jwks_uri")
            if not isinstance(name, str) or name.rstrip("/") != self._issuer:
                raise _FetchError("its discovery document names another issuer")
            if not isinstance(address, str) or not self._is_as_safe(address):
                raise _FetchError("its discovery document has no usable `jwks_uri`")
            listed = (await _document(http, address)).get("keys")
        entries = cast("list[object]", listed) if isinstance(listed, list) else []
        keys = [key for entry in entries[:_MOST_KEYS] if (key := _key(entry)) is not None]
        if not keys:
            raise _FetchError("it publishes no usable key")
        return name, keys

    def _is_as_safe(self, address: str) -> bool:
        scheme, issuers = urlsplit(address).scheme, urlsplit(self._issuer).scheme
        return scheme == "https" or scheme == issuers


async def _document(http: aiohttp.ClientSession, url: str) -> Mapping[str, object]:
    """A JSON object; redirects are not followed, they may lead to anybody."""
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with http.get(url, headers=headers, allow_redirects=False) as response:
        if response.status != 200:
            raise _FetchError(f"{url} answers with status {response.status}")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > _LARGEST:
                raise _FetchError(f"{url} answers with more than {_LARGEST} bytes")
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _FetchError(f"{url} does not answer with a JSON object")
    return cast("dict[str, object]", found)


def _key(entry: object) -> SigningKey | None:
    """A key of the set (RFC 7517 section 4), None for one that is not for our use."""
    if not isinstance(entry, dict):
        return None
    fields = cast("dict[str, Any]", entry)
    if fields.get("use", "sig") != "sig" or "d" in fields:
        return None
    able = _RSA if fields.get("kty") == "RSA" else _by_curve(fields)
    declared = fields.get("alg")
    algorithms = able if declared is None else able & {str(declared)}
    if not algorithms:
        return None
    try:
        key: Any = PyJWK(fields, algorithm=min(algorithms)).key
    except (PyJWTError, ValueError, TypeError):
        return None
    if fields["kty"] == "RSA" and key.key_size < _SMALLEST_RSA:
        return None
    kid = fields.get("kid")
    return SigningKey(kid if isinstance(kid, str) else None, algorithms, key)


def _by_curve(fields: Mapping[str, Any]) -> frozenset[str]:
    algorithm = _CURVES.get(str(fields.get("crv")))
    return frozenset(() if algorithm is None else (algorithm,))
