"""`stack.json`: what scripts and other commands need to know of a running stack."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from letta_matrix.common.lock_files import is_held
from letta_matrix.common.private_files import write_private
from letta_matrix.common.program import starting
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.lock import LOCK

FILE_NAME = "stack.json"
ADMIN = "admin"
"""The person that a stack is set up for."""
ACCESS_FILE = "admin.token"
"""Holds what the REST API and the MCP server want."""


@dataclass(slots=True)
class StackState:
    """The contents of `stack.json`; sections of doors that do not exist are absent."""

    homeserver: dict[str, str]
    users: dict[str, dict[str, str]]
    appservice: dict[str, str]
    chat: dict[str, str]
    api: dict[str, str]
    app_server: dict[str, str]
    mcp: dict[str, str] = field(default_factory=dict[str, str])
    pids: dict[str, int] = field(default_factory=dict[str, int])

    def write(self, directory: Path) -> None:
        """Replace `stack.json` in `directory`, in one step, mode 0600."""
        sections = {name: section for name, section in asdict(self).items() if section}
        write_private(directory / FILE_NAME, json.dumps(sections, indent=2) + "\n")


def remove_state(directory: Path) -> None:
    """Nothing runs in `directory` (any more)."""
    (directory / FILE_NAME).unlink(missing_ok=True)


def read_state(directory: Path) -> Mapping[str, Any]:
    """The state of the stack whose data lie in `directory`.

    Raises:
        StackError: it does not run, or is not ready yet, or the file is damaged.
    """
    path, lock = directory / FILE_NAME, directory / LOCK
    try:
        if lock.exists() and not is_held(lock):
            # Its stack was killed: by now its ports may be somebody else's.
            raise FileNotFoundError
        state = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StackError(
            f"no stack runs in {directory}; start one by `{starting()}`, "
            "or name its folder by --data"
        ) from None
    except (OSError, ValueError) as error:
        raise StackError(f"{path}: cannot be used: {error}") from None
    if not isinstance(state, dict):
        raise StackError(f"{path}: cannot be used: expected a JSON object")
    return cast("dict[str, Any]", state)
