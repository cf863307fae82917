"""What agents wrote into their home before a start of the App Server, and what it would run."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from letta_matrix.stack.app_server import AppServerProcess
from letta_matrix.stack.confine import Reach

Git = Callable[..., "subprocess.CompletedProcess[str]"]

OWN = """[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = false
\tlogallrefupdates = true
[letta]
\tagentId = agent-local-1
[user]
\temail = agent-local-1@letta.com
\tname = Letta Agent
[commit]
\tgpgsign = false
"""


@pytest.fixture
def server(tmp_path: Path) -> AppServerProcess:
    made = AppServerProcess(tmp_path / "letta", 1, workspace=tmp_path / "workspace")
    made.make_folders()
    return made


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A program of an agent's; `trap.sprung` is there once it ran."""
    program = tmp_path / "trap"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/trap.sprung\ncat\n")
    program.chmod(0o700)
    return program


@pytest.fixture
def git(server: AppServerProcess) -> Git:
    """Runs git as the App Server does, in a repository of the agents'."""
    folder = server.home / ".letta" / "memory"
    folder.mkdir(parents=True)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ("git", *arguments),
            check=False,
            cwd=folder,
            env=dict(server.command.env),
            capture_output=True,
            text=True,
        )

    assert run("init", "-q").returncode == 0
    (folder / ".git" / "config").write_text(OWN)
    (folder / "note.md").write_text("hi\n")
    return run


def sprung(trap: Path) -> bool:
    return trap.with_name("trap.sprung").exists()


def work(git: Git) -> None:
    """What the App Server does with a memory."""
    for line in ("status --porcelain", "add -A", "commit -q -m one", "log -1", "status", "diff"):
        done = git(*line.split())
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("where", [".gitconfig", ".config/git/config", ".letta/memory/.git/config"])
@pytest.mark.parametrize(
    "setting",
    ["[core]\n\tfsmonitor = {}\n", "[commit]\n\tgpgSign = true\n[gpg]\n\tprogram = {}\n"],
)
def test_git_runs_no_program_of_its_settings(
    server: AppServerProcess, git: Git, trap: Path, where: str, setting: str
) -> None:
    path = server.home / where
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    path.write_text(before + setting.format(trap))
    work(git)
    assert not sprung(trap)


@pytest.mark.parametrize("hook", ["pre-commit", "post-commit", "post-index-change"])
def test_git_runs_no_hooks(server: AppServerProcess, git: Git, trap: Path, hook: str) -> None:
    hooks = server.home / ".letta" / "memory" / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / hook).symlink_to(trap)
    work(git)
    assert not sprung(trap)


def test_python_runs_nothing_of_the_home(server: AppServerProcess, trap: Path) -> None:
    assert server.command.env["PYTHONNOUSERSITE"] == "1"
    assert server.command.env["HOME"] == str(server.home)


def start(server: AppServerProcess) -> None:
    """What a start does first."""
    reach = Reach(write=[server.home])
    argv = reach.around(("/bin/true",), repositories=server.home / ".letta")
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "setting",
    [
        '[filter "x"]\n\tclean = {}\n',
        '[filter "x"]\n\tclean = \\\n{}\n',
        '[user]\n\tname = a\n[filter "x"] clean = {}\n',
        "[include]\n\tpath = {}.config\n",
        '[includeIf "gitdir:/"]\n\tpath = {}.config\n',
        '[user]\n\tname = "a\\\n[filter "x"]\n\tclean = {}\n',
        '[core]\n\tworktree = /\n[FILTER "x"]\n\tclean={}\n',
    ],
)
def test_a_start_leaves_git_no_programs(
    server: AppServerProcess, git: Git, trap: Path, setting: str
) -> None:
    folder = server.home / ".letta" / "memory"
    trap.with_name("trap.config").write_text(f'[filter "x"]\n\tclean = {trap}\n')
    (folder / ".gitattributes").write_text("* filter=x\n")
    config = folder / ".git" / "config"
    config.write_text(OWN + setting.format(trap))
    start(server)
    assert "trap" not in config.read_text()
    work(git)
    assert not sprung(trap)


def test_a_start_leaves_honest_settings_alone(server: AppServerProcess, git: Git) -> None:
    config = server.home / ".letta" / "memory" / ".git" / "config"
    remote = '[remote "origin"]\n\turl = https://test/x.git\n'
    remote += '\tfetch = +refs/heads/*:refs/remotes/origin/*\n[branch "main"]\n\tremote = origin\n'
    config.write_text(OWN + remote)
    start(server)
    assert config.read_text() == OWN + remote


@pytest.mark.parametrize("kind", ["a link", "a file", "linked settings", "a pipe", "elsewhere"])
def test_a_repository_is_where_it_lies(
    server: AppServerProcess, git: Git, tmp_path: Path, kind: str
) -> None:
    folder = server.home / ".letta" / "memory"
    other, text = tmp_path / "other", "[core]\n\tfsmonitor = x\n"
    other.mkdir()
    (other / "config").write_text(text)
    repository, config = folder / ".git", folder / ".git" / "config"
    if kind in ("a link", "a file"):
        repository.rename(folder / "moved")
        (folder / "moved" / "config").write_text(text)
        if kind == "a link":
            repository.symlink_to(other)
        else:
            repository.write_text("gitdir: moved\n")
    elif kind == "elsewhere":
        (repository / "commondir").write_text(f"{other}\n")
    else:
        config.unlink()
        config.symlink_to(other / "config") if kind == "linked settings" else os.mkfifo(config)
    start(server)
    assert (other / "config").read_text() == text, "what lies outside is nothing to change"
    left = [path.read_text() for path in folder.rglob("config") if path.is_file()]
    assert not any("fsmonitor" in one for one in left)
    assert not repository.is_symlink()
    assert not repository.is_file()
    assert not (repository / "commondir").exists()
