"""JWTs of a configured issuer: what is accepted, as whom, and everything that is not."""

import asyncio
import base64
import hashlib
import hmac
import json
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.builders import agent, config_for
from tests.fake_issuer import (
    AUDIENCE,
    Answer,
    FakeIssuer,
    Key,
    ec_key,
    ed_key,
    private_jwk,
    public_jwk,
    rsa_key,
)
from tests.waiting import Clock, eventually

from letta_matrix.access import issuer as issuer_module
from letta_matrix.access.authenticator import Authenticator, IdentityUnavailable, Unauthorized
from letta_matrix.access.metadata import resource_metadata
from letta_matrix.access.oidc import principal_of
from letta_matrix.access.principal import Scope
from letta_matrix.config.access import Oidc
from letta_matrix.store.agents import AgentDirectory, AgentStatus
from letta_matrix.store.database import Database, database_url
from letta_matrix.store.tokens import TokenStore

DISCOVERY, KEYS = "/realm/.well-known/openid-configuration", "/realm/keys"
Door = Callable[..., Authenticator]


@pytest.fixture(scope="module")
def keys() -> dict[str, Key]:
    """Keys of every kind; making them takes a while."""
    return {"one": rsa_key(), "two": ec_key(), "three": ed_key()}


@pytest.fixture(scope="module")
async def people(
    migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Database]:
    """A database that knows agents 1, and 2, which was removed; no test changes it."""
    folder = tmp_path_factory.mktemp("oidc")
    file = shutil.copy(migrated, folder / "letta-matrix.db")
    opened = Database(database_url(f"sqlite:///{file}", folder))
    await opened.open()
    await AgentDirectory(opened).reserve([agent(1), agent(2, status=AgentStatus.REMOVED)])
    yield opened
    await opened.close()


@asynccontextmanager
async def issuer_of(keys: dict[str, Key]) -> AsyncGenerator[FakeIssuer]:
    server = FakeIssuer()
    server.keys = dict(keys)
    await server.start()
    yield server
    await server.stop()


async def door_for(issuer: FakeIssuer, people: Database) -> Authenticator:
    directory = AgentDirectory(people)
    await directory.load()
    oidc = {"issuer": issuer.url, "audience": AUDIENCE, "admins": ["ann"]}
    config = config_for(Path(), access={"oidc": oidc})
    return Authenticator(config, TokenStore(people), directory)


@pytest.fixture
async def issuer(keys: dict[str, Key]) -> AsyncGenerator[FakeIssuer]:
    """An issuer of this test's own, to be broken."""
    async with issuer_of(keys) as started:
        yield started


@pytest.fixture
async def door(issuer: FakeIssuer, people: Database) -> Authenticator:
    return await door_for(issuer, people)


@pytest.fixture(scope="module")
async def sound_issuer(keys: dict[str, Key]) -> AsyncGenerator[FakeIssuer]:
    async with issuer_of(keys) as started:
        yield started


@pytest.fixture(scope="module")
async def sound(sound_issuer: FakeIssuer, people: Database) -> Authenticator:
    """A door that has the keys of an issuer which goes on as it is."""
    return await door_for(sound_issuer, people)


async def reason(door: Authenticator, token: str) -> str:
    """Why a token is refused."""
    with pytest.raises(Unauthorized) as refused:
        await door.identify(token)
    assert not isinstance(refused.value, IdentityUnavailable)
    assert refused.value.error == "invalid_token"
    return str(refused.value)


@pytest.mark.parametrize("kid", ["one", "two", "three"])
async def test_every_kind_of_key(door: Authenticator, issuer: FakeIssuer, kid: str) -> None:
    principal = await door.identify(issuer.token(kid))
    assert principal.key == "oidc:ann"
    assert principal.agent_id == ""
    assert principal.scopes == {Scope.READ, Scope.WRITE}
    assert principal.rooms is None


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "AT+JWT", "JWT", None])
@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256"])
async def test_tokens_that_are_good(
    sound: Authenticator, sound_issuer: FakeIssuer, typ: str | None, algorithm: str
) -> None:
    token = sound_issuer.token(algorithm=algorithm, header={"typ": typ}, aud=["x", AUDIENCE])
    assert await sound.admit(f"Bearer {token}")


async def test_one_waits_for_a_slow_issuer_and_not_all(
    door: Authenticator, issuer: FakeIssuer, clock: Clock
) -> None:
    await door.identify(issuer.token())
    clock.advance(issuer_module._FRESH)
    issuer.held = asyncio.Event()
    asked = [asyncio.create_task(door.identify(issuer.token(jti=str(n)))) for n in range(5)]
    await eventually(lambda: sum(one.done() for one in asked) == 4)
    issuer.held.set()
    await asyncio.gather(*asked)


@pytest.mark.parametrize("configured", ["", "/"])
@pytest.mark.parametrize("named", ["", "/"])
async def test_the_name_of_an_issuer_may_end_with_a_slash(
    tmp_path: Path,
    database: Database,
    directory: AgentDirectory,
    issuer: FakeIssuer,
    configured: str,
    named: str,
) -> None:
    oidc = {"issuer": issuer.url + configured, "audience": AUDIENCE, "admins": ["ann"]}
    config = config_for(tmp_path, access={"oidc": oidc})
    metadata = resource_metadata(config, "http://localhost:8016/mcp")
    assert metadata["authorization_servers"] == [issuer.url + configured]
    issuer.discovery = {"issuer": issuer.url + named}
    door = Authenticator(config, TokenStore(database), directory)
    assert await door.identify(issuer.token(iss=issuer.url + named))
    other = issuer.url + ("" if named else "/")
    assert "another issuer" in await reason(door, issuer.token(iss=other))


async def test_a_key_without_a_name(door: Authenticator, issuer: FakeIssuer) -> None:
    assert await door.identify(issuer.token(header={"kid": None}))
    issuer.keys = {"one": issuer.keys["one"]}
    assert await door.identify(issuer.token())


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"aud": "https://other.example"}, "`aud` does not name this server"),
        ({"aud": None}, "has no `aud`"),
        ({"aud": []}, "has no `aud`"),
        ({"aud": 5}, "`aud` does not name this server"),
        ({"aud": AUDIENCE + "/x"}, "`aud` does not name this server"),
        ({"exp": time.time() - 60}, "has expired"),
        ({"exp": None}, "has no `exp`"),
        ({"exp": "soon"}, "malformed"),
        ({"exp": float("inf")}, "malformed"),
        ({"nbf": time.time() + 600_000}, "not valid yet"),
        ({"iat": time.time() + 600_000}, "not valid yet"),
        ({"iss": "https://evil.example"}, "of another issuer"),
        ({"iss": None}, "has no `iss`"),
        ({"sub": None}, "has no `sub`"),
        ({"sub": ""}, "no usable `sub`"),
        ({"sub": "a\nb"}, "no usable `sub`"),
        ({"sub": "x" * 300}, "no usable `sub`"),
        ({"sub": "eve"}, "names no agent in its claim `letta_agent`"),
        ({"scope": "openid profile"}, "none of the scopes read, write, rooms, agents"),
        ({"scope": None}, "none of the scopes"),
        ({"scope": {"read": 1}}, "none of the scopes"),
        ({"scope": "READ read,write"}, "none of the scopes"),
        ({"letta_agent": "agent-9"}, "agent that the token names does not exist"),
        ({"letta_agent": "agent-2"}, "agent that the token names does not exist"),
        ({"letta_agent": ["agent-1"]}, "agent that the token names does not exist"),
        ({"letta_agent": ""}, "agent that the token names does not exist"),
        ({"at_hash": "x"}, "an ID token"),
        ({"typ": "ID"}, "an ID token"),
    ],
)
async def test_claims_that_do_not_do(
    sound: Authenticator, sound_issuer: FakeIssuer, claims: dict[str, Any], expected: str
) -> None:
    assert expected in await reason(sound, sound_issuer.token(**claims))


async def test_whom_it_acts_as(door: Authenticator, issuer: FakeIssuer) -> None:
    named = await door.identify(
        issuer.token(sub="eve/x", letta_agent="agent-1", scope="read admin")
    )
    assert (named.key, named.agent_id) == ("oidc:eve%2Fx/agent-1", "agent-1")
    assert named.scopes == {Scope.READ}
    # The narrower of the two.
    assert (await door.identify(issuer.token(letta_agent="@agent_1:test"))).agent_id == "agent-1"
    admin = await door.identify(issuer.token(scope=None, scp=["admin", "read", 5, {}]))
    assert admin.scopes == {Scope.READ, Scope.ADMIN}


def test_another_claim_may_name_the_agent(directory: AgentDirectory) -> None:
    oidc = Oidc(issuer="https://id.example", audience="x", agent_claim="who")
    with pytest.raises(Unauthorized, match="in its claim `who`"):
        principal_of({"sub": "ann", "letta_agent": "agent-1"}, oidc, directory)


def forged(header: dict[str, Any], claims: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    text = b".".join(part(json.dumps(one).encode()) for one in (header, claims))
    return (text + b"." + part(sign(text))).decode()


async def test_nobody_signs_for_the_issuer(
    door: Authenticator, issuer: FakeIssuer, keys: dict[str, Key]
) -> None:
    good = issuer.token()
    await door.identify(good)
    claims = jwt.decode(good, options={"verify_signature": False})
    public = json.dumps(public_jwk("one", keys["one"])).encode()

    def with_public_key(text: bytes) -> bytes:
        return hmac.new(public, text, hashlib.sha256).digest()

    for algorithm in ("none", "None", "NONE", "HS256", "hs256", "HS512"):
        token = forged({"alg": algorithm, "kid": "one"}, claims, with_public_key)
        assert "not signed in a way" in await reason(door, token)
        unsigned = token.rpartition(".")[0] + "."
        assert "not signed in a way" in await reason(door, unsigned)
    stranger = rsa_key()[1]
    assert await reason(door, issuer.token(key=stranger)) == "The token's signature is wrong."
    # Signed well, but with the key of another name or kind.
    assert "does not publish" in await reason(door, issuer.token("one", header={"kid": "four"}))
    confused = issuer.token("two", header={"kid": "one"})
    assert "does not publish" in await reason(door, confused)
    head, payload, signature = good.split(".")
    other = issuer.token(scope="read write rooms agents admin").split(".")[1]
    assert "signature is wrong" in await reason(door, f"{head}.{other}.{signature}")
    assert "signature is wrong" in await reason(door, f"{head}.{payload}.{signature[:-6]}")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"alg": ["RS256"]}, "not signed in a way"),
        ({"alg": None}, "not signed in a way"),
        ({}, "not signed in a way"),
        ({"alg": "RS256", "typ": "dpop+jwt"}, "another type"),
        ({"alg": "RS256", "typ": {}}, "another type"),
        ({"alg": "RS256", "kid": 5}, "not known here"),
        ({"alg": "RS256", "kid": "one", "crit": ["x"], "x": 1}, "not known here"),
        ({"alg": "RS256", "kid": "one", "jwk": {"kty": "oct"}}, "signature is wrong"),
        ({"alg": "RS256", "kid": "../../etc/passwd"}, "does not publish"),
    ],
)
async def test_hostile_headers(sound: Authenticator, header: dict[str, Any], expected: str) -> None:
    assert expected in await reason(sound, forged(header, {"sub": "ann"}, lambda _: b"x" * 256))


async def test_a_token_within_a_token_is_not_unpacked(door: Authenticator) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 9_000).decode()
    for token in (f"{deep}.e30.eA", "a.b", "a.b.c", "....", "x" * 16_000):
        assert await reason(door, token) == "The token is not known here."


@settings(
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.dictionaries(
        st.sampled_from(["sub", "scope", "scp", "letta_agent"]),
        st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5),
    )
)
def test_no_claims_break_in(directory: AgentDirectory, claims: dict[str, Any]) -> None:
    oidc = Oidc(issuer="https://id.example", audience="x", admins=["boss"])
    with pytest.raises(Unauthorized):
        principal_of({"sub": "eve", **claims}, oidc, directory)


async def test_keys_are_fetched_once_and_again_for_a_new_one(
    door: Authenticator, issuer: FakeIssuer, clock: Clock
) -> None:
    clock.stop()
    await asyncio.gather(*(door.identify(issuer.token(jti=str(n))) for n in range(8)))
    assert issuer.requests == [DISCOVERY, KEYS]
    issuer.keys = {"new": ec_key()}
    assert "does not publish" in await reason(door, issuer.token("new"))
    # Within a minute nobody asks again, however many come.
    clock.advance(issuer_module._PAUSE - 1)
    assert "does not publish" in await reason(door, issuer.token("new"))
    assert len(issuer.requests) == 2
    clock.advance(1)
    assert await door.identify(issuer.token("new"))
    assert len(issuer.requests) == 4
    # The old key is withdrawn.
    issuer.keys["one"] = rsa_key()
    clock.advance(issuer_module._PAUSE)
    assert "signature is wrong" in await reason(door, issuer.token("one", key=rsa_key()[1]))


async def test_an_issuer_that_is_away(
    door: Authenticator, issuer: FakeIssuer, clock: Clock
) -> None:
    clock.stop()
    await issuer.go_away()
    with capture_logs() as logs:
        for _ in range(100):
            with pytest.raises(IdentityUnavailable, match="Try again in a minute"):
                await door.identify(issuer.token())
    assert len(logs) == 1
    await issuer.start()
    clock.advance(issuer_module._FIRST_PAUSE)
    assert await door.identify(issuer.token())
    # Known keys outlive a short absence, not a long one.
    await issuer.go_away()
    clock.advance(issuer_module._FRESH)
    assert await door.identify(issuer.token())
    clock.advance(issuer_module._STALE)
    with pytest.raises(IdentityUnavailable):
        await door.identify(issuer.token())


_NONSENSE: list[tuple[str, Answer]] = [
    (DISCOVERY, (404, b"", {})),
    (DISCOVERY, (302, b"", {"Location": KEYS})),
    (DISCOVERY, (200, b"<html>", {})),
    (DISCOVERY, (200, b"[]", {})),
    (DISCOVERY, (200, b"[" * 100_000, {})),
    (DISCOVERY, (200, b"{}" + b" " * 1_000_000, {})),
    (KEYS, (302, b"", {"Location": "/realm/elsewhere"})),
    (KEYS, (200, b'{"keys": 5}', {})),
    (KEYS, (200, b'{"keys": [5, {}, {"kty": "RSA"}, {"kty": "oct", "k": "eA"}]}', {})),
]


@pytest.mark.parametrize(("path", "answer"), _NONSENSE)
async def test_an_issuer_that_answers_nonsense(
    door: Authenticator, issuer: FakeIssuer, path: str, answer: Answer
) -> None:
    issuer.answers[path] = answer
    with pytest.raises(IdentityUnavailable):
        await door.identify(issuer.token())
    assert "/realm/elsewhere" not in issuer.requests


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "//127.0.0.1/keys"},
    ],
)
async def test_a_discovery_document_that_misleads(
    door: Authenticator, issuer: FakeIssuer, discovery: dict[str, Any]
) -> None:
    issuer.discovery = discovery
    with pytest.raises(IdentityUnavailable):
        await door.identify(issuer.token())
    assert KEYS not in issuer.requests


async def test_keys_that_are_not_for_this(door: Authenticator, issuer: FakeIssuer) -> None:
    own = issuer.keys["one"]
    private = private_jwk(own)
    issuer.jwks = [
        public_jwk("one", own, use="enc"),
        public_jwk("one", own, alg="RS512"),
        public_jwk("one", own, alg="HS256"),
        {**private, "kid": "one"},
        public_jwk("small", rsa_key(1024)),
        public_jwk("two", issuer.keys["two"], crv="P-999"),
        public_jwk("three", issuer.keys["three"]),
    ]
    issuer.keys["small"] = rsa_key(1024)
    assert await door.identify(issuer.token("three"))
    assert await door.identify(issuer.token("one", algorithm="RS512"))
    assert "does not publish" in await reason(door, issuer.token("one"))
    assert "does not publish" in await reason(door, issuer.token("two"))
    head = {"alg": "RS256", "kid": "small"}
    assert "does not publish" in await reason(door, forged(head, {}, lambda _: b"x" * 128))


async def test_tokens_of_our_own_go_on_beside(door: Authenticator, issuer: FakeIssuer) -> None:
    assert "not known here" in await reason(door, "lm_" + "0" * 12 + "_" + "x" * 43)
    assert issuer.requests == []


def test_its_libraries_are_loaded_for_its_tokens_alone() -> None:
    code = (
        "import sys, letta_matrix.access.authenticator\n"
        "heavy = {'jwt', 'cryptography'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
