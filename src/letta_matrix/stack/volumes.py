"""The volumes of the containers of compose.yaml, as the one that makes their files has them."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from letta_matrix.common.private_files import write_private

_ROOT = "root"
_BRIDGE_USER, _APP_SERVER_USER, _SYNAPSE_USER, _POSTGRES_USER = 10001, 10002, 991, 999
_REDIS_USER = 999


class Volumes:
    """The volumes of all containers, and whose files are whose."""

    def __init__(self, root: Path, env: Mapping[str, str]) -> None:
        self.root = root
        self._users = {
            "bridge": int(env.get("BRIDGE_UID") or _BRIDGE_USER),
            "app-server": int(env.get("APP_SERVER_UID") or _APP_SERVER_USER),
            "synapse": int(env.get("SYNAPSE_UID") or _SYNAPSE_USER),
            "postgres": int(env.get("POSTGRES_UID") or _POSTGRES_USER),
            "redis": int(env.get("REDIS_UID") or _REDIS_USER),
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
        path.chmod(0o700)
        os.chown(path, self._users[owner], self._users[owner])

    def _give(self, path: Path, owner: str) -> None:
        path.chmod(0o600)
        if owner != _ROOT:
            os.chown(path, self._users[owner], self._users[owner])
