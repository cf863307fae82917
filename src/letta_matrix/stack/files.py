"""Files that must never be half written and never be readable by others."""

import errno
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from letta_matrix.private_files import write_private
from letta_matrix.stack.errors import StackError

_OF_THE_DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.EIO),
)


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


def keep_secret(path: Path, *, length: int = 24) -> str:
    """The secret kept in `path`; made and stored 0600 the first time."""
    if path.is_file() and (kept := path.read_text(encoding="utf-8").strip()):
        return kept
    secret = secrets.token_urlsafe(length)
    write_private(path, secret + "\n")
    return secret
