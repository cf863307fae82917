"""What is confined reaches its own folders and what programs need, and nothing else."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.security.tricks import READS, WRITES

from letta_matrix.stack import confine
from letta_matrix.stack.confine import Reach

SECRET = "the-secret-itself"

pytestmark = pytest.mark.skipif(not confine.version(), reason="this kernel has no Landlock")

Shell = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the secret is; the agents' own folder is beside it."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    (tmp_path / "workspace").mkdir()
    return folder


@pytest.fixture
def shell(folder: Path) -> Shell:
    """Runs a command line confined to the workspace; `reach` is more."""
    workspace = folder.parent / "workspace"
    programs = (Path(sys.prefix), Path(sys.base_prefix))

    def run(line: str, reach: Reach | None = None) -> subprocess.CompletedProcess[str]:
        more = reach or Reach()
        argv = Reach((*programs, *more.read), (workspace, *more.write)).around(
            ("/bin/bash", "-c", line)
        )
        return subprocess.run(
            argv,
            check=False,
            cwd=workspace,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    return run


def test_nothing_outside_is_read(folder: Path, shell: Shell) -> None:
    names = {"secret": folder / "secret", "folder": folder, "name": folder.name}
    lines = [trick.format(**names) for trick in READS]
    done = shell("\n".join(f"( {line}\n)" for line in lines))
    assert SECRET not in done.stdout + done.stderr
    # The same lines do read it where they may.
    told = shell("\n".join(f"( {line}\n)" for line in lines), Reach(read=(folder,)))
    assert told.stdout.count(SECRET) > len(READS) / 2


def test_nothing_outside_is_written(folder: Path, shell: Shell) -> None:
    for number, trick in enumerate(WRITES):
        made = folder / f"made{number}"
        shell(trick.format(made=made))
        assert not made.exists(), trick
    assert [one.name for one in folder.iterdir()] == ["secret"]


def test_its_own_folder_is_there_to_work_in(folder: Path, shell: Shell) -> None:
    line = "mkdir -p a/b && echo hi > a/b/c && mv a/b d && cat d/c && rm -r a d && ln -s x y && ls"
    assert shell(line).stdout.split() == ["hi", "y"]
    shell("echo more >> data/note", Reach(write=(folder,)))
    assert shell("cat /dev/null; head -c 2 /dev/zero | wc -c").stdout.strip() == "2"


def test_a_path_that_is_allowed_is_reached(folder: Path, shell: Shell) -> None:
    allowed = Reach(write=(folder / "secret",))
    done = shell(f"cat {folder}/secret && echo changed > {folder}/secret", allowed)
    assert (done.stdout, (folder / "secret").read_text()) == (SECRET, "changed\n")
    assert shell(f"touch {folder}/other", allowed).returncode != 0


@pytest.mark.parametrize(
    "path", ["/etc/shadow", "/etc/sudoers", "/root", "/home", "/etc/ssh", "/var", "/tmp"]
)
def test_what_is_the_machines_is_out_of_reach(shell: Shell, path: str) -> None:
    done = shell(f"ls -d {path} > /dev/null; cat {path} 2>&1; ls {path} 2>&1")
    assert "Permission denied" in done.stdout or "No such file" in done.stdout


def test_other_processes_are_out_of_reach(shell: Shell) -> None:
    with subprocess.Popen(["sleep", "600"], env={"KEY": SECRET, "PATH": "/bin:/usr/bin"}) as other:
        there = f"/proc/{other.pid}"
        done = shell(
            f"cat {there}/environ {there}/mem; ls {there}/fd/ {there}/root/; cat {there}/maps"
        )
        assert SECRET not in done.stdout
        if confine.version() >= 6:
            assert shell(f"kill -9 {other.pid}").returncode != 0
            assert other.poll() is None
        other.kill()


def test_what_it_starts_is_confined_and_cannot_get_out(folder: Path, shell: Shell) -> None:
    line = f"setsid nohup bash -c 'sleep 0; cat {folder}/secret' 2>&1; cat nohup.out"
    assert SECRET not in shell(line).stdout
    assert "NoNewPrivs:\t1" in shell("cat /proc/self/status").stdout
    if os.geteuid() == 0:
        assert "CapEff:\t0000000000000000" in shell("cat /proc/self/status").stdout


def test_what_cannot_be_confined_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = (
        "import runpy, sys, ctypes\n"
        f"sys.argv = ['confine', '--', '/bin/touch', {str(mark)!r}]\n"
        "space = runpy.run_path({file!r})\n"
        "space['confine'].__globals__['version'] = lambda: 0\n"
        "space['main']()\n"
    ).replace("{file!r}", repr(confine.__file__))
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, mark.exists()) == (126, False)
    assert "has no Landlock" in done.stderr
