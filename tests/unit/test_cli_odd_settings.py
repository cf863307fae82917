"""What commands say where the configuration cannot be used, or what it names cannot."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli_kit import letta_matrix
from tests.servers import free_port

from letta_matrix.config import ConfigError

SECRET = "Zq7w-secret"
SOUND: dict[str, Any] = {
    "homeserver": {"url": "http://127.0.0.1:9", "domain": "localhost"},
    "appservice": {"as_token": SECRET, "hs_token": SECRET},
    "runtimes": [{"type": "memory"}],
    "permissions": {"localhost": "user"},
    "api": {"port": 9},
}


def said(path: Path, *command: str) -> tuple[int, str]:
    """The exit status, and all that was written."""
    done = letta_matrix(*command, "-c", str(path), cwd=path.parent)
    text = done.stdout + done.stderr
    assert "Traceback" not in text
    assert SECRET not in text
    return done.returncode, text


@pytest.mark.parametrize("command", ["run", "doctor", "status", "backup"])
def test_a_configuration_that_cannot_be_used(command: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    file = tmp_path / "config.yaml"
    file.write_text(f'appservice: as_token:{SECRET}\nhomeserver: {{url: "\\e[2J"}}\n')
    arguments = [str(tmp_path / "out.age")] if command == "backup" else []
    status, text = said(file, command, *arguments)
    assert status == 2
    assert "`appservice` should be a section" in " ".join(text.split())
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("changes", "status", "expected"),
    [
        ({"api": {"hostname": "no-such-host.invalid"}}, 1, "cannot listen on no-such-host.invalid"),
        ({"database": {"url": "sqlite:////dev/null/x.db"}}, 1, "/dev/null"),
        ({"homeserver": {"ca_file": "config.yaml"}}, 2, "should hold certificates in PEM"),
        ({"homeserver": {"ca_file": "."}}, 2, "`homeserver.ca_file` cannot be read"),
    ],
)
def test_what_cannot_be_had(
    changes: dict[str, Any], status: int, expected: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    file = tmp_path / "config.yaml"
    ports = {
        "appservice": {**SOUND["appservice"], "port": free_port()},
        "api": {"port": free_port()},
        "mcp": {"port": free_port(), "websocket_port": free_port()},
    }
    sections = SOUND | ports
    changed = {name: sections.get(name, {}) | section for name, section in changes.items()}
    file.write_text(yaml.safe_dump(sections | changed))
    file.chmod(0o600)
    ended, text = said(file, "run")
    assert (ended, expected in text) == (status, True), text


def test_a_fault_is_fit_for_any_terminal() -> None:
    assert str(ConfigError("a\x1b[2J\nb\udcff")) == "a\ufffd[2J\nb\ufffd"
