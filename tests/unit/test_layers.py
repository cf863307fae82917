"""The rooms of the house: dependencies point down, files stay small, starting stays light."""

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src/letta_matrix").rglob("*.py"))
LONGEST = 500
HEAVY = {"alembic", "fastapi", "mcp", "letta_client", "openai", "PIL", "synapse", "typer"}
THREE_KINDS = """
import sys
from letta_matrix.assembly import make_runtime
from letta_matrix.config import Config

kind = {KIND}
config = Config.model_validate(
    {"homeserver": {"url": "http://127.0.0.1:9", "domain": "test"},
     "appservice": {"as_token": "a", "hs_token": "h"}, "runtimes": [kind]}
)
make_runtime(config.runtimes[0], config)
print(*{name.split(".")[0] for name in sys.modules})
"""


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


def loaded_by(program: str) -> set[str]:
    """The top-level modules that a program of its own ends with."""
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    return set(output.split())


def test_the_bridge_loads_nothing_heavy() -> None:
    program = (
        "import sys, letta_matrix.bridge; print(*{name.split('.')[0] for name in sys.modules})"
    )
    assert HEAVY & loaded_by(program) == set()


@pytest.mark.parametrize(
    ("kind", "needed"),
    [
        ({"type": "app_server"}, set[str]()),
        ({"type": "letta_api"}, {"letta_client"}),
        ({"type": "openai_compatible", "url": "http://127.0.0.1:9/v1"}, {"openai"}),
    ],
    ids=["App Server", "Letta API", "OpenAI-compatible"],
)
def test_a_runtime_loads_its_own_library_alone(kind: dict[str, str], needed: set[str]) -> None:
    loaded = loaded_by(THREE_KINDS.replace("{KIND}", repr(kind)))
    assert loaded & {"letta_client", "openai"} <= needed
