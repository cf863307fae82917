"""The command line: quick help, one-line faults, files that `init` writes."""

import asyncio
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from tests.cli_kit import letta_matrix
from typer.testing import CliRunner

from letta_matrix import __version__
from letta_matrix.cli import options, overview
from letta_matrix.cli.account import human_of
from letta_matrix.cli.commands import app
from letta_matrix.cli.faults import BadInput, Failure
from letta_matrix.config import load_config
from letta_matrix.runtimes.keeper import process as keeper_process
from letta_matrix.stack.bridge_config import write_bridge_files
from letta_matrix.stack.ports import Ports
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.database import Database, database_url

AGENT = "@agent_1:localhost"
COMMANDS = (
    *("up", "run", "init", "chat", "link", "agents", "status", "doctor", "tokens"),
    *("export-mappings", "import-mappings", "forget"),
)


ANSWERS = (
    *("--homeserver", "http://localhost", "--domain", "test"),
    *("--runtime", "ws://localhost:4500", "--admin", "@me:test"),
)


def _started(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_help_lists_the_commands_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from letta_matrix.cli.main import main\n"
        "sys.argv = ['letta-matrix', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'aiohttp', 'pydantic', 'sqlalchemy', 'mautrix', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = _started("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"  {command} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("run", "-c", "none.yaml"), 2, "none.yaml: no such file"),
        (("chat", "Ada"), 1, "no stack runs in"),
        (("link",), 1, "no stack runs in"),
        (("chat", "Ada", "--data", "elsewhere"), 1, "no stack runs in elsewhere"),
        (("agents",), 2, "no config.yaml here and none in"),
        (("agents", "--data", "none"), 2, "none/config.yaml: no such file"),
        (("status", "--data", "a", "-c", "b"), 2, "give one of them"),
        (("chat", "Ada", "hi", "--timeout", "-1"), 2, "should be above 0"),
        (("chat", "Ada", "hi", "--timeout", "nan"), 2, "should be above 0"),
        (("keeper", "--socket", "s", "--idle", "0"), 2, "should be above 0"),
        (("keeper", "--socket", "s", "--buffer", "-1"), 2, "should be above 0"),
        (("up", "--port-offset", "70000"), 2, "1 to 65535; expected -4499 to 36158"),
        (("up", "--port-offset", "-9000"), 2, "1 to 65535; expected -4499 to 36158"),
        (("up", "--data", "/dev/null/x"), 2, "name another folder by --data"),
        (("up", "--model-api-key", "sk-secret"), 2, "needs --model-base-url"),
        (("up", "--model-base-url", "h"), 2, "expected http://HOST/v1"),
        (("init", "--homeserver", "localhost"), 2, "starts with http:// or https://"),
        (("init", "--homeserver", "http://h:x"), 2, "expected a URL"),
        (("init", *ANSWERS, "--directory", "/dev/null/x"), 1, "there is no folder /dev/null/x"),
        (("nonsense",), 2, "No such command"),
    ],
)
def test_faults_are_one_line(
    tmp_path: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    done = letta_matrix(*arguments, cwd=tmp_path)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "sk-secret" not in done.stderr


def test_the_program_by_itself(tmp_path: Path) -> None:
    done = _started("-m", "letta_matrix", "--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"letta-matrix {__version__}\n")
    done = _started("-m", "letta_matrix", "link", "--data", "none", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"letta-matrix: no stack runs in none.*\n", done.stderr)


@pytest.mark.parametrize("module", ["typer", "letta_matrix.cli.run", "letta_matrix.app.bridge"])
def test_ctrl_c_while_it_loads_ends_it_in_silence(tmp_path: Path, module: str) -> None:
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Finder)\n"
        "sys.argv = ['letta-matrix', 'run']\n"
        "from letta_matrix.cli.main import main\n"
        "main()\n"
    )
    done = _started("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_hints_name_the_program_as_it_was_called(tmp_path: Path) -> None:
    program = tmp_path / ".venv" / "bin" / "letta-matrix"
    program.parent.mkdir(parents=True)
    program.symlink_to(Path(sys.executable).with_name("letta-matrix"))
    hints = {
        "link": "start one by `.venv/bin/letta-matrix up`",
        "agents": "`.venv/bin/letta-matrix up`, write one by `.venv/bin/letta-matrix init`",
    }
    for command, hint in hints.items():
        done = subprocess.run(
            [".venv/bin/letta-matrix", command],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "XDG_DATA_HOME": str(tmp_path)},
            check=False,
        )
        assert hint in done.stderr
    # In a checkout there may be more to be installed.
    (tmp_path / "Makefile").touch()
    made = subprocess.run(
        [str(program), "link"], capture_output=True, text=True, cwd=tmp_path.parent, check=False
    )
    assert f"start one by `make -C {tmp_path} up`" in made.stderr


def test_the_report_is_shown_in_short_lines() -> None:
    report = {
        "status": "degraded",
        "ready": False,
        "troubles": ["the runtime local is away"],
        "agents_in_trouble": 1,
        "counters": {"turns_done": 2},
        "runtimes": {"local": {"gaps": 1}, "other": {}},
        "turns_waiting": 0,
    }
    assert overview.for_people(report).split("\n") == [
        "status: degraded",
        "ready: no",
        "troubles:",
        "  the runtime local is away",
        "agents in trouble: 1",
        "counters:",
        "  turns_done: 2",
        "runtimes:",
        "  local:",
        "    gaps: 1",
        "  other: nothing odd has come from it",
        "turns waiting: 0",
        overview._WHY,
    ]
    checks = [
        {"name": "database", "state": "ok", "says": "", "remedy": ""},
        {"name": "disk", "state": "trouble", "says": "it is full", "remedy": "make room"},
    ]
    checks.append({"name": "looks", "state": "warning", "says": "no pictures", "remedy": ""})
    told = {"troubles": ["it is full: make room"], "warnings": ["no pictures"], "checks": checks}
    assert overview.for_people(told).split("\n") == [
        "troubles:",
        "  disk: it is full",
        "    what to do: make room",
        "warnings:",
        "  looks: no pictures",
    ]
    well = {"troubles": [], "warnings": [], "replica": None, "checks": checks[:1]}
    assert overview.for_people(well) == "troubles: none\nwarnings: none\nreplica: none"
    assert overview._WHY not in overview.for_people({**report, "agents_in_trouble": 0})


def test_replicas_are_shown_one_a_line() -> None:
    one: dict[str, Any] = {"replica": "aa", "state": "active", "version": "1"}
    one |= {"seen_seconds_ago": 0.4, "reaches_homeserver": None}
    other = {**one, "replica": "bb", "state": "standby", "reaches_homeserver": False}
    gone = {**one, "replica": "cc", "state": "silent", "seen_seconds_ago": 90.4, "address": "c:1"}
    told = {"replica": "bb", "epoch": 3, "replicas": [one, other, gone]}
    assert overview.for_people({"replica": told}).split("\n") == [
        "replica:",
        "  replica: bb",
        "  epoch: 3",
        "  replicas:",
        "    aa: active, version 1",
        "    bb: standby, version 1, does not reach the homeserver (this one)",
        "    cc at c:1: silent, version 1, last heard of 90 s ago",
    ]


@pytest.mark.parametrize(
    ("hostname", "base"),
    [
        ("127.0.0.1", "http://127.0.0.1:8004"),
        ("0.0.0.0", "http://127.0.0.1:8004"),
        ("", "http://127.0.0.1:8004"),
        ("::", "http://[::1]:8004"),
        ("::1", "http://[::1]:8004"),
        ("fe80::1%eth0", "http://[fe80::1%25eth0]:8004"),
        ("bridge.example", "http://bridge.example:8004"),
    ],
)
def test_where_the_bridge_is_asked(hostname: str, base: str) -> None:
    assert overview._base(hostname, 8004) == base


def test_a_password_that_is_not_known_any_more() -> None:
    state = {"users": {"admin": {"user_id": "@admin:localhost"}}}
    with pytest.raises(Failure, match=r"write the new one into admin\.password"):
        human_of(state)


def _init(tmp_path: Path, *more: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return letta_matrix("init", "--directory", str(tmp_path), *more, cwd=tmp_path, stdin=stdin)


FLAGS = (
    *("--homeserver", "https://matrix.example.org/", "--domain", "example.org"),
    *("--runtime", "ws://127.0.0.1:4500", "--admin", "@you:example.org"),
)


def test_init_by_flags(tmp_path: Path) -> None:
    done = _init(tmp_path, *FLAGS)
    assert done.returncode == 0, done.stderr
    assert "app_service_config_files" in done.stdout
    config = load_config(tmp_path / "config.yaml", {})
    assert config.homeserver.url == "https://matrix.example.org"
    assert config.role_of("@you:example.org") == "admin"
    assert config.agents.room_members == ["@you:example.org"]
    made = yaml.safe_load((tmp_path / "registration.yaml").read_text())
    assert made["as_token"] == config.appservice.as_token.get_secret_value()
    assert made["as_token"] not in done.stdout
    for name in ("config.yaml", "registration.yaml"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_init_asks(tmp_path: Path) -> None:
    done = _init(tmp_path, stdin="http://hs:8008\nhs.example\n\n@me:hs.example\n")
    assert done.returncode == 0, done.stderr
    config = load_config(tmp_path / "config.yaml", {})
    assert config.homeserver.domain == "hs.example"
    assert config.runtimes[0].model_dump()["url"] == "ws://127.0.0.1:4500"


def test_init_without_answers_names_the_flags(tmp_path: Path) -> None:
    done = _init(tmp_path)
    assert done.returncode == 2
    assert "init --help` lists the flags" in done.stderr


@pytest.mark.parametrize(
    ("appservice", "hostname"),
    [
        ("http://127.0.0.1:29377", "127.0.0.1"),
        ("http://localhost:1", "127.0.0.1"),
        ("http://bridge.host:29377", "0.0.0.0"),
    ],
)
def test_init_listens_where_the_homeserver_looks(
    tmp_path: Path, appservice: str, hostname: str
) -> None:
    done = _init(tmp_path, *FLAGS, "--appservice", appservice)
    assert load_config(tmp_path / "config.yaml", {}).appservice.hostname == hostname
    assert ("listen on all addresses" in done.stdout) is (hostname == "0.0.0.0")
    assert "auto_accept_invites" not in done.stdout


@pytest.mark.parametrize(
    ("appservice", "told"),
    [("http://[::1]:1", "no address of IPv6"), ("http://a:1/x", "leave off /x")],
)
def test_init_refuses_where_no_homeserver_gets_to(
    tmp_path: Path, appservice: str, told: str
) -> None:
    done = _init(tmp_path, *FLAGS, "--appservice", appservice)
    assert (done.returncode, told in done.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_init_takes_the_address_of_what_answers(tmp_path: Path) -> None:
    address = "https://hs.example/base/_matrix/client/versions"
    _init(tmp_path, *FLAGS, "--homeserver", address)
    assert load_config(tmp_path / "config.yaml", {}).homeserver.url == "https://hs.example/base"


def test_the_configuration_is_looked_for_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="letta-matrix init"):
        options.config_path(None)
    usual = tmp_path / "xdg" / "letta-matrix" / "config.yaml"
    usual.parent.mkdir(parents=True)
    usual.touch()
    assert options.config_path(None) == usual
    assert options.config_path(None, Path("d")) == Path("d/config.yaml")
    (tmp_path / "config.yaml").touch()
    assert options.config_path(None) == Path("config.yaml")
    assert options.config_path(Path("c.yaml")) == Path("c.yaml")


def test_the_keeper_explains_itself_and_takes_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = letta_matrix("keeper", "--help", cwd=tmp_path)
    assert "Hold the connections to an App Server" in done.stdout
    given: list[object] = []

    def main(arguments: list[str]) -> int:
        given.append(keeper_process._parser().parse_args(arguments))
        return 0

    monkeypatch.setattr(keeper_process, "main", main)
    both = ["--idle", "3", "--buffer", "5"]
    local = ["--socket", "k.sock", *both]
    remote = ["--listen", "127.0.0.1:4510", "--token-file", "t", "--app-server", "ws://x", *both]
    remote += ["--app-server-token-file", "a"]
    for flags in (local, remote):
        with pytest.raises(SystemExit, match=r"^0$"):
            typer.main.get_command(app)(["keeper", *flags])
        assert given.pop() == keeper_process._parser().parse_args(flags)
        assert all(flag in done.stdout for flag in flags if flag.startswith("--"))


def test_init_writes_the_registration_anew_with_its_tokens(tmp_path: Path) -> None:
    _init(tmp_path, *FLAGS)
    config, made = tmp_path / "config.yaml", tmp_path / "registration.yaml"
    before = yaml.safe_load(made.read_text())
    assert "already" in _init(tmp_path, "--registration-only").stdout
    text = config.read_text().replace("http://127.0.0.1:29377", "http://bridge.lan:29377")
    config.write_text(text.replace("port: 29377", "port: 29377\n  bot_username: robot"))
    written = config.read_bytes()
    done = _init(tmp_path, "--registration-only")
    assert (done.returncode, done.stderr) == (0, "")
    assert "restart" in done.stdout
    after = yaml.safe_load(made.read_text())
    changed = {"url": "http://bridge.lan:29377", "sender_localpart": "robot"}
    assert after == {**before, **changed}
    assert (config.read_bytes(), stat.S_IMODE(made.stat().st_mode)) == (written, 0o600)


def test_init_writes_no_registration_of_a_faulty_configuration(tmp_path: Path) -> None:
    done = _init(tmp_path, "--registration-only")
    assert (done.returncode, "config.yaml" in done.stderr) == (2, True)
    _init(tmp_path, *FLAGS)
    kept = (tmp_path / "registration.yaml").read_bytes()
    done = _init(tmp_path, "--registration-only", "--homeserver", "http://h")
    assert (done.returncode, "change it there" in done.stderr) == (2, True)
    with (tmp_path / "config.yaml").open("a") as file:
        file.write("nonsense: 1\n")
    done = _init(tmp_path, "--registration-only")
    assert (done.returncode, "nonsense" in done.stderr) == (2, True)
    assert (tmp_path / "registration.yaml").read_bytes() == kept


def test_init_replaces_nothing_unless_told(tmp_path: Path) -> None:
    _init(tmp_path, *FLAGS)
    before = (tmp_path / "config.yaml").read_text()
    refused = _init(tmp_path, *FLAGS)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert (tmp_path / "config.yaml").read_text() == before
    assert _init(tmp_path, *FLAGS, "--force").returncode == 0
    assert (tmp_path / "config.yaml").read_text() != before


def test_agents_and_status_of_a_bridge_that_does_not_run(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        ports = Ports(api=nobody.getsockname()[1])
        config = write_bridge_files(tmp_path, ports, "@admin:localhost", "secret")
        missing = letta_matrix("agents", cwd=tmp_path).stderr
        assert (
            f"no database at {tmp_path / 'letta-matrix.db'}; start the bridge once: by `" in missing
        )
        asyncio.run(_insert(config.directory, Agent("agent-1", "local", "Ada\x1b[2J", AGENT)))
        # A name is no order to the terminal.
        assert "Ada\ufffd[2J\n" in letta_matrix("agents", cwd=tmp_path).stdout
        (tmp_path / "stack.json").write_text("{}")
        chat = letta_matrix("chat", "Nobody", "x", "--data", str(tmp_path), cwd=tmp_path)
        assert chat.returncode == 2
        assert "no agent is named Nobody; there are: Ada" in chat.stderr
        status = letta_matrix("status", "--json", cwd=tmp_path)
    assert status.returncode == 1
    assert json.loads(status.stdout)["status"] == "down"


def _commands(command: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """How the program and all its commands and sub-commands are called."""
    yield path
    for name, one in getattr(command, "commands", {}).items():
        yield from _commands(one, *path, name)


def test_every_command_takes_both_ways_to_ask_for_help() -> None:
    program, run = typer.main.get_command(app), CliRunner()
    paths = [*_commands(program)]
    assert ("tokens", "create") in paths
    for path in paths:
        short, long = (run.invoke(app, [*path, flag]) for flag in ("-h", "--help"))
        assert (short.exit_code, short.output) == (0, long.output), path
        assert "Usage: " in long.output


async def _insert(directory: Path, agent: Agent) -> None:
    database = Database(database_url("sqlite:///letta-matrix.db", directory))
    await database.open()
    await AgentDirectory(database).reserve([agent])
    await database.close()
