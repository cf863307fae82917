"""The rooms of the house: dependencies point down, files stay small, starting stays light."""

import subprocess
import sys
from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src/letta_matrix").rglob("*.py"))
LONGEST = 500
HEAVY = {"alembic", "fastapi", "mcp", "letta_client", "openai", "synapse", "typer"}


def test_dependencies_point_down() -> None:
    configuration = str(ROOT / "pyproject.toml")
    assert lint_imports(config_filename=configuration, no_cache=True) == EXIT_STATUS_SUCCESS


def test_one_noun_per_file() -> None:
    too_long = {
        str(path.relative_to(ROOT)): lines
        for path in SOURCES
        if (lines := len(path.read_text().splitlines())) > LONGEST
    }
    assert too_long == {}


def test_the_bridge_loads_nothing_heavy() -> None:
    program = (
        "import sys, letta_matrix.bridge; print(*{name.split('.')[0] for name in sys.modules})"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert HEAVY & set(output.split()) == set()
