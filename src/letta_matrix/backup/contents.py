"""What belongs into a backup, and where it lies: of a bridge, and of all that `up` keeps."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from letta_matrix.backup.faults import BackupError
from letta_matrix.config import Config
from letta_matrix.stack.lock import LOCK
from letta_matrix.store.database import database_url

CONFIG, REGISTRATION = "config.yaml", "registration.yaml"
DATABASE = "letta-matrix.db"
_SECRETS = ("admin.password", "admin.token", "demo-model.key")
SYNAPSE, APP_SERVER, WORKSPACE = "synapse", "letta", "workspace"
SERVERS = (SYNAPSE, APP_SERVER, WORKSPACE)
"""Folders of `up`, in the order in which they are copied: each may know more than the one before,
and the bridge asks it then; what it knew less of would be lost."""

_NEEDLESS = {SYNAPSE: ("homeserver.pid", "*.log", "*.log.*"), APP_SERVER: ("tmp",)}
"""What a start makes anew, at the top of those folders."""


@dataclass(frozen=True, slots=True)
class Source:
    """A bridge whose configuration is the file `config`, with its `settings`."""

    config: Path
    settings: Config

    @property
    def folder(self) -> Path:
        return self.settings.directory

    @property
    def database(self) -> Path:
        """The bridge's."""
        url = database_url(self.settings.database.url, self.folder)
        return Path(str(url.database)).absolute()

    @property
    def place(self) -> str:
        """Where the configuration has the database: beside itself, or an absolute path."""
        beside = self.database.is_relative_to(self.folder)
        return str(self.database.relative_to(self.folder) if beside else self.database)

    @property
    def is_stack(self) -> bool:
        """Whether it is the bridge of an `up`, with its servers beside it."""
        return (self.folder / LOCK).exists() and (self.folder / SYNAPSE).is_dir()

    def files(self) -> Iterator[tuple[str, Path]]:
        """Single files besides the database, by their names in a backup."""
        yield CONFIG, self.config
        names = [REGISTRATION, *(_SECRETS if self.is_stack else ())]
        if (certificates := self.settings.homeserver.ca_file) is not None:
            path = self.settings.path(certificates)
            names += [str(path.relative_to(self.folder))] * path.is_relative_to(self.folder)
        yield from ((name, self.folder / name) for name in names if (self.folder / name).is_file())

    def check_outside(self, file: Path) -> None:
        """Raises BackupError where a backup would be put into what it is of."""
        for name in SERVERS:
            if file.resolve().is_relative_to((self.folder / name).resolve()):
                raise BackupError(f"{file} is in a folder that is backed up: put it elsewhere")


def is_needless(folder: str, name: str) -> bool:
    """Whether something at the top of one of the `SERVERS` is made anew by a start."""
    return any(Path(name).match(pattern) for pattern in _NEEDLESS.get(folder, ()))
