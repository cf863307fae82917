"""What `up` writes where agents can put links: it reaches more than they do, and follows none."""

import json
import os
from pathlib import Path

import pytest

from letta_matrix.stack.app_server import AppServerProcess
from letta_matrix.stack.files import read_beneath
from letta_matrix.stack.models import ModelChoice, ProviderFile

CHOICE = ModelChoice("openai-compatible", "the endpoint", "key-1", "http://127.0.0.1:9/v1", "m")
PARTS = (".letta", "lc-local-backend", "providers")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "data" / "letta"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    made = tmp_path / "victim"
    made.mkdir()
    return made


def kept(home: Path) -> str:
    path = home.joinpath(*PARTS, "auth.json")
    assert path.stat().st_mode & 0o777 == 0o600
    return str(json.loads(path.read_text())["providers"][CHOICE.provider]["auth"]["key"])


def test_nothing_in_the_way(home: Path) -> None:
    assert ProviderFile(home).connect(CHOICE) == []
    assert kept(home) == CHOICE.key
    connected = ProviderFile(home).connected()
    assert connected is not None
    assert connected.key == CHOICE.key


@pytest.mark.parametrize("depth", range(len(PARTS)))
@pytest.mark.parametrize("kind", ["link", "dangling", "file"])
def test_a_link_in_place_of_a_folder(home: Path, victim: Path, depth: int, kind: str) -> None:
    at = home.joinpath(*PARTS[: depth + 1])
    at.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        at.write_text("")
    else:
        at.symlink_to(victim if kind == "link" else victim / "new")
    (aside,) = ProviderFile(home).connect(CHOICE)
    assert aside.name.startswith(f"{PARTS[depth]}.aside-")
    assert list(victim.iterdir()) == []
    assert kept(home) == CHOICE.key
    # And the next start goes on as if nothing had been.
    assert ProviderFile(home).connect(CHOICE) == []


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_something_in_place_of_the_file(home: Path, victim: Path, kind: str) -> None:
    at = home.joinpath(*PARTS, "auth.json")
    at.parent.mkdir(parents=True)
    others = victim / "auth.json"
    others.write_text('{"providers": {"x": {"auth": {"key": "theirs"}}}}')
    if kind == "link":
        at.symlink_to(others)
    elif kind == "folder":
        (at / "full").mkdir(parents=True)
    else:
        os.mkfifo(at)
    assert ProviderFile(home).connected() is None
    ProviderFile(home).connect(CHOICE)
    assert kept(home) == CHOICE.key
    assert "theirs" in others.read_text()
    assert not at.is_symlink()


@pytest.mark.parametrize("target", ["victim", "nothing"])
def test_the_place_for_temporary_files(home: Path, victim: Path, target: str) -> None:
    (home / "tmp").symlink_to(victim.with_name(target))
    server = AppServerProcess(home, 1, workspace=home.parent / "workspace")
    server.make_folders()
    assert not (home / "tmp").is_symlink()
    assert (home / "tmp").is_dir()
    assert list(victim.iterdir()) == []


def test_what_is_read_is_read_through_no_link(home: Path, victim: Path) -> None:
    (victim / "secret").write_text("secret")
    (home / "inner").symlink_to(victim)
    assert read_beneath(home, Path("inner/secret")) is None
    assert read_beneath(victim, Path("secret")) == "secret"
    assert read_beneath(victim, Path("missing/secret")) is None
