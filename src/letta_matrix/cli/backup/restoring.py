"""Puts a backup back: all of it is laid aside and looked at before anything in place is touched."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from letta_matrix.cli.backup import unfinished
from letta_matrix.cli.backup.archive import Manifest, read
from letta_matrix.cli.backup.contents import (
    CONFIG,
    DATABASE,
    SERVERS,
    SINGLE,
    certificates_in,
    is_beside,
    is_named,
)
from letta_matrix.cli.backup.copies import check_database
from letta_matrix.cli.backup.faults import BackupError
from letta_matrix.cli.backup.folders import staging
from letta_matrix.cli.backup.stored import Ended, prepare, schema_of
from letta_matrix.cli.backup.swap import Swap
from letta_matrix.matrix.verbatim import visible
from letta_matrix.stack.data import make_data_directory
from letta_matrix.stack.lock import LOCK, exclusive
from letta_matrix.store.database import HEAD
from letta_matrix.store.database_file import held
from letta_matrix.store.restored import Gap

_BESIDE = ("-wal", "-shm", "-journal", "-wal.damaged")
"""What belongs to the database that it stands beside, and to no other."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a backup is put: its configuration into the file `config`, the rest beside that, and
    the bridge's `database` elsewhere if that is said."""

    config: Path
    database: Path | None = None

    @property
    def folder(self) -> Path:
        return self.config.parent


@dataclass(frozen=True, slots=True)
class PutBack:
    """What was put back, and the folders that hold what stood there before."""

    manifest: Manifest
    names: list[str]
    aside: list[Path]
    ended: Ended


def restore(
    file: Path,
    passphrase: str | None,
    target: Target,
    *,
    replace: bool = False,
    keep_tokens: bool = False,
) -> PutBack:
    """Put a backup in place. With `replace` what stands there is moved aside, else nothing may;
    with `keep_tokens` tokens count of which nobody can tell whether they were revoked since.

    Raises:
        BackupError: nothing was changed.
        StackError, StoreError: nor was it here; somebody uses the place, say.
    """
    target = Target(target.config.absolute(), target.database and target.database.absolute())
    make_data_directory(target.folder)
    with staging(target.folder) as laid:
        manifest = read(file, passphrase, laid).manifest
        if manifest.database != DATABASE or not (laid / CONFIG).is_file():
            raise BackupError(f"{file}: it was not made by letta-matrix")
        units = dict(_units(laid, manifest, target))
        _check(laid / DATABASE, manifest, file)
        database = units[laid / DATABASE]
        with _alone(target.folder, database, servers=manifest.servers):
            _check_free(units.values(), replace=replace)
            ended = _prepare(laid / DATABASE, database, manifest, keep_tokens)
            os.sync()
            aside = _put(units, database, target.folder)
    return PutBack(manifest, sorted({path.name for path in units.values()}), aside, ended)


def _check(database: Path, manifest: Manifest, file: Path) -> None:
    check_database(database, f"{file}: {DATABASE}")
    if (schema := schema_of(database)) > HEAD:
        raise BackupError(
            f"{file}: it was made by a newer letta-matrix ({visible(manifest.version)}, "
            f"schema {schema}; this one knows {HEAD}): upgrade letta-matrix"
        )


def _units(laid: Path, manifest: Manifest, target: Target) -> Iterator[tuple[Path, Path]]:
    """What is put in place as a whole: files, and the folders of servers; each with its place.
    Raises BackupError for what is in no backup: an archive is not to say where on this machine
    something is written."""
    certificates = certificates_in(laid / CONFIG)
    for path in sorted(laid.rglob("*")):
        name = str(path.relative_to(laid))
        top = name.partition("/")[0]
        if top in SERVERS and manifest.servers and (laid / top).is_dir():
            if name == top:
                yield path, target.folder / name
        elif path.is_dir():
            continue
        elif name == DATABASE:
            yield path, _place(manifest, target)
        elif name == CONFIG:
            yield path, target.config
        elif name in SINGLE or is_named(name, certificates):
            yield path, target.folder / name
        else:
            raise BackupError(f"{name!r} is in no backup: it was not made by letta-matrix")


def _place(manifest: Manifest, target: Target) -> Path:
    """Where the database is put. Raises BackupError."""
    if target.database is not None:
        return target.database
    place = Path(manifest.place)
    if not is_beside(manifest.place):
        told = visible(str(place))
        raise BackupError(
            f"its configuration has the database at {told}: say where to put it by --database "
            f"{told}, or elsewhere, and change `database.url`"
        )
    return target.folder / place


@contextlib.contextmanager
def _alone(folder: Path, database: Path, *, servers: bool) -> Generator[None]:
    """Nobody else uses the place. Raises StackError, StoreError."""
    with contextlib.ExitStack() as locks:
        if servers or (folder / LOCK).exists():
            locks.enter_context(exclusive(folder))
        database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        locks.enter_context(held(database))
        yield


def _check_free(places: Iterable[Path], *, replace: bool) -> None:
    there = [path for path in places if os.path.lexists(path)]
    if there and not replace:
        names = ", ".join(visible(str(path)) for path in there)
        raise BackupError(f"something stands there already: {names}; --replace moves it aside")


def _prepare(staged: Path, database: Path, manifest: Manifest, keep_tokens: bool) -> Ended:
    present = database if database.is_file() and _used(database) > manifest.made_at else None
    gap = Gap(manifest.made_at, time.time())
    ended = prepare(staged, present, gap, same_moment=manifest.servers, keeps_tokens=keep_tokens)
    for suffix in (".lock", *_BESIDE):
        staged.with_name(staged.name + suffix).unlink(missing_ok=True)
    return ended


def _used(database: Path) -> float:
    """When it was last written to (Unix time)."""
    files = [database, database.with_name(f"{database.name}-wal")]
    return max(file.stat().st_mtime for file in files if file.exists())


def _put(units: Mapping[Path, Path], database: Path, folder: Path) -> list[Path]:
    """Let everything take its place, or nothing; the folders that hold what stood there. Whoever is
    killed meanwhile leaves a note in `folder`."""
    swap = Swap()
    try:
        unfinished.begin(folder)
        for staged, place in units.items():
            if place == database:
                _settle(place)
                for suffix in _BESIDE:
                    swap.away(place.with_name(place.name + suffix))
            swap.put(staged, place)
        swap.sync()
        unfinished.end(folder)
    except BaseException as error:
        _take_back(swap, folder, error)
        if not isinstance(error, OSError):
            raise
        raise BackupError(
            f"not put in place, all is as before: {error.filename}: {error.strerror}"
        ) from None
    return swap.aside


def _take_back(swap: Swap, folder: Path, why: BaseException) -> None:
    """Raises BackupError where not all is as before."""
    faults = swap.undo()
    try:
        if not faults:
            unfinished.end(folder)
            return
    except OSError as error:
        faults.append(error)
    stays = "; ".join(f"{one.filename}: {one.strerror}" for one in faults)
    kept = ", ".join(str(one) for one in swap.aside)
    raise BackupError(
        f"not put in place ({why}), and not all could be taken back ({stays}); what stood there "
        f"is in {kept}"
    ) from why


def _settle(database: Path) -> None:
    """Take in what is in the log of a database that nobody has open; one that is damaged stays as
    it is."""
    if not database.is_file():
        return
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
