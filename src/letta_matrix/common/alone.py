"""Libraries that load others, wherever those are installed, for what is not used of them here."""

import importlib
import sys


def load_alone(library: str, *without: str) -> None:
    """Import a library as if some others were not installed; they stay importable."""
    hidden = [one for one in without if one not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # pyright: ignore[reportCallIssue, reportArgumentType]
    try:
        importlib.import_module(library)
    finally:
        for one in hidden:
            del sys.modules[one]
