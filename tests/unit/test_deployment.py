"""The files for those who run the bridge as a service."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy/letta-matrix.service"
VERIFIER = shutil.which("systemd-analyze")


@pytest.mark.skipif(VERIFIER is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8")
    program = "/opt/letta-matrix/.venv/bin/letta-matrix"
    assert f"ExecStart={program} run " in text
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace(program, sys.executable))
    argv = [str(VERIFIER), "verify", "--man=no", str(unit)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, told) == (0, [])
    # Exposed by no more than a fifth of what systemd counts; the network is what it is for.
    argv = [str(VERIFIER), "security", "--offline=yes", "--threshold=20", str(unit)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
