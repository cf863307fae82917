"""Tokens of our own at the door: who gets in, as whom, how often, and what the others cost."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.builders import agent, config_for
from tests.waiting import Clock

from letta_matrix.access import authenticator as module
from letta_matrix.access.authenticator import Authenticator, TooOften, Unauthorized, bearer_of
from letta_matrix.access.principal import TOOL_SCOPES, Scope
from letta_matrix.access.rate_limit import RateLimit
from letta_matrix.access.secrets import is_secret_of, issue, token_id_of
from letta_matrix.store.agents import AgentDirectory, AgentStatus
from letta_matrix.store.database import Database
from letta_matrix.store.tokens import TokenStore

Make = Callable[..., Awaitable[str]]
UNKNOWN = "lm_" + "0" * 12 + "_" + "x" * 43


@pytest.fixture
def tokens(database: Database) -> TokenStore:
    return TokenStore(database)


@pytest.fixture
def door(tmp_path: Path, tokens: TokenStore, directory: AgentDirectory) -> Authenticator:
    config = config_for(tmp_path, access={"calls_per_minute": 5})
    return Authenticator(config, tokens, directory)


@pytest.fixture
def make(tokens: TokenStore) -> Make:
    async def made(**fields: Any) -> str:
        change = fields.pop("change", {})
        wanted: dict[str, Any] = {"agent_id": "", "scopes": frozenset({Scope.READ})} | fields
        text, token = issue(**wanted)
        await tokens.add(replace(token, **change))
        return text

    return made


async def test_a_token_of_the_bot(door: Authenticator, make: Make) -> None:
    text = await make(scopes=frozenset({Scope.READ, Scope.ADMIN}), rooms=frozenset({"!a:test"}))
    principal = await door.admit(f"bearer  {text} ")
    assert principal.key == f"token:{token_id_of(text)}"
    assert principal.agent_id == ""
    assert principal.scopes == {Scope.READ, Scope.ADMIN}
    assert principal.may_act_in("!a:test")
    assert not principal.may_act_in("!b:test")


async def test_a_token_of_an_agent(
    door: Authenticator, make: Make, directory: AgentDirectory
) -> None:
    await directory.reserve([agent(1), agent(2, status=AgentStatus.REMOVED)])
    principal = await door.identify(await make(agent_id="agent-1", scopes=TOOL_SCOPES))
    assert (principal.agent_id, principal.rooms) == ("agent-1", None)
    for gone in ("agent-2", "agent-3"):
        with pytest.raises(Unauthorized, match="agent of the token does not exist"):
            await door.identify(await make(agent_id=gone))


async def test_scopes_that_a_row_must_not_give(
    door: Authenticator, make: Make, directory: AgentDirectory
) -> None:
    await directory.reserve([agent(1)])
    scopes = {"change": {"scopes": ("read", "admin", "fly")}}
    assert (await door.identify(await make(agent_id="agent-1", **scopes))).scopes == {Scope.READ}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"revoked_at": 1.0}, "was revoked"),
        ({"expires_at": 1.0}, "has expired"),
        ({"digest": "0" * 64}, "not known here"),
    ],
)
async def test_tokens_that_are_over(
    door: Authenticator, make: Make, change: dict[str, Any], reason: str
) -> None:
    text = await make(change=change)
    with pytest.raises(Unauthorized, match=reason) as refused:
        await door.identify(text)
    assert refused.value.error == "invalid_token"
    assert text not in str(refused.value)


async def test_a_revoked_token_is_refused_at_once(
    door: Authenticator, make: Make, tokens: TokenStore
) -> None:
    text = await make()
    await door.identify(text)
    await tokens.revoke(token_id_of(text) or "", time.time())
    with pytest.raises(Unauthorized, match="revoked"):
        await door.identify(text)


@pytest.mark.parametrize("header", [None, "", "  ", "Bearer", "Bearer ", "Basic bGE6bGE=", "lm_x"])
def test_headers_without_a_token(header: str | None) -> None:
    with pytest.raises(Unauthorized, match="Send a token") as refused:
        bearer_of(header)
    assert refused.value.error == ""


@pytest.mark.parametrize(
    "token",
    [
        *("x", "lm_", "lm__", "lm_00_x", "LM" + UNKNOWN[2:], UNKNOWN, f"{UNKNOWN}\u0661", "é" * 60),
        *(
            "a b",
            f"{UNKNOWN}, Bearer x",
            '"',
            "\ud800",
            "\x00",
            "lm_" + "0" * 100_000,
            "x" * 70_000,
        ),
        "lm_" + "\u0661" * 12 + "_" + "x" * 43,
    ],
)
async def test_tokens_that_are_none(door: Authenticator, token: str) -> None:
    with pytest.raises(Unauthorized, match="not known here") as refused:
        await door.admit(f"Bearer {token}")
    assert refused.value.error == "invalid_token"


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.text(st.characters(exclude_categories=())))
def test_no_header_whatever_breaks_in(door: Authenticator, header: str) -> None:
    for text in (header, f"Bearer {header}", f"Bearer lm_{header}"):
        with pytest.raises((Unauthorized, TooOften)):
            asyncio.run(door.admit(text))


async def test_an_unknown_id_is_compared_like_a_known_one(make: Make, tokens: TokenStore) -> None:
    text = await make()
    (stored,) = await tokens.all()
    assert is_secret_of(text, stored)
    assert not is_secret_of(text, None)
    assert not is_secret_of(text[:-1] + ("a" if text[-1] != "a" else "b"), stored)
    assert not is_secret_of("lm_x", stored)
    # Even for the digest of no secret at all.
    assert not is_secret_of("", None)


async def test_requests_are_counted_for_each_token(
    door: Authenticator, make: Make, clock: Clock
) -> None:
    clock.stop()
    busy, other = await make(), await make()
    for _ in range(5):
        await door.admit(f"Bearer {busy}")
    with pytest.raises(TooOften) as refused:
        await door.admit(f"Bearer {busy}")
    assert refused.value.retry_after == pytest.approx(12)
    await door.admit(f"Bearer {other}")
    clock.advance(12)
    await door.admit(f"Bearer {busy}")


async def test_wrong_tokens_are_not_listened_to_for_ever(
    door: Authenticator, make: Make, clock: Clock
) -> None:
    clock.stop()
    newcomer, revoked = await make(), await make(change={"revoked_at": 1.0})
    with capture_logs() as logs:
        for _ in range(60):
            with pytest.raises(Unauthorized):
                await door.identify(UNKNOWN, "10.0.0.1")
        for text in (UNKNOWN, revoked, "lm_x"):
            with pytest.raises(TooOften) as refused:
                await door.identify(text, "10.0.0.1")
            assert refused.value.retry_after == pytest.approx(1)
    assert len(logs) == 1
    assert UNKNOWN not in repr(logs)
    with pytest.raises(Unauthorized):
        await door.identify(UNKNOWN, "10.0.0.2")
    # The address may be that of many: who has a good token gets in, though never seen before.
    assert await door.identify(newcomer, "10.0.0.1")


async def test_what_was_refused_is_told_once_a_minute(door: Authenticator, clock: Clock) -> None:
    clock.stop()
    with capture_logs() as logs:
        for passed in (module._REPORT_EVERY - 1, 1, 1):
            for _ in range(3):
                with pytest.raises(Unauthorized):
                    await door.identify(UNKNOWN)
            clock.advance(passed)
    assert [entry["count"] for entry in logs] == [1, 6]


def test_buckets_do_not_grow_for_ever() -> None:
    limit = RateLimit(60)
    for second in range(10_000):
        assert limit.take(f"key-{second}", float(second)) == 0
    assert len(limit._buckets) <= 1_000
    limit = RateLimit(2)
    for number in range(1_500):
        limit.take(str(number), 0.0)
    assert limit.take("0", 0.0) == 0
    assert limit.take("0", 0.0) == 30
