"""An OpenID Connect issuer on loopback, with real keys, that tests can break on purpose."""

import asyncio
import json
import time
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms
from tests.kept_server import KeptServer

AUDIENCE = "https://matrix.example/mcp"
Key = tuple[str, Any]
Answer = tuple[int, bytes, dict[str, str]]


def rsa_key(size: int = 2048) -> Key:
    return "RS256", rsa.generate_private_key(65537, size)


def ec_key() -> Key:
    return "ES256", ec.generate_private_key(ec.SECP256R1())


def ed_key() -> Key:
    return "EdDSA", ed25519.Ed25519PrivateKey.generate()


def public_jwk(kid: str | None, key: Key, **fields: Any) -> dict[str, Any]:
    """As an issuer publishes it."""
    algorithm, private = key
    jwk = json.loads(get_default_algorithms()[algorithm].to_jwk(private.public_key()))
    jwk.pop("key_ops", None)
    return {**jwk, "use": "sig", **({} if kid is None else {"kid": kid}), **fields}


def private_jwk(key: Key) -> dict[str, Any]:
    """As an issuer must not publish it."""
    algorithm, private = key
    return dict(json.loads(get_default_algorithms()[algorithm].to_jwk(private)))


class FakeIssuer(KeptServer):
    """`keys` are published by their kids; `requests` are the paths that were asked for.

    `answers` stand for what a path would answer otherwise: status, body and headers. Answers
    wait for `held` if there is one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str, Key] = {}
        self.jwks: list[dict[str, Any]] | None = None
        self.requests: list[str] = []
        self.answers: dict[str, Answer] = {}
        self.discovery: dict[str, Any] = {}
        self.held: asyncio.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/realm"

    async def start(self) -> None:
        """Listen; after `go_away` on the same port."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._handle)
        await self.listen(app)

    def token(
        self,
        kid: str = "one",
        *,
        key: Any = None,
        algorithm: str = "",
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token; a claim or a field of the header that is None is left out."""
        usual, private = self.keys.get(kid, ("RS256", None))
        now = time.time()
        said = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ann",
            "scope": "openid read write",
            "iat": now,
            "exp": now + 300,
            **claims,
        }
        head = {"typ": "at+jwt", "kid": kid, **(header or {})}
        return jwt.encode(
            {name: value for name, value in said.items() if value is not None},
            private if key is None else key,
            algorithm or usual,
            {name: value for name, value in head.items() if value is not None},
        )

    def _answer(self, path: str) -> dict[str, Any]:
        if path == "/realm/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.discovery}
        own = [public_jwk(kid, key) for kid, key in self.keys.items()]
        return {"keys": own if self.jwks is None else self.jwks}

    async def _handle(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        if self.held is not None:
            await self.held.wait()
        if request.path in self.answers:
            status, body, headers = self.answers[request.path]
            return web.Response(status=status, body=body, headers=headers)
        return web.json_response(self._answer(request.path))
