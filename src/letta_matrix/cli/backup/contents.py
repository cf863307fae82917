"""What belongs into a backup, and where it lies: of a bridge, and of all that `up` keeps."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from letta_matrix.access.database import url_of_database
from letta_matrix.cli.backup.faults import BackupError
from letta_matrix.common.json_fields import mapping, string_of
from letta_matrix.config import Config, ConfigError
from letta_matrix.config.sources import ENV_PREFIX, read_file
from letta_matrix.stack.lock import LOCK
from letta_matrix.store.database import file_of

CONFIG, REGISTRATION = "config.yaml", "registration.yaml"
DATABASE = "letta-matrix.db"
_SECRETS = ("admin.password", "admin.token", "demo-model.key")
SINGLE = (REGISTRATION, *_SECRETS)
"""Files beside a configuration."""
SYNAPSE, APP_SERVER, WORKSPACE = "synapse", "letta", "workspace"
SERVERS = (SYNAPSE, APP_SERVER, WORKSPACE)
"""Folders of `up`, in the order in which they are copied: each may know more than the one before,
and the bridge asks it then; what it knew less of would be lost."""

_CERTIFICATES = f"{ENV_PREFIX}HOMESERVER__CA_FILE"
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
    def url(self) -> URL:
        """The bridge's database."""
        return url_of_database(self.settings)

    @property
    def database(self) -> Path | None:
        """Its file, None where it is on a server."""
        file = file_of(self.url)
        return None if file is None else file.absolute()

    @property
    def place(self) -> str:
        """Where the configuration has the database: beside itself, or an absolute path; one of a
        server is put beside it."""
        file = self.database
        if file is None:
            return DATABASE
        return str(file.relative_to(self.folder) if file.is_relative_to(self.folder) else file)

    @property
    def is_stack(self) -> bool:
        """Whether it is the bridge of an `up`, with its servers beside it."""
        return (self.folder / LOCK).exists() and (self.folder / SYNAPSE).is_dir()

    def files(self) -> Iterator[tuple[str, Path]]:
        """Single files besides the database, by their names in a backup."""
        yield CONFIG, self.config
        names = [REGISTRATION, *(_SECRETS if self.is_stack else ())]
        if (certificates := self.settings.homeserver.ca_file) is not None:
            path = Path(os.path.normpath(self.settings.path(certificates)))
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


def certificates_in(config: Path) -> str:
    """The `homeserver.ca_file` of a configuration that is in no use yet, "" for none. Raises
    BackupError."""
    try:
        homeserver = mapping(read_file(config).get("homeserver"))
    except ConfigError as error:
        raise BackupError(f"its configuration cannot be used: {error}") from None
    named = os.environ.get(_CERTIFICATES) or string_of(homeserver, "ca_file")
    return os.path.normpath(Path(named).expanduser()) if named else ""


def is_named(name: str, path: str) -> bool:
    """Whether a file in a backup can be the one at a configured path, "" for none: below the
    configuration's folder, wherever that was."""
    parts = Path(name).parts
    return is_beside(name) and Path(path).parts[-len(parts) :] == parts


def is_beside(place: str) -> bool:
    """Whether a path, which a backup tells, can be one of ours below a configuration's folder:
    of no server, no other file of a backup, and nothing hidden, which programs read by
    themselves."""
    path = Path(place)
    if path.is_absolute() or "\0" in place or str(path) in (".", CONFIG, *SINGLE):
        return False
    return path.parts[0] not in SERVERS and not any(part.startswith(".") for part in path.parts)
