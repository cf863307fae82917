"""Files that are never half written and never readable by others."""

import errno
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path


class UnwritableError(OSError):
    """A file cannot be written; one line that names it and says what to do."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(error.errno, error.strerror)
        self._path = path

    def __str__(self) -> str:
        match self.errno:
            case errno.ENOENT | errno.ENOTDIR:
                says = f"there is no folder {self._path.parent}: make it, or name another path"
            case errno.EISDIR:
                return f"{self._path} is a folder: name a file"
            case errno.ENOSPC | errno.EDQUOT:
                says = f"{self.strerror}: make room, or name another path"
            case _:
                says = f"{self.strerror}: name another path, or let it be written to"
        return f"{self._path}: cannot be written: {says}"


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, mode 0600. Raises UnwritableError."""
    with _whole(path, text) as temporary:
        temporary.replace(path)


def make_private(path: Path, text: str) -> None:
    """The same where there is no `path` yet; of several who make it at once one wins.
    Raises UnwritableError."""
    with _whole(path, text) as temporary, suppress(FileExistsError):
        path.hardlink_to(temporary)


@contextmanager
def private_beside(path: Path) -> Generator[Path]:
    """An empty file beside `path`, mode 0600, gone afterwards unless it was moved.

    Raises:
        UnwritableError: it cannot be made, written or moved.
    """
    if not path.name:
        raise UnwritableError(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        # A write names no file, and nobody knows ours.
        if error.filename is None or str(error.filename) == str(temporary):
            raise UnwritableError(path, error) from error
        raise


@contextmanager
def _whole(path: Path, text: str) -> Generator[Path]:
    """The same, with `text` in it."""
    with private_beside(path) as temporary:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
