"""`scripts/advisories`, with programs for pip-audit and npm that tell what they are asked."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what it works with, where everything is installed."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/advisories", tmp_path / "scripts")
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    programs = tmp_path / "build/audit/bin"
    programs.mkdir(parents=True)
    wanted = (tmp_path / "requirements/audit.txt").read_bytes()
    told = subprocess.run(["cksum"], input=wanted, stdout=subprocess.PIPE, check=True).stdout
    (tmp_path / "build/audit/.installed").write_bytes(told)
    for name in ("pip-audit", "npm"):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho "{name} $*"\n[ ! -e "$HOME/{name}-finds" ]\n')
        program.chmod(0o755)
    return tmp_path


def audited(copy: Path) -> tuple[int, str]:
    path = f"{copy}/build/audit/bin:/usr/bin:/bin"
    done = subprocess.run(
        [copy / "scripts/advisories", "--local"],
        env={"PATH": path, "HOME": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_all_that_is_locked_is_looked_up(copy: Path) -> None:
    status, out = audited(copy)
    assert status == 0
    asked = [line.split("--requirement ")[1] for line in out.splitlines() if "--strict" in line]
    files = {f"requirements/{one.name}" for one in (copy / "requirements").glob("*.txt")}
    assert {one.split()[0] for one in asked} == files - {"requirements/vendored.txt"}
    assert all(one.endswith(" --local") for one in asked)
    package = json.loads((copy / "build/audit-npm/package.json").read_text())
    assert package["dependencies"].keys() == {"dompurify", "markdown-it", "swagger-ui-dist"}
    assert "npm audit" in out


@pytest.mark.parametrize("who", ["pip-audit", "npm"])
def test_what_is_found_shows_in_the_exit_status(who: str, copy: Path) -> None:
    (copy / f"{who}-finds").touch()
    status, out = audited(copy)
    assert (status, "requirements/vendored.txt" in out) == (1, True)
