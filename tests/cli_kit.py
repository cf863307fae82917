"""What is typed, and what the program says."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import structlog
from typer.testing import CliRunner

from letta_matrix.cli.main import main


def letta_matrix(
    *arguments: str, cwd: Path, stdin: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The program as if it ran by itself: to start a process for each takes long."""
    status: object = None
    argv = ["letta-matrix", *arguments]
    umask = os.umask(0o022)
    env = {"XDG_DATA_HOME": str(cwd / "xdg"), **(env or {})}
    with (
        CliRunner().isolation(stdin, env) as (out, err, _),
        contextlib.chdir(cwd),
        patch.object(sys, "argv", argv),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code
        finally:
            structlog.reset_defaults()
            os.umask(umask)
        sys.stdout.flush()
        sys.stderr.flush()
        assert status is None or isinstance(status, int), status
        said = (stream.getvalue().decode() for stream in (out, err))
        return subprocess.CompletedProcess(argv, status or 0, *said)
