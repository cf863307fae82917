"""How a person types the program they are running, from where they are."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

_NAME = "letta-matrix"


def typed(arguments: Sequence[str] = ()) -> str:
    """A shell command that runs this program again: by its name where that is on the PATH,
    else by its path, relative to the current folder where it lies below it."""
    return shlex.join([*_program(Path(sys.argv[0])), *arguments])


def starting() -> str:
    """A shell command that runs all of it on this machine: in a checkout, `make` also installs
    what it takes."""
    root = Path(os.path.abspath(sys.argv[0])).parent.parent.parent  # noqa: PTH100 - see _shown
    if not ((root / ".venv").is_dir() and (root / "Makefile").is_file()):
        return typed(["up"])
    return shlex.join(["make", *([] if root == Path.cwd() else ["-C", str(root)]), "up"])


def is_relative(command: str) -> bool:
    """Whether a `typed` command works in the current folder alone."""
    program = shlex.split(command)[0]
    return "/" in program and not program.startswith("/")


def _program(started: Path) -> list[str]:
    if started.name != _NAME:
        beside = Path(sys.executable).with_name(_NAME)
        if not beside.is_file():
            return [_shown(Path(sys.executable)), "-m", "letta_matrix"]
        started = beside
    found = shutil.which(_NAME)
    if found is not None and started.exists() and Path(found).samefile(started):
        return [_NAME]
    return [_shown(started)]


def _shown(path: Path) -> str:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would leave the venv
    here = Path.cwd()
    if not absolute.is_relative_to(here):
        return str(absolute)
    below = absolute.relative_to(here)
    return str(below) if len(below.parts) > 1 else f"./{below}"
