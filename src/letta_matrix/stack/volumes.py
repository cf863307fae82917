"""The volumes of the containers of compose.yaml, as the one that makes their files has them."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from letta_matrix.common.private_files import write_private

_ROOT = "root"
_USERS = {"bridge": 10001, "app-server": 10002, "synapse": 991, "postgres": 999, "redis": 999}
"""Whose the files of a container are, unless `BRIDGE_UID` and so on say otherwise."""


class Volumes:
    """The volumes of all containers, and whose files are whose."""

    def __init__(self, root: Path, env: Mapping[str, str]) -> None:
        self.root = root
        self._users = {
            name: int(env.get(f"{name.replace('-', '_').upper()}_UID") or usual)
            for name, usual in _USERS.items()
        }

    def path(self, name: str) -> Path:
        return self.root / name

    def put(self, name: str, text: str, owner: str = _ROOT) -> None:
        """Write a file that is not there yet, for its owner alone."""
        path = self.path(name)
        self._make_folder_of(path)
        if not path.exists():
            write_private(path, text)
        self._give(path, owner)

    def show(self, name: str, text: str) -> None:
        """Write a file that follows from the settings, for everybody to read."""
        path = self.path(name)
        self._make_folder_of(path)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)

    def secret(self, name: str, owner: str = _ROOT, given: str = "") -> str:
        """A secret that is made once, unless one is `given`."""
        self.put(name, (given or secrets.token_urlsafe(32)) + "\n", owner)
        return self.path(name).read_text(encoding="utf-8").strip()

    def _make_folder_of(self, path: Path) -> None:
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            path.parent.chmod(0o755)

    def folder(self, name: str, owner: str) -> None:
        path = self.path(name)
        path.mkdir(parents=True, exist_ok=True)
        self._give(path, owner, 0o700)

    def _give(self, path: Path, owner: str, mode: int = 0o600) -> None:
        path.chmod(mode)
        if owner != _ROOT:
            os.chown(path, self._users[owner], self._users[owner])
