"""The rooms of the house: dependencies point down, files stay small, starting stays light."""

import json
import subprocess
import sys
from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src/letta_matrix").rglob("*.py"))
LONGEST = 350
HEAVY = {
    *("alembic", "fastapi", "mcp", "letta_client", "openai", "PIL", "phonenumbers", "synapse"),
    *("typer", "rich", "pygments", "twisted"),
}
LIBRARIES = {"letta_client", "openai"}
LOADED = """
import json, os, sys
import letta_matrix.app.bridge
from letta_matrix.runtimes.adapters import make_runtime
from letta_matrix.config import Config

def tell():
    print(*{name.split(".")[0] for name in sys.modules}, flush=True)

tell()
for kind in json.loads(sys.argv[1]):
    if os.fork() == 0:
        config = Config.model_validate(
            {"homeserver": {"url": "http://127.0.0.1:9", "domain": "test"},
             "appservice": {"as_token": "a", "hs_token": "h"}, "runtimes": [kind]}
        )
        make_runtime(config.runtimes[0], config)
        tell()
        os._exit(0)
    os.wait()
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


def test_the_bridge_loads_nothing_heavy_and_a_runtime_its_own_library_alone() -> None:
    kinds = [
        {"type": "app_server"},
        {"type": "letta_api"},
        {"type": "openai_compatible", "url": "http://127.0.0.1:9/v1"},
    ]
    output = subprocess.check_output([sys.executable, "-c", LOADED, json.dumps(kinds)], text=True)
    bridge, *runtimes = (set(line.split()) for line in output.splitlines())
    assert HEAVY & bridge == set()
    assert [one & LIBRARIES for one in runtimes] == [set(), {"letta_client"}, {"openai"}]
