"""How the commands that the documentation has people type are checked: each by the program that
it is for, as far as that is here. What is run for real besides says `tests/typed_pages.py`."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import typer
from starlette.routing import compile_path
from tests.compose_kit import services_of
from tests.doc_blocks import ROOT
from tests.rest_document import OPERATIONS
from tests.shell_words import Words, commands

from letta_matrix.cli.commands import app

HEISENBRIDGE = ROOT / "build/heisenbridge/bin/python"
BIN = Path(sys.executable).parent
NOT_HERE = {
    "age": "the format is tested by a library that reads it, tests/unit/test_backup_archive.py",
    "helm": "installs into a cluster; the chart is rendered by Helm's own library, test_helm.py",
    "kubectl": "asks a cluster",
    "claude": "Claude Code; the MCP server that it starts is tested over stdio",
    "createdb": "asks a PostgreSQL server; the tests make theirs by SQL, tests/postgres.py",
    "createuser": "the same",
    "npx": "fetches the MCP Inspector from npm",
    "podman": "starts containers",
    "useradd": "changes the machine",
}
"""Programs whose commands nobody here reads, and why."""
OF_ANY_SYSTEM = {
    "awk",
    "base64",
    "cat",
    "cd",
    "cp",
    "date",
    "git",
    "grep",
    "jq",
    "openssl",
    "sh",
    "tar",
    "umask",
}
"""They are run where the page is, or do what everybody knows."""
OF_SYNAPSE = {
    ("POST", "/_matrix/client/v3/login"),
    ("POST", "/_synapse/admin/v1/reset_password/@admin:localhost"),
    ("PUT", "/_synapse/admin/v2/users/@letta:example.org"),
}
"""That these are there, tests/integration/test_up.py asks a real one."""


class Unread(Exception):
    """A command that nothing here reads: say in `tests/doc_commands.py` how it is checked."""


def check(words: Words) -> None:
    """Raises for a command that its program would not take."""
    program = Path(words[0]).name
    if program in _CHECKS:
        _CHECKS[program](words[1:])
    elif program not in NOT_HERE and program not in OF_ANY_SYSTEM:
        raise Unread(shlex.join(words))


def parsed_by_letta_matrix(words: Words) -> Mapping[str, Any]:
    """What a command of ours is told by these words. Raises what its parser raises."""
    told: dict[str, Any] = {}
    program = typer.main.get_command(app)
    _tell(program, told)
    program.main(list(words), prog_name="letta-matrix", standalone_mode=False)
    assert told, f"letta-matrix {shlex.join(words)}: it ended before any command"
    return told


def asked_of_us(method: str, path: str) -> None:
    """Raises for a path that the REST API does not have with this method."""
    known = [one for verb, one in OPERATIONS if verb == method]
    path = unquote(path.partition("?")[0])
    assert any(compile_path(one)[0].match(path) for one in known), f"{method} {path}"


def _tell(command: Any, told: dict[str, Any]) -> None:
    if commands := getattr(command, "commands", {}):
        for one in commands.values():
            _tell(one, told)
        return

    def tell(**given: Any) -> None:
        told.update({"command": command.name, **given})

    command.callback = tell


def _curl(words: Words) -> None:
    options = {"-d": "POST", "-F": "POST"}
    given = [word for word in words if word.startswith("-") and len(word) == 2]
    verb = words[words.index("-X") + 1] if "-X" in words else ""
    method = verb or next((options[one] for one in given if one in options), "GET")
    address = next(word for word in words if word.startswith(("$API", "http://127.0.0.1:")))
    path = re.sub(r"^(\$API|http://127\.0\.0\.1:\d+)", "", address)
    if address.startswith("$API"):
        asked_of_us(method, f"/api/v1{path}")
    elif path.startswith(("/_matrix/", "/_synapse/")):
        assert (method, path) in OF_SYNAPSE
    else:
        asked_of_us(method, path)


def _make(words: Words) -> None:
    # What the `make` of this run was told is not part of what stands there.
    environment = {name: os.environ[name] for name in os.environ.keys() - _OF_MAKE}
    shown = subprocess.run(
        ("make", "--dry-run", *words),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    for command in commands(shown.stdout):
        if command[0] == "exec":
            check(command[1:])
        elif "pytest" in command:
            _pytest(command[command.index("pytest") + 1 :])


def _pytest(words: Words) -> None:
    named = [word for word in words if word.startswith("tests/")]
    assert all((ROOT / word).exists() for word in named), named
    own = {word for word in words if word.startswith("--")} - _OF_XDIST
    text = (ROOT / "tests/stress.py").read_text(encoding="utf-8")
    assert all(f'"{word}"' in text for word in own), own


_OF_MAKE = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS"}
_OF_XDIST = {"--numprocesses", "--dist", "--no-loadscope-reorder"}


def _letta(words: Words) -> None:
    assert words[:2] == ("--backend", "local") or words[0] == "server"
    rest = words[2:] if words[0] == "--backend" else words
    told = _help_of("letta", rest[0])
    assert all(word in told for word in words[2:] if word.startswith("--")), told


@cache
def _help_of(*words: str) -> str:
    program, *arguments = words
    where = shutil.which(program, path=f"{BIN}:{os.environ['PATH']}")
    assert where is not None, program
    done = subprocess.run((where, *arguments, "--help"), capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _register(words: Words) -> None:
    told = _help_of("register_new_matrix_user")
    assert all(word in told for word in words if word.startswith("-"))


def _compose(words: Words) -> None:
    services = {name for file in _COMPOSE for name in services_of(file)}
    files = [words[place + 1] for place, word in enumerate(words) if word == "-f"]
    assert all((ROOT / file).exists() for file in files), files
    verb = next(word for word in words if word in _VERBS)
    rest = words[words.index(verb) + 1 :]
    named = [place for place, word in enumerate(rest) if word in services]
    assert named or verb == "up", words
    given = rest[named[0] + 1 :] if named else ()
    if given and rest[named[0]] == "letta-matrix":
        # Of the image that is what `run` begins with.
        check(("letta-matrix", *given) if verb == "run" else given)


_COMPOSE = ("compose.yaml", "compose.scale.yaml")
_VERBS = ("up", "run", "exec", "restart", "stop")


def _python(words: Words) -> None:
    if words[0] == "-c":
        compile(words[1], "the page", "exec")
    else:
        assert words[:2] == ("-m", "heisenbridge")
        if HEISENBRIDGE.exists():
            told = _help_of(str(HEISENBRIDGE), "-m", "heisenbridge")
            assert all(word in told for word in words[2:] if word.startswith("-")), told


def _sudo(words: Words) -> None:
    start = words.index("letta", words.index("env"))
    check(words[start:])


_CHECKS: Mapping[str, Callable[[Words], object]] = {
    "curl": _curl,
    "docker": lambda words: _compose(words[1:]),
    "letta": _letta,
    "letta-matrix": parsed_by_letta_matrix,
    "make": _make,
    "podman-compose": _compose,
    "pre-commit": lambda words: (BIN / "pre-commit").stat() and words == ("install",),
    "python": _python,
    "register_new_matrix_user": _register,
    "sudo": _sudo,
}
