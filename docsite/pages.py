"""Which pages are made of the code."""

from collections.abc import Callable, Mapping
from pathlib import Path

from docsite import cli_page, commands_page, metrics_page, rest_page, tools_page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

PAGES: Mapping[str, Callable[[], str]] = {
    "reference/cli.md": cli_page.text,
    "reference/commands.md": commands_page.text,
    "reference/metrics.md": metrics_page.text,
    "reference/rest.md": rest_page.text,
    "reference/tools.md": tools_page.text,
}
"""By their paths below `docs`."""
