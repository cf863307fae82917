"""`letta-matrix tokens`: what it makes, shows and revokes, and what it refuses to."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders import agent, config_for
from tests.fake_homeserver import FakeHomeserver, rate_limited
from typer.testing import CliRunner

from letta_matrix.access.authenticator import Authenticator, Unauthorized
from letta_matrix.access.grants import BadGrant, lifetime_of, rooms_for
from letta_matrix.access.principal import TOOL_SCOPES, Principal, Scope
from letta_matrix.cli.commands import app
from letta_matrix.cli.main import exit_status
from letta_matrix.store.agents import AgentDirectory, AgentStatus
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.database import HEAD, Database
from letta_matrix.store.tokens import AccessToken, TokenStore


@dataclass(frozen=True)
class Done:
    """How a command ended; `error` is what `main` would say."""

    status: int | None
    out: str
    err: str
    error: str


Run = Callable[..., Awaitable[Done]]
Identify = Callable[[str], Awaitable[Principal]]


@pytest.fixture
def configuration(tmp_path: Path, fake: FakeHomeserver) -> Path:
    path = tmp_path / "config.yaml"
    settings = {
        "homeserver": {"url": fake.url, "domain": "test"},
        "appservice": {"as_token": "as-secret", "hs_token": "hs-secret"},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def run(configuration: Path) -> Run:
    """Runs the command beside a bridge that has the database open."""

    async def tokens(*arguments: str) -> Done:
        words = ["tokens", *arguments, "-c", str(configuration)]
        result = await asyncio.to_thread(CliRunner().invoke, app, words)
        fault = result.exception
        status = result.exit_code
        if isinstance(fault, Exception):
            status = exit_status(fault)
            assert status is not None, repr(fault)
        return Done(status, result.stdout, result.stderr, str(fault or ""))

    return tokens


@pytest.fixture
async def identify(tmp_path: Path, database: Database, directory: AgentDirectory) -> Identify:
    """The running bridge, asked whose token it is."""
    await directory.reserve(
        [
            agent(1, name="Ada"),
            agent(2, name="Bo"),
            agent(3, name="Bo"),
            agent(4, name="Old", status=AgentStatus.REMOVED),
        ]
    )
    return Authenticator(config_for(tmp_path), TokenStore(database), directory).identify


async def test_the_token_stands_alone_on_standard_output(run: Run, identify: Identify) -> None:
    before = time.time()
    done = await run("create", "--label", "for tests")
    assert done.status == 0, done.error
    token = done.out.removesuffix("\n")
    assert "\n" not in token
    assert token not in done.err
    assert "acts as  @letta:test" in done.err
    assert "for tests" in done.err
    principal = await identify(token)
    assert (principal.agent_id, principal.rooms) == ("", None)
    assert principal.scopes == TOOL_SCOPES
    listed = json.loads((await run("list", "--json")).out)
    assert before + 89.9 * 86_400 < listed[0]["expires_at"] < time.time() + 90 * 86_400


@pytest.mark.parametrize("ref", ["agent-1", "Ada", "@agent_1:test"])
async def test_a_token_for_an_agent(run: Run, identify: Identify, ref: str) -> None:
    scopes = ("--scope", "read, write", "--scope", "agents")
    done = await run("create", "--as", ref, *scopes, "--rooms", "!a:test,!b:test", "--json")
    made = json.loads(done.out)
    principal = await identify(made["token"])
    assert principal.agent_id == made["agent_id"] == "agent-1"
    assert principal.scopes == {Scope.READ, Scope.WRITE, Scope.AGENTS}
    assert principal.rooms == {"!a:test", "!b:test"}
    assert done.err == ""


async def test_admin_is_for_the_bot_when_named(run: Run, identify: Identify) -> None:
    done = await run("create", "--as", "@letta:test", "--scope", "admin", "--expires", "never")
    principal = await identify(done.out.strip())
    assert (principal.agent_id, principal.scopes) == ("", {Scope.ADMIN})
    assert "expires  never" in done.err


async def test_aliases_are_looked_up(run: Run, identify: Identify, fake: FakeHomeserver) -> None:
    fake.aliases["#kitchen:test"] = "!k:test"
    done = await run("create", "--rooms", "#kitchen:test,!a:test")
    assert (await identify(done.out.strip())).rooms == {"!a:test", "!k:test"}
    assert "#kitchen" not in done.err
    missing = await run("create", "--rooms", "#nowhere:test")
    assert (missing.status, missing.error) == (2, "there is no room #nowhere:test")
    # Longer than it may take.
    fake.fail("directory", rate_limited(300_000))
    away = await run("create", "--rooms", "#kitchen:test")
    assert away.status == 1
    assert "finds no answer for #kitchen:test" in away.error
    assert away.out == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--as", "Eve"), "there is no agent 'Eve'; `"),
        (("--as", "Old"), "there is no agent 'Old'"),
        (("--as", "ada"), "there is no agent 'ada'"),
        (("--as", "Bo"), "several agents are called 'Bo': agent-2, agent-3; name one by its id"),
        (("--as", "@ann:test"), "there is no agent '@ann:test'"),
        (
            ("--scope", "fly"),
            "there is no scope 'fly'; there are read, write, rooms, agents, admin, metrics",
        ),
        (("--scope", "READ"), "there is no scope 'READ'"),
        (("--scope", " , "), "a token needs a scope: read, write, rooms, agents, admin, metrics"),
        (("--as", "Ada", "--scope", "admin"), "the scope admin is only for tokens of the bot"),
        (("--as", "Ada", "--scope", "metrics"), "the scope metrics is only for tokens of the bot"),
        (("--scope", "admin", "--rooms", "!a:b"), "cannot be limited to rooms"),
        (("--rooms", "Kitchen"), "'Kitchen': give rooms by id (!...) or alias (#...), not by name"),
        (("--rooms", "!"), "'!' is no room id; one looks like !abc:example.org"),
        (("--rooms", "!a\x1bb"), "'!a\\x1bb' is no room id"),
        (("--rooms", "!" + "x" * 300), "is no room id"),
        (("--rooms", ""), "is no room id"),
        (("--expires", "soon"), "'soon' is no time; write 30m, 12h, 90d, 8w or never"),
        (("--expires", "0d"), "'0d' is no time"),
        (("--expires", "-5d"), "'-5d' is no time"),
        (("--expires", "\u0661d"), "is no time"),
        (("--expires", "9999999d"), "is no time"),
        (("--label", "a\nb"), "a label is one line"),
        (("--label", "x" * 201), "a label is one line"),
    ],
)
async def test_what_cannot_be_made(
    run: Run, identify: Identify, database: Database, arguments: tuple[str, ...], expected: str
) -> None:
    done = await run("create", *arguments)
    assert done.status == 2
    assert expected in done.error
    assert "\n" not in done.error
    assert await TokenStore(database).all() == []


async def test_the_list_has_no_secrets(run: Run, identify: Identify, database: Database) -> None:
    assert (await run("list")).out == "no tokens yet\n"
    made = [(await run("create", "--label", f"number {n}")).out.strip() for n in range(3)]
    store = TokenStore(database)
    ids = [token.token_id for token in await store.all()]
    await store.revoke(ids[1], 5.0)
    await store.add(AccessToken("old", "0" * 64, "agent-1", ("read",), ("!a:b",), "", 1.0, 2.0))
    shown = (await run("list")).out
    assert [shown.count(f"({state})") for state in ("active", "revoked", "expired")] == [2, 1, 1]
    assert "1970-01-01T00:00:02Z" in shown
    listed = (await run("list", "--json")).out
    fields: list[dict[str, Any]] = json.loads(listed)
    assert fields[0]["rooms"] == ["!a:b"]
    assert [one["state"] for one in fields] == ["expired", "active", "revoked", "active"]
    digests = [token.digest for token in await store.all()]
    for text in (shown, listed):
        assert not [one for one in (*made, *digests) if one in text or one[-20:] in text]


@pytest.mark.parametrize("much", [12, 4])
@pytest.mark.parametrize("prefix", ["", "lm_"])
async def test_a_token_is_revoked_by_how_it_begins(
    run: Run, identify: Identify, database: Database, much: int, prefix: str
) -> None:
    token = (await run("create")).out.strip()
    token_id = token.split("_")[1]
    assert await identify(token)
    done = await run("revoke", prefix + token_id[:much])
    assert done.out == f"{token_id} is revoked\n"
    with pytest.raises(Unauthorized, match="revoked"):
        await identify(token)
    again = await run("revoke", token)
    assert (again.status, again.out) == (0, f"{token_id} was revoked before\n")
    noted = [(one.principal, one.tool, one.outcome) for one in await AuditStore(database).newest(9)]
    assert noted[1:] == [("cli", "tokens.revoke", "ok"), ("cli", "tokens.create", "ok")]


async def test_tokens_that_cannot_be_meant(
    run: Run, identify: Identify, database: Database
) -> None:
    for token_id in ("aaaa1", "aaaa2"):
        await TokenStore(database).add(
            AccessToken(token_id, "0" * 64, "", ("read",), None, "", 1.0)
        )
    several = await run("revoke", "aaaa")
    assert several.error == "several tokens begin with 'aaaa': aaaa1, aaaa2"
    secret = "s" * 43
    for given in ("", "a", "aaa", "bbbb", "lm_", f"lm_ffffffffffff_{secret}"):
        done = await run("revoke", given)
        assert done.status == 2
        assert "letta-matrix tokens list` shows their ids" in done.error
        assert secret not in done.error
    assert all(one.revoked_at is None for one in await TokenStore(database).all())


async def test_a_database_of_another_time(run: Run, database_file: Path) -> None:
    def change(statement: str) -> None:
        with sqlite3.connect(database_file) as connection:
            connection.execute(statement)
        connection.close()

    change("UPDATE alembic_version SET version_num = '0002'")
    done = await run("list")
    assert done.status == 1
    assert f"has schema 0002, this letta-matrix needs {HEAD}: start the bridge" in done.error
    change("DROP TABLE alembic_version")
    assert "has schema (none)" in (await run("list")).error
    database_file.write_bytes(b"no database at all" * 100)
    assert "file is not a database; move it away" in (await run("list")).error
    database_file.unlink()
    assert "start the bridge once" in (await run("list")).error
    assert not database_file.exists()


def test_lifetimes() -> None:
    texts = ("30m", "12h", "90d", "8w", "never")
    assert [lifetime_of(text) for text in texts] == [1800, 43_200, 7_776_000, 4_838_400, None]


def test_rooms_of_new_room_versions() -> None:
    assert rooms_for(["!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"], {Scope.READ})
    with pytest.raises(BadGrant):
        rooms_for([], {Scope.READ})
