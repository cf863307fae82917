"""Rules in the App Server's settings, which an agent can come to write, are not passed over."""

import json
from pathlib import Path

import pytest

from letta_matrix.stack.app_server import AppServerProcess

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
