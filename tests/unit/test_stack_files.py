"""What the stack writes: registration, configuration, providers, state, summary."""

import asyncio
import errno
import fcntl
import json
import os
import shlex
import socket
import sqlite3
import stat
import sys
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.builders import config_for
from tests.servers import free_port
from tests.waiting import Clock, settled, within

from letta_matrix.access.authenticator import Authenticator
from letta_matrix.access.principal import Scope
from letta_matrix.access.secrets import issue
from letta_matrix.cli.up.stack import Options, Stack, up
from letta_matrix.cli.up.token import keep_token
from letta_matrix.common.private_files import write_private
from letta_matrix.common.program import is_relative, typed
from letta_matrix.config import Config, load_config
from letta_matrix.runtimes.keeper.pid_file import KeeperProcess
from letta_matrix.stack.app_server import Control
from letta_matrix.stack.bridge_config import write_bridge_files
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.files import keep_secret, write_private_if_changed
from letta_matrix.stack.homeserver_database import HomeserverDatabase
from letta_matrix.stack.lock import exclusive
from letta_matrix.stack.models import (
    ModelChoice,
    ProviderFile,
    Wanted,
    check_endpoint,
    choose_model,
    demo_choice,
)
from letta_matrix.stack.ports import Ports
from letta_matrix.stack.registration import registration, registrations_in
from letta_matrix.stack.starter import list_names
from letta_matrix.stack.state import StackState, read_state, remove_state
from letta_matrix.stack.summary import Facts, summary
from letta_matrix.stack.synapse import Synapse
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database
from letta_matrix.store.tokens import TokenStore

ADMIN = "@admin:localhost"


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_files_are_replaced_whole_and_for_their_owner(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, "one")
    assert _mode(path) == 0o600
    assert not write_private_if_changed(path, "one")
    assert write_private_if_changed(path, "two")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_secrets_are_kept(tmp_path: Path) -> None:
    first = keep_secret(tmp_path / "x")
    assert len(first) >= 32
    assert keep_secret(tmp_path / "x") == first


def test_the_first_configuration(tmp_path: Path) -> None:
    config = write_bridge_files(tmp_path, Ports(), ADMIN, "secret")
    assert _mode(tmp_path / "config.yaml") == 0o600
    assert _mode(tmp_path / "registration.yaml") == 0o600
    assert config.homeserver.url == "http://127.0.0.1:8008"
    assert config.api.homeserver_url == config.homeserver.url
    assert config.role_of(ADMIN) == "admin"
    assert config.role_of("@friend:localhost") == "user"
    assert config.role_of("@stranger:elsewhere") == "block"
    assert config.agents.room_members == [ADMIN]


def test_ports_follow_and_everything_else_stays(tmp_path: Path) -> None:
    before = write_bridge_files(tmp_path, Ports(), ADMIN, "secret")
    path = tmp_path / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["agents"]["space_name"] = "My agents"
    path.write_text(yaml.safe_dump(settings))
    after = write_bridge_files(tmp_path, Ports.with_offset(10), ADMIN, "secret")
    assert after.agents.space_name == "My agents"
    assert after.appservice.port == 29387
    assert (after.mcp.port, after.mcp.websocket_port) == (8026, 8025)
    assert after.runtimes[0].model_dump()["url"] == "ws://127.0.0.1:4510"
    assert after.appservice.as_token == before.appservice.as_token
    assert yaml.safe_load((tmp_path / "registration.yaml").read_text()) == registration(after)


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    write_bridge_files(tmp_path, Ports(), ADMIN, "secret")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    write_bridge_files(tmp_path, Ports(), ADMIN, "secret")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "homeserver: {bogus: 1}"])
def test_a_broken_configuration_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(StackError, match=r"config\.yaml"):
        write_bridge_files(tmp_path, Ports(), ADMIN, "secret")


def test_the_registration(tmp_path: Path) -> None:
    write_bridge_files(tmp_path, Ports(), ADMIN, "secret")
    made = registration(load_config(tmp_path / "config.yaml", {}))
    assert made["sender_localpart"] == "letta"
    assert made["rate_limited"] is False
    assert made["receive_ephemeral"] is False
    assert made["namespaces"] == {
        "users": [
            {"exclusive": True, "regex": "@agent_.*:localhost"},
            {"exclusive": True, "regex": "@letta_.*:localhost"},
        ],
        "aliases": [
            {"exclusive": True, "regex": "#agent_.*:localhost"},
            {"exclusive": True, "regex": "#letta_.*:localhost"},
        ],
        "rooms": [],
    }


def test_the_homeserver_knows_other_bridges_too(tmp_path: Path) -> None:
    ours = tmp_path / "registration.yaml"
    assert registrations_in(tmp_path) == (ours,)
    others = tmp_path / "registrations"
    others.mkdir()
    for name in ("b.yaml", "a.yaml", "notes.txt"):
        (others / name).touch()
    assert registrations_in(tmp_path) == (ours, others / "a.yaml", others / "b.yaml")


def test_the_homeservers_secrets_survive_a_change_of_ports(tmp_path: Path) -> None:
    first = Synapse(tmp_path, 8008)
    first.write_files("@letta:localhost")
    key = (tmp_path / "signing.key").read_text()
    before = yaml.safe_load((tmp_path / "homeserver.yaml").read_text())
    Synapse(tmp_path, 9008, (tmp_path / "registration.yaml",)).write_files("@letta:localhost")
    after = yaml.safe_load((tmp_path / "homeserver.yaml").read_text())
    assert (tmp_path / "signing.key").read_text() == key
    for secret in ("registration_shared_secret", "macaroon_secret_key", "form_secret"):
        assert after[secret] == before[secret]
    assert after["listeners"][0]["port"] == 9008
    assert after["listeners"][0]["bind_addresses"] == ["127.0.0.1"]
    assert after["app_service_config_files"] == [str(tmp_path / "registration.yaml")]
    assert after["enable_registration"] is False
    assert after["federation_domain_whitelist"] == []
    assert _mode(tmp_path / "homeserver.yaml") == _mode(tmp_path / "signing.key") == 0o600


def _homeserver_database(tmp_path: Path, *statements: str) -> HomeserverDatabase:
    with sqlite3.connect(tmp_path / "homeserver.db") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    (tmp_path / "homeserver.db-journal").touch()
    return HomeserverDatabase(tmp_path / "homeserver.db")


@pytest.mark.parametrize(
    "statements", [(), ("CREATE TABLE a (b)",), ("CREATE TABLE users (name)",)]
)
def test_a_half_made_database_is_thrown_away(tmp_path: Path, statements: tuple[str, ...]) -> None:
    database = _homeserver_database(tmp_path, *statements)
    assert database.discard_half_made()
    assert list(tmp_path.iterdir()) == []
    assert not database.discard_half_made()


def test_a_database_that_was_ready_stays(tmp_path: Path) -> None:
    database = _homeserver_database(tmp_path)
    database.note_whole()
    assert not database.discard_half_made()
    assert (tmp_path / "homeserver.db").exists()


def test_a_database_of_an_earlier_version_stays(tmp_path: Path) -> None:
    users = ("CREATE TABLE users (name)", "INSERT INTO users VALUES ('@admin:localhost')")
    assert not _homeserver_database(tmp_path, *users).discard_half_made()
    assert (tmp_path / "homeserver.db").exists()


def test_a_database_that_cannot_be_read_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "homeserver.db").write_bytes(b"no database " * 100)
    assert not HomeserverDatabase(tmp_path / "homeserver.db").discard_half_made()
    with sqlite3.connect(tmp_path / "locked.db", timeout=0) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("CREATE TABLE users (name)")
        connection.execute("BEGIN EXCLUSIVE")
        # SQLite would wait five seconds for the lock.
        monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0))
        assert not HomeserverDatabase(tmp_path / "locked.db").discard_half_made()
    connection.close()


async def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Ports, "check_free", print)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StackError, match=rf"^{tmp_path}: cannot be written to: No space left"):
        await up(Options(tmp_path), print)
    assert not (tmp_path / "config.yaml").exists()


def test_an_endpoint_comes_before_a_key() -> None:
    environment = {"OPENAI_API_KEY": "sk-1"}
    choice = choose_model(environment, None, Wanted(base_url="http://h/v1", model="m"))
    assert choice is not None
    assert choice.handle == "openai-compatible/m"


def test_a_key_in_the_environment_is_found() -> None:
    choice = choose_model({"OPENAI_API_KEY": "sk-1"}, ModelChoice("anthropic", "earlier"), Wanted())
    assert choice is not None
    assert (choice.provider, choice.key, choice.handle) == ("openai", "sk-1", "")
    assert "sk-1" not in choice.origin


def test_a_model_picks_the_key_it_belongs_to() -> None:
    environment = {"ANTHROPIC_API_KEY": "a", "OPENAI_API_KEY": "o"}
    choice = choose_model(environment, None, Wanted(model="openai/gpt-x"))
    assert choice is not None
    assert choice.key == "o"
    assert choice.handle == "openai/gpt-x"


def test_an_earlier_provider_is_used_again() -> None:
    choice = choose_model({}, ModelChoice("anthropic", "earlier"), Wanted(model="claude-x"))
    assert choice is not None
    assert (choice.provider, choice.handle) == ("anthropic", "anthropic/claude-x")
    assert choose_model({}, None, Wanted()) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:1"}, "expected http://"),
        ({"base_url": "http:///v1"}, "expected http://"),
        ({"key": "sk-1"}, "--model-api-key needs --model-base-url"),
        ({"model": "gpt-x"}, "no provider for it"),
    ],
)
def test_models_that_cannot_be_reached(options: dict[str, str], message: str) -> None:
    with pytest.raises(StackError, match=message):
        choose_model({}, None, Wanted(**options))


def test_providers_are_added_beside_others(tmp_path: Path) -> None:
    providers = ProviderFile(tmp_path)
    assert providers.connected() is None
    providers.connect(demo_choice(8009, "letta-matrix-demo-x"))
    assert providers.connected() is None
    providers.connect(ModelChoice("openai", "test", "sk-1"))
    earlier = providers.connected()
    assert earlier is not None
    assert earlier == ModelChoice("openai", "openai, as connected earlier", "sk-1")
    path = tmp_path / ".letta" / "lc-local-backend" / "providers" / "auth.json"
    before = path.stat().st_ino
    providers.connect(earlier)
    assert path.stat().st_ino == before
    data = json.loads(path.read_text())
    assert data["providers"]["openai-compatible"]["base_url"] == "http://127.0.0.1:8009/v1"
    assert data["providers"]["openai"]["auth"] == {"type": "api", "key": "sk-1"}
    assert _mode(path) == 0o600


def test_a_damaged_provider_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / ".letta" / "lc-local-backend" / "providers" / "auth.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(StackError, match=r"auth\.json"):
        ProviderFile(tmp_path).connected()


def test_a_taken_port_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = int(listener.getsockname()[1])
        synapse, first, second, third, fourth, last = (free_port() for _ in range(6))
        with pytest.raises(StackError, match=rf"port {taken} \(App Server\)") as fault:
            Ports(synapse, first, second, third, fourth, taken, last).check_free(0)
    proposed = str(fault.value).rpartition("--port-offset ")[2]
    assert proposed == "N" or int(proposed) > synapse - Ports().synapse


@pytest.mark.parametrize("offset", [36159, -4500])
def test_offsets_have_limits(offset: int) -> None:
    assert Ports.with_offset(36158).appservice == 65535
    assert Ports.with_offset(-4499).app_server == 1
    with pytest.raises(StackError, match="expected -4499 to 36158"):
        Ports.with_offset(offset)


def test_the_state_is_written_and_read(tmp_path: Path) -> None:
    state = StackState({"url": "h"}, {}, {}, {}, {}, {}, pids={"bridge": 7})
    state.write(tmp_path)
    assert _mode(tmp_path / "stack.json") == 0o600
    assert read_state(tmp_path)["pids"] == {"bridge": 7}
    assert "mcp" not in read_state(tmp_path)
    state.mcp = {"url": "m"}
    state.write(tmp_path)
    assert read_state(tmp_path)["mcp"] == {"url": "m"}
    remove_state(tmp_path)
    with pytest.raises(StackError, match="no stack runs in"):
        read_state(tmp_path)


def test_a_stack_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no stack runs in"):
        read_state(tmp_path)
    (tmp_path / "stack.json").write_text("[]")
    with pytest.raises(StackError, match="expected a JSON object"):
        read_state(tmp_path)


def test_a_data_folder_has_one_stack(tmp_path: Path) -> None:
    in_use = pytest.raises(StackError, match=r"in use .*--port-offset")
    with exclusive(tmp_path), in_use, exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass


def test_a_keeper_is_only_who_holds_its_lock(tmp_path: Path) -> None:
    keeper = KeeperProcess(tmp_path / "k.sock")
    assert keeper.pid() is None
    (tmp_path / "k.sock.pid").write_text(str(os.getpid()))
    assert keeper.pid() is None
    with (tmp_path / "k.sock.lock").open("w") as lock:
        assert keeper.pid() is None
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert keeper.pid() == os.getpid()
    assert keeper.pid() is None


async def test_nobody_is_killed_for_the_number_of_a_keeper_that_is_gone(tmp_path: Path) -> None:
    bystander = await asyncio.create_subprocess_exec("sleep", "3600")  # keeper in name only
    (tmp_path / "k.sock.lock").touch()
    (tmp_path / "k.sock.pid").write_text(str(bystander.pid))
    await KeeperProcess(tmp_path / "k.sock").end(0)
    assert bystander.returncode is None
    bystander.kill()
    assert await bystander.wait() == -9


class Endless:
    """An App Server that answers every page alike."""

    async def request(self, kind: str, **fields: object) -> dict[str, Any]:
        return {"agents": [{"id": f"agent-{number}", "name": "A"} for number in range(100)]}


async def test_a_listing_that_never_ends_is_left() -> None:
    names = await within(list_names(cast("Control", Endless())))
    assert len(names) == 100


@pytest.fixture
async def http() -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def _answering(status: int, body: object = None) -> TestServer:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response(body or {}, status=status)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    return TestServer(application, host="127.0.0.1")


@pytest.mark.parametrize(
    ("status", "key", "message"),
    [
        (401, "sk-secret", r"refused the key: check .*/v1/models answered 401"),
        (403, "none", r"wants a key: set LETTA_MATRIX_MODEL_API_KEY"),
    ],
)
async def test_a_wrong_key_is_said_before_anything_starts(
    http: aiohttp.ClientSession, status: int, key: str, message: str
) -> None:
    async with _answering(status) as server:
        choice = ModelChoice("openai-compatible", "test", key, str(server.make_url("/v1")))
        with pytest.raises(StackError, match=message) as fault:
            await check_endpoint(http, choice)
    assert "sk-secret" not in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_an_endpoint_that_answers_will_do(http: aiohttp.ClientSession, status: int) -> None:
    async with _answering(status) as server:
        url = str(server.make_url("/v1/"))
        await check_endpoint(http, ModelChoice("openai-compatible", "test", "k", url))


async def test_an_endpoint_that_is_not_there_is_named(http: aiohttp.ClientSession) -> None:
    choice = ModelChoice("openai-compatible", "test", "k", "http://127.0.0.1:1/v1")
    with pytest.raises(
        StackError, match=r"GET http://127\.0\.0\.1:1/v1/models: nothing listens at 127"
    ):
        await check_endpoint(http, choice)


async def test_models_without_an_endpoint_of_their_own_are_not_asked(
    http: aiohttp.ClientSession,
) -> None:
    await check_endpoint(http, ModelChoice("openai", "test", "k"))
    await check_endpoint(http, demo_choice(1, "letta-matrix-demo-x"))


async def test_a_second_one_time_login_within_a_minute(
    http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    refusal = {"errcode": "M_LIMIT_EXCEEDED", "error": "Too Many Requests", "access_token": "t"}
    refusal |= {"retry_after_ms": 41_500}
    said: list[str] = []
    async with _answering(429, refusal) as server:
        stack = Stack(Options(tmp_path), tmp_path, said.append, http)
        stack._synapse = Synapse(tmp_path, int(server.make_url("/").port or 0))
        assert await stack._log_in("password") == ("password", None)
    assert said == [
        "no link that logs you in this time (Synapse makes one a minute; the next one in 42 s); "
        "use the password"
    ]


async def test_a_changed_password_is_not_shown(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    refusal = {"errcode": "M_FORBIDDEN", "error": "Invalid username or password"}
    async with _answering(403, refusal) as server:
        stack = Stack(Options(tmp_path), tmp_path, print, http)
        stack._synapse = Synapse(tmp_path, int(server.make_url("/").port or 0))
        assert await stack._log_in("old-word") == (None, None)
    facts = _facts(["Ada"], None)
    del facts.state.users["admin"]["password"]
    text = summary(facts)
    assert "/data/admin.password no longer fits" in " ".join(text.split())
    assert "pass-word" not in text
    assert max(len(line) for line in text.split("\n")) <= 80
    config = write_bridge_files(tmp_path, Ports(), ADMIN, "secret")
    assert "password" not in stack._describe(config, None, "lm_x").users["admin"]


async def test_a_replaced_keeper_is_announced(
    http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    pids: list[int | None] = [7, 7, None, 8]
    said: list[str] = []
    stack = Stack(Options(tmp_path), tmp_path, said.append, http)
    monkeypatch.setattr(
        stack._keeper, "pid", lambda: pids.pop(0) if len(pids) > 1 else pids[0], raising=True
    )
    following = asyncio.create_task(stack.look_after_keeper())
    await clock.until(lambda: stack._pids.get("keeper") == 8)
    for _ in range(3):
        clock.advance(1)
        await settled(following)
    following.cancel()
    assert said == ["keeper ended; the bridge has started it again"]


def _program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: str, path: str = "") -> str:
    program = tmp_path / "my checkout" / ".venv" / "bin" / "letta-matrix"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.touch(mode=0o700)
    monkeypatch.setattr(sys, "argv", [started.replace("BIN", str(program.parent))])
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.setenv("PATH", path.replace("BIN", str(program.parent)) or "/nowhere")
    return str(program)


@pytest.mark.parametrize(
    "started", [".venv/bin/letta-matrix", "BIN/letta-matrix", "/x/__main__.py"]
)
def test_the_program_is_typed_as_it_lies_below_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: str
) -> None:
    _program(tmp_path, monkeypatch, started)
    monkeypatch.chdir(tmp_path / "my checkout")
    assert typed(["chat", "A b"]) == ".venv/bin/letta-matrix chat 'A b'"
    assert is_relative(typed())


def test_the_program_is_typed_in_full_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = _program(tmp_path, monkeypatch, "BIN/letta-matrix")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert shlex.split(typed(["chat"])) == [program, "chat"]
    assert not is_relative(typed())


def test_the_program_is_typed_by_name_where_it_is_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path, monkeypatch, "BIN/letta-matrix", path="BIN")
    assert typed(["chat"]) == "letta-matrix chat"
    assert not is_relative(typed())
    other = tmp_path / "other"
    other.mkdir()
    (other / "letta-matrix").touch(mode=0o700)
    monkeypatch.setenv("PATH", str(other))
    assert typed(["chat"]) != "letta-matrix chat"


@pytest.fixture
def bridges(tmp_path: Path, database: Database) -> Config:
    """The configuration of the bridge that has the test's database open."""
    assert database
    return config_for(tmp_path)


async def test_the_stacks_token_is_made_once(
    tmp_path: Path, bridges: Config, database: Database, directory: AgentDirectory
) -> None:
    path = tmp_path / "admin.token"
    text = await keep_token(path, bridges)
    assert _mode(path) == 0o600
    assert await keep_token(path, bridges) == text == path.read_text().strip()
    store = TokenStore(database)
    (stored,) = await store.all()
    assert text not in repr(stored)
    principal = await Authenticator(bridges, store, directory).identify(text)
    assert principal.agent_id == ""
    assert principal.scopes == frozenset(Scope)


@pytest.mark.parametrize("kept", ["", "nonsense", "\udcff", "lm_" + "0" * 12 + "_" + "x" * 43])
async def test_a_token_that_nobody_knows_is_made_anew(
    tmp_path: Path, bridges: Config, database: Database, kept: str
) -> None:
    path = tmp_path / "admin.token"
    path.write_text(kept, errors="surrogateescape")
    text = await keep_token(path, bridges)
    assert text != kept
    assert len(await TokenStore(database).all()) == 1


async def test_an_expired_token_in_its_place_is_replaced(
    tmp_path: Path, bridges: Config, database: Database
) -> None:
    path = tmp_path / "admin.token"
    for lifetime, stays in ((60.0, True), (-1.0, False)):
        text, token = issue(agent_id="", scopes=frozenset(Scope), lifetime=lifetime)
        await TokenStore(database).add(token)
        path.write_text(text)
        assert (await keep_token(path, bridges) == text) is stays


async def test_a_revoked_token_of_the_stack_is_replaced(
    tmp_path: Path, bridges: Config, database: Database
) -> None:
    path, store = tmp_path / "admin.token", TokenStore(database)
    first = await keep_token(path, bridges)
    assert await store.revoke((await store.all())[0].token_id, 1.0)
    second = await keep_token(path, bridges)
    assert second != first
    assert await keep_token(path, bridges) == second


async def test_a_database_without_tokens_is_a_fault_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"no token can be made: .*: the database cannot be used"):
        await keep_token(tmp_path / "admin.token", config_for(tmp_path))


def _facts(agents: list[str], token: str | None, *, demo: bool = True, usual: bool = True) -> Facts:
    state = StackState(
        homeserver={"url": "http://127.0.0.1:8008"},
        users={"admin": {"user_id": ADMIN, "password": "pass-word"}},
        appservice={},
        chat={"url": "http://127.0.0.1:8004/chat"},
        api={"url": "http://127.0.0.1:8004"},
        app_server={"url": "ws://127.0.0.1:4500"},
        mcp={"url": "http://127.0.0.1:8016/mcp"},
    )
    return Facts(
        state=state,
        login_token=token,
        agents=agents,
        model="the built-in demo model",
        demo=demo,
        data=Path("/data"),
        usual_data=usual,
        seconds=6.4,
    )


def test_the_summary_says_where_and_as_whom_to_log_in() -> None:
    text = summary(_facts(["Meridian", "Ada"], "a/b"))
    assert "http://127.0.0.1:8004/chat#token=a%2Fb" in text
    assert "letta-matrix link" in text
    assert "https://app.cinny.in/login/http%3A%2F%2F127.0.0.1%3A8008/" in text
    ours = ("http://127.0.0.1:8004/docs", "http://127.0.0.1:8016/mcp", "/data/admin.token")
    for said in ("http://127.0.0.1:8008", ADMIN, "pass-word", *ours):
        assert said in text
    assert "homeserver, and enter http://127.0.0.1:8008" in " ".join(text.split())
    assert "OPENAI_API_KEY" in text
    assert max(len(line) for line in text.split("\n")) <= 80


def test_the_summary_has_a_command_that_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(words: list[str]) -> str:
        return shlex.join(["lm", *words])

    monkeypatch.setattr("letta_matrix.stack.summary.typed", typed)
    lines = summary(_facts(["My agent"], None)).split("\n")
    assert "  lm chat 'My agent' \"hello\"" in lines
    lines = summary(_facts(["Ada"], None, usual=False)).split("\n")
    assert '  lm chat --data /data Ada "hello"' in lines


def test_the_summary_without_what_is_missing() -> None:
    text = summary(_facts([], None, demo=False))
    assert "#token=" not in text
    assert "log in with the user and password" in text
    assert "none yet" in text
    assert "OPENAI_API_KEY" not in text
    facts = _facts([], None)
    facts.state.mcp.clear()
    without_mcp = summary(facts)
    assert "MCP" not in without_mcp
    assert "/data/admin.token" in without_mcp


def test_the_summary_does_not_list_a_thousand_agents() -> None:
    assert "and 992 more" in summary(_facts([f"a{n}" for n in range(1000)], None))


def test_a_stack_that_was_killed_is_not_believed(tmp_path: Path) -> None:
    """Its file stays, and its ports may be somebody else's."""
    StackState({"url": "h"}, {}, {}, {}, {}, {}).write(tmp_path)
    with exclusive(tmp_path):
        assert read_state(tmp_path)["homeserver"] == {"url": "h"}
    with pytest.raises(StackError, match="no stack runs in"):
        read_state(tmp_path)
