"""Files that must never be half written and never be readable by others."""

import errno
import os
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from letta_matrix.common.private_files import write_private
from letta_matrix.stack.errors import StackError

_OF_THE_DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.EIO),
)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def writing_in(directory: Path) -> Generator[None]:
    """Files below `directory` are written in this block.

    Raises:
        StackError: for a full disk, a missing right or the like; one line that names it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        raise StackError(f"{directory}: cannot be written to: {os.strerror(error.errno)}") from None


def write_private_if_changed(path: Path, text: str) -> bool:
    """Like `write_private`, but leaves a file that already says so; tells whether it wrote."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    write_private(path, text)
    return True


def write_beneath(base: Path, inner: Path, text: str) -> list[Path]:
    """Replace the file `inner` below the folder `base` by `text`, mode 0600, whatever others put
    there: no link below `base` is followed. What is in the way is moved aside, and named.

    Raises:
        OSError: `base` itself is a link, or cannot be written to.
    """
    aside = list[Path]()
    folder = _descend(base, inner.parent, aside)
    try:
        temporary = f".{inner.name}.{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if _is_folder(inner.name, folder):
            aside.append(base / inner.parent / _move_aside(inner.name, folder))
        os.replace(temporary, inner.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)
    return aside


def read_beneath(base: Path, inner: Path, most: int = 10_000_000) -> str | None:
    """The first `most` bytes of the file `inner` below `base`, None where there is none that is
    reached without a link."""
    folder = -1
    try:
        folder = os.open(base, _FOLDER)
        for name in inner.parent.parts:
            above, folder = folder, os.open(name, _FOLDER, dir_fd=folder)
            os.close(above)
        descriptor = os.open(inner.name, _FILE, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as file:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            return file.read(most).decode("utf-8", "replace") if is_file else None
    except OSError:
        return None
    finally:
        if folder >= 0:
            os.close(folder)


def make_folder_beneath(base: Path, inner: Path) -> list[Path]:
    """Make the folder `inner` below `base` exist, 0700 where it is new, as `write_beneath` does;
    what was moved aside for it."""
    aside = list[Path]()
    os.close(_descend(base, inner, aside))
    return aside


def _descend(base: Path, inner: Path, aside: list[Path]) -> int:
    """A descriptor of the folder `inner` below `base`, made where it is missing."""
    folder, at = os.open(base, _FOLDER), base
    for name in inner.parts:
        above = folder
        try:
            folder = _enter(name, above, at, aside)
        finally:
            os.close(above)
        at /= name
    return folder


def _enter(name: str, above: int, at: Path, aside: list[Path]) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=above)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EACCES):
            raise
        aside.append(at / _move_aside(name, above))
    os.mkdir(name, 0o700, dir_fd=above)
    return os.open(name, _FOLDER, dir_fd=above)


def _move_aside(name: str, folder: int) -> str:
    other = f"{name}.aside-{secrets.token_hex(4)}"
    os.rename(name, other, src_dir_fd=folder, dst_dir_fd=folder)
    return other


def _is_folder(name: str, folder: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def keep_secret(path: Path, *, length: int = 24) -> str:
    """The secret kept in `path`; made and stored 0600 the first time."""
    if path.is_file() and (kept := path.read_text(encoding="utf-8").strip()):
        return kept
    secret = secrets.token_urlsafe(length)
    write_private(path, secret + "\n")
    return secret
