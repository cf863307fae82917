"""Rules in the App Server's settings, which an agent can come to write, are not passed over."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from letta_matrix.stack.app_server import AppServerProcess
from letta_matrix.stack.confine import Reach

FILES = (
    "letta/.letta/settings.json",
    "letta/.config/letta/settings.json",
    "workspace/.letta/settings.json",
    "workspace/.letta/settings.local.json",
)


@pytest.mark.parametrize("name", FILES)
def test_what_runs_unasked_is_found(tmp_path: Path, name: str) -> None:
    server = AppServerProcess(tmp_path / "letta", 1, workspace=tmp_path / "workspace")
    assert server.unasked() == {}
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"permissions": {"allow": ["Bash(*)"], "ask": ["Read"]}}))
    assert server.unasked() == {path: ["Bash(*)"]}


@pytest.mark.parametrize("text", ["", "[", "[]", '{"permissions": 1}', "{}", "\udcff"])
def test_settings_that_are_none_say_nothing(tmp_path: Path, text: str) -> None:
    server = AppServerProcess(tmp_path / "letta", 1)
    path = tmp_path / FILES[0]
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert server.unasked() == {}


@pytest.mark.parametrize("kind", ["rules", "hooks", "a link", "a pipe"])
def test_each_start_takes_it_out(tmp_path: Path, kind: str) -> None:
    """Confined: what is a link leads to nothing of others."""
    settings, other = tmp_path / "settings.json", tmp_path / "other.json"
    bad: dict[str, object] = {"permissions": {"allow": ["Bash(*)"], "deny": ["x"]}, "theme": "dark"}
    if kind == "hooks":
        hooks = {"PermissionRequest": [{"matcher": "*"}]}
        bad = {"hooks": hooks, "permissions": {"deny": ["x"]}, "theme": "dark"}
    other.write_text(json.dumps(bad))
    if kind == "a link":
        settings.symlink_to(other)
    elif kind == "a pipe":
        os.mkfifo(settings)
    else:
        settings.write_text(other.read_text())
    argv = Reach(write=[tmp_path]).around(("/bin/true",), clean=[settings])
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if kind in ("rules", "hooks"):
        left = json.loads(settings.read_text())
        assert left == {"permissions": {"deny": ["x"]}, "theme": "dark"}
    else:
        assert not settings.exists()
    assert json.loads(other.read_text()) == bad


def test_each_start_makes_conversations_strict(tmp_path: Path) -> None:
    """A schedule runs in the mode that stands there, and agents' code could have written it."""
    home = tmp_path / "letta"
    server = AppServerProcess(home, 1, workspace=tmp_path / "workspace")
    path = home / ".letta" / "remote-settings.json"
    assert path in server.settings
    path.parent.mkdir(parents=True)
    modes = {"conversation:1": {"mode": "unrestricted"}, "conversation:2": {"mode": "strict"}}
    path.write_text(json.dumps({"cwdMap": {}, "permissionModeMap": modes | {"odd": 7}}))
    argv = Reach(write=[home]).around(("/bin/true",), clean=[path])
    subprocess.run(argv, check=True)
    left = json.loads(path.read_text())
    assert left["cwdMap"] == {}
    assert left["permissionModeMap"]["conversation:1"] == {"mode": "strict"}
    assert left["permissionModeMap"]["conversation:2"] == {"mode": "strict"}


UNASKED: list[tuple[dict[str, object], list[str]]] = [
    ({"permissions": {"mode": "unrestricted"}}, ["mode unrestricted"]),
    ({"agents": [{"agentId": "a", "mcpServers": [{"command": "x"}]}, 1]}, ["mcpServers"]),
    ({"mcpServers": {"x": {"command": "x"}}}, ["mcpServers"]),
    ({"agents": [{"agentId": "a", "mcpServers": []}], "permissions": {"mode": None}}, []),
]


@pytest.mark.parametrize(("settings", "found"), UNASKED)
def test_modes_and_servers_are_taken_out_too(
    tmp_path: Path, settings: dict[str, object], found: list[str]
) -> None:
    server = AppServerProcess(tmp_path / "letta", 1, workspace=tmp_path / "workspace")
    path = tmp_path / FILES[0]
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(settings))
    assert server.unasked() == ({path: found} if found else {})
    argv = Reach(write=[tmp_path]).around(("/bin/true",), clean=[path])
    subprocess.run(argv, check=True)
    assert server.unasked() == {}


def test_what_up_writes_to_is_out_of_the_agents_reach(tmp_path: Path) -> None:
    server = AppServerProcess(tmp_path / "letta", 1, workspace=tmp_path / "workspace")
    assert server.log.parent == tmp_path
    argv = Reach().around(("/bin/true",))
    assert argv[1:3] == ("-I", "-S"), "nothing that was installed runs before it is confined"
