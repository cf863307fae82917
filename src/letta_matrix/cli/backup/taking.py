"""Takes a backup of a bridge, which may run meanwhile."""

import contextlib
import os
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from letta_matrix import __version__
from letta_matrix.cli.backup.age import WORK
from letta_matrix.cli.backup.archive import Manifest, Writer, is_encrypted, read, writing
from letta_matrix.cli.backup.contents import (
    CONFIG,
    DATABASE,
    SERVERS,
    SYNAPSE,
    Source,
    is_needless,
)
from letta_matrix.cli.backup.copies import copy_apart, copy_database, is_database, steady
from letta_matrix.cli.backup.faults import BackupError
from letta_matrix.cli.backup.folders import opened, staging, sync
from letta_matrix.cli.backup.stored import copy_from_server, schema_of
from letta_matrix.common.private_files import UnwritableError, private_beside
from letta_matrix.store.database_file import check_if_alone

_LOGS = ("-wal", "-shm", "-journal")
_OBJECTS = "objects"
"""What git calls the folder of what it keeps."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a backup came to: files in it and their bytes, and what was left out of it."""

    files: int
    size: int
    left_out: list[str] = field(default_factory=list[str])


def take(
    source: Source, file: Path, passphrase: str | None, *, servers: bool, work: int = WORK
) -> Taken:
    """Write a backup and read it back; only then it gets its name. `servers`: with those of `up`.

    Raises:
        BackupError: it could not be taken; whatever stood under the name still does.
        StoreError: the database is damaged.
    """
    with _told(file):
        source.check_outside(file)
        if file.is_dir():
            raise BackupError(f"{file} is a folder: name a file")
        if file.exists():
            try:
                is_encrypted(file)
            except BackupError:
                says = f"{file} stands there and is no backup: it is not replaced"
                raise BackupError(says) from None
    if source.database is not None:
        if not source.database.is_file():
            raise BackupError(f"{source.database}: no database there; start the bridge once")
        check_if_alone(source.database)
    beside = source.folder if source.database is None else source.database.parent
    with staging(beside) as laid, _told(file), private_beside(file) as temporary:
        taken = _Taking(source, laid, servers=servers).write(temporary, passphrase, work)
        read(temporary, passphrase)
        temporary.replace(file)
        sync(file.parent)
    return taken


class _Taking:
    def __init__(self, source: Source, beside: Path, *, servers: bool) -> None:
        self._source = source
        self._staging = beside
        self._servers = servers
        self._left_out: list[str] = []

    def write(self, target: Path, passphrase: str | None, work: int) -> Taken:
        copy, now = self._staging / DATABASE, time.time()
        # First of all: what the others have beyond it, the bridge finds there.
        if self._source.database is None:
            copy_from_server(self._source.url, copy)
        else:
            copy_database(self._source.database, copy)
        manifest = Manifest(
            version=__version__,
            made_at=now,
            schema=schema_of(copy),
            database=DATABASE,
            place=self._source.place,
            servers=self._servers,
        )
        with target.open("wb") as file:
            with writing(file, manifest, passphrase, work) as writer:
                self._add_copy(writer, DATABASE, copy)
                self._add_files(writer)
                for name in SERVERS if self._servers else ():
                    self._add_folder(writer, name)
            file.flush()
            os.fsync(file.fileno())
        return Taken(writer.count, writer.size, self._left_out)

    def _add_copy(self, writer: Writer, name: str, copy: Path) -> None:
        with copy.open("rb") as content:
            writer.add(name, content, copy.stat().st_size)
        copy.unlink()

    def _add_files(self, writer: Writer) -> None:
        for name, path in self._source.files():
            # What an operator has put there by a link counts as what it leads to.
            real = path.resolve()
            with opened(real.parent) as folder:
                self._add(writer, name, real.name, folder, needed=name == CONFIG)

    def _add_folder(self, writer: Writer, top: str) -> None:
        root = self._source.folder / top
        if not root.is_dir():
            return
        # By descriptors: agents may put links in the place of folders meanwhile.
        for path, folders, files, descriptor in os.fwalk(root, onerror=self._not_read):
            inner = Path(path).relative_to(self._source.folder)
            if path == str(root):
                folders[:] = [one for one in folders if not is_needless(top, one)]
                files[:] = [one for one in files if not is_needless(top, one)]
            links = [one for one in folders if Path(path, one).is_symlink()]
            self._left_out += [str(inner / one) for one in links]
            # Git writes an object before what refers to it: what refers is read first.
            folders[:] = sorted({*folders} - {*links}, key=lambda one: (one == _OBJECTS, one))
            if not folders and not files:
                writer.add_folder(str(inner))
            for one in sorted(files):
                if not _is_log(one, files):
                    name = str(inner / one)
                    self._add(writer, name, one, descriptor, needed=top == SYNAPSE)

    def _not_read(self, error: OSError) -> None:
        """A folder is gone by now, or was closed by whoever it belongs to."""
        folder = Path(str(error.filename))
        inside = folder.is_relative_to(self._source.folder)
        self._left_out.append(str(folder.relative_to(self._source.folder) if inside else folder))

    def _add(self, writer: Writer, name: str, file: str, folder: int, *, needed: bool) -> None:
        """Add a file as it is now; without it there is no backup where it is `needed`."""
        try:
            with steady(file, folder, self._staging) as copied:
                if copied is None:
                    return
                if is_database(copied.content):
                    copy = self._copied(name, file, folder, needed=needed)
                    if copy is not None:
                        self._add_copy(writer, name, copy)
                        return
                writer.add(name, copied.content, copied.size, copied.mode)
        except OSError as error:
            if needed:
                raise BackupError(f"{name}: cannot be read: {error.strerror}") from None
            self._left_out.append(name)

    def _copied(self, name: str, file: str, folder: int, *, needed: bool) -> Path | None:
        """A database as it is at one moment, None for what is none. Raises BackupError where it
        is `needed`."""
        copy = self._staging / "copy"
        try:
            # Agents write where nothing is needed.
            if needed:
                copy_database(self._source.folder / name, copy)
            else:
                copy_apart(file, folder, copy)
        except (BackupError, OSError):
            copy.unlink(missing_ok=True)
            # What agents have made of a file of theirs is theirs.
            if needed:
                raise
            return None
        return copy


def _is_log(name: str, beside: list[str]) -> bool:
    """Whether a file is what SQLite keeps beside a database, which a copy of that has in it."""
    ending = next((one for one in _LOGS if name.endswith(one)), None)
    return ending is not None and name.removesuffix(ending) in beside


@contextlib.contextmanager
def _told(file: Path) -> Generator[None]:
    """Raises BackupError where `file` cannot be written, or another not be read."""
    try:
        yield
    except UnwritableError as error:
        raise BackupError(str(error)) from None
    except OSError as error:
        raise BackupError(f"{error.filename or file}: {error.strerror or error}") from None
