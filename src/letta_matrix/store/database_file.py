"""The file that a database is in: that it is this process's alone, and stays where it is."""

import fcntl
import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from letta_matrix.store.checkup import check
from letta_matrix.store.faults import StoreError, StoreUnavailable


class DatabaseFile:
    """The file at `path`, and the lock beside it. Both are ours between `take` and `release`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None
        self._lock: int | None = None

    def take(self) -> None:
        """Make it, for our user alone, where there is none. Raises StoreError, also where another
        process has it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self._path, error) from None
        self._lock = _locked(self._path)
        file = _opened(self._path)
        self._identity = _identity(os.fstat(file))
        os.close(file)
        _make_private(self._path)

    def release(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check_place(self) -> None:
        """Raises StoreUnavailable where another file, or none, stands in its place."""
        # SQLite goes on in a file that has no name any more, and all of it would be lost.
        if self._identity is None:
            return
        try:
            there = _identity(self._path.stat())
        except OSError:
            there = None
        if there != self._identity:
            raise StoreUnavailable(
                f"{self._path}: the database was deleted or replaced while it is in use",
                "stop the bridge, put the file back (or a backup of it), and start the bridge "
                "again; until then no message is taken",
            )


@contextmanager
def held(path: Path) -> Generator[None]:
    """The place of a database is this process's alone meanwhile, whether one is there or not.
    Raises StoreError where another process has it."""
    lock = _locked(path)
    try:
        yield
    finally:
        os.close(lock)


def check_if_alone(path: Path) -> None:
    """Look at a database as a start of the bridge does, unless a bridge has it open.

    Raises:
        StoreError: it is damaged, or cannot be read.
    """
    with ExitStack() as alone:
        try:
            alone.enter_context(held(path))
        except StoreError:
            return
        check(path)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from None


def _make_private(path: Path) -> None:
    """A copy that was put back, or what an earlier version wrote, may be for everybody to read.
    New files beside it get its mode from SQLite."""
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        # Somebody else's is theirs to change.
        with suppress(FileNotFoundError, PermissionError):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: the database cannot be written: {error.strerror}; the bridge's user has to own "
        "it and its folder, or name another file by `database.url`"
    )


def _locked(path: Path) -> int:
    """An open file beside the database, locked; the kernel unlocks it however we end."""
    # Resolved, so that a link to the database leads to the same lock.
    lock = _opened(path.resolve().with_name(path.resolve().name + ".lock"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        if not isinstance(error, BlockingIOError):
            raise StoreError(f"{path}: the database cannot be locked: {error.strerror}") from None
        raise StoreError(
            f"the database {path} is in use by another letta-matrix (pid {holder}): stop that one "
            "first, or give each a `database.url` of its own"
        ) from None
    # The pid is for error messages only; a full disk says so elsewhere.
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
    return lock
