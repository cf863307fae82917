"""The command line: quick help, one-line faults, files that `init` writes."""

import asyncio
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from letta_matrix.cli.transcript import Transcript
from letta_matrix.config import load_config
from letta_matrix.matrix.content import edit_content, text_content
from letta_matrix.stack.bridge_config import write_bridge_files
from letta_matrix.stack.ports import Ports
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.database import Database, database_url

AGENT = "@agent_1:localhost"
COMMANDS = ("up", "run", "init", "chat", "agents", "status", "export-mappings", "import-mappings")


def _letta_matrix(*arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "letta_matrix", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "XDG_DATA_HOME": str(cwd / "xdg")},
        timeout=60,
        check=False,
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
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 5
    for command in COMMANDS:
        assert f"  {command} " in done.stdout
    assert "keeper" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("run", "-c", "none.yaml"), 2, "none.yaml: no such file"),
        (("chat", "Ada"), 1, "no stack runs in"),
        (("chat", "Ada", "--data", "elsewhere"), 1, "no stack runs in elsewhere"),
        (("agents",), 2, "config.yaml: no such file"),
        (("up", "--port-offset", "99999"), 1, "ports end at 65535"),
        (("up", "--model-api-key", "sk-secret"), 1, "needs --model-base-url"),
        (("init", "--homeserver", "localhost"), 2, "expected a URL that starts with http://"),
        (("init", "--homeserver", "http://h:x"), 2, "expected a URL"),
        (("nonsense",), 2, "No such command"),
    ],
)
def test_faults_are_one_line(
    tmp_path: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    done = _letta_matrix(*arguments, cwd=tmp_path)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "sk-secret" not in done.stderr


def _init(tmp_path: Path, *more: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return _letta_matrix("init", "--directory", str(tmp_path), *more, cwd=tmp_path, stdin=stdin)


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
    assert "--help for flags" in done.stderr


def test_init_replaces_nothing_unless_told(tmp_path: Path) -> None:
    _init(tmp_path, *FLAGS)
    before = (tmp_path / "config.yaml").read_text()
    refused = _init(tmp_path, *FLAGS)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert (tmp_path / "config.yaml").read_text() == before
    assert _init(tmp_path, *FLAGS, "--force").returncode == 0
    assert (tmp_path / "config.yaml").read_text() != before


ORIGINAL = {
    "agent-e54f": {
        "agent_id": "agent-e54f",
        "agent_name": "Old Friend",
        "matrix_user_id": "@agent_e54f:localhost",
        "matrix_password": "password",
        "created": True,
        "room_id": "!old:localhost",
        "room_created": True,
        "invitation_status": {"@admin:localhost": "joined"},
    }
}


def test_mappings_travel_both_ways(tmp_path: Path) -> None:
    write_bridge_files(tmp_path, Ports(), "@admin:localhost")
    (tmp_path / "original.json").write_text(json.dumps(ORIGINAL))
    imported = _letta_matrix("import-mappings", "original.json", cwd=tmp_path)
    assert imported.stdout == "adopted 1 agents; 0 were known already\n", imported.stderr
    again = _letta_matrix("import-mappings", "original.json", cwd=tmp_path)
    assert again.stdout == "adopted 0 agents; 1 were known already\n"
    exported = _letta_matrix("export-mappings", "copy.json", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    copy = json.loads((tmp_path / "copy.json").read_text())
    assert copy == {"agent-e54f": {**ORIGINAL["agent-e54f"], "matrix_password": ""}}
    listed = json.loads(_letta_matrix("agents", "--json", cwd=tmp_path).stdout)
    assert listed[0]["room_id"] == "!old:localhost"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "expected an object"),
        ('{"a": 1}', "a: expected an object"),
        ('{"a": {"matrix_user_id": "@a:elsewhere"}}', "expected a user of localhost"),
    ],
)
def test_mappings_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    write_bridge_files(tmp_path, Ports(), "@admin:localhost")
    (tmp_path / "bad.json").write_text(text)
    done = _letta_matrix("import-mappings", "bad.json", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


def test_agents_and_status_of_a_bridge_that_does_not_run(tmp_path: Path) -> None:
    config = write_bridge_files(tmp_path, Ports.with_offset(20000), "@admin:localhost")
    assert "start the bridge once" in _letta_matrix("agents", cwd=tmp_path).stderr
    asyncio.run(_insert(config.directory, Agent("agent-1", "local", "Ada", AGENT)))
    assert "Ada" in _letta_matrix("agents", cwd=tmp_path).stdout
    status = _letta_matrix("status", "--json", cwd=tmp_path)
    assert status.returncode == 1
    assert json.loads(status.stdout)["status"] == "down"


async def _insert(directory: Path, agent: Agent) -> None:
    database = Database(database_url("sqlite:///letta-matrix.db", directory))
    await database.open()
    await AgentDirectory(database).reserve([agent])
    await database.close()


def _event(event_id: str, content: dict[str, Any], sender: str = AGENT) -> dict[str, Any]:
    return {
        "type": "m.room.message",
        "event_id": event_id,
        "sender": sender,
        "content": content,
    }


MARK = {"agent_id": "agent-1", "in_reply_to": "$q"}


def test_an_answer_grows_in_the_terminal() -> None:
    transcript = Transcript(AGENT, "$q")
    growing = [
        _event("$0", text_content("said by another", marker=MARK), "@other:localhost"),
        _event("$1", text_content("One", marker=MARK, live=True)),
        _event("$2", edit_content("One two", target_event_id="$1", marker=MARK, live=True)),
        _event("$3", edit_content("One two three.", target_event_id="$1", marker=MARK)),
    ]
    printed = [transcript.take(event) for event in growing[:3]]
    assert not transcript.finished
    printed.append(transcript.take(growing[3]))
    assert printed == ["", "One", " two", " three."]
    assert transcript.finished


def test_an_answer_that_was_rewritten_is_shown_again() -> None:
    transcript = Transcript(AGENT, "$q")
    transcript.take(_event("$1", text_content("Wrong", marker=MARK, live=True)))
    edit = edit_content("Right", target_event_id="$1", marker=MARK)
    assert transcript.take(_event("$2", edit)) == "\nRight"


def test_answers_to_others_are_not_shown() -> None:
    transcript = Transcript(AGENT, "$q")
    other = {"in_reply_to": "$other"}
    assert transcript.take(_event("$1", text_content("No", marker=other))) == ""
    assert transcript.take(_event("$2", {"msgtype": 5, "m.relates_to": "x"})) == ""
    assert not transcript.finished
