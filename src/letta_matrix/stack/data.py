"""The folders that hold our files: an embedded stack's, and those of a bridge by itself."""

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from letta_matrix.stack.errors import BadFlagError, StackError


def default_data_directory() -> Path:
    """`letta-matrix` in the XDG data directory (XDG Base Directory Specification).

    Raises:
        StackError: there is no home to put it into.
    """
    base = os.environ.get("XDG_DATA_HOME", "")
    if base.startswith("/"):
        return Path(base) / "letta-matrix"
    try:
        return Path.home() / ".local" / "share" / "letta-matrix"
    except RuntimeError:
        raise StackError("no home folder is known; name a folder by --data") from None


def make_data_directory(path: Path) -> Path:
    """Create the folder, or make an existing one readable by its owner alone; its absolute path.

    Raises:
        BadFlagError: it cannot be created or written to, or belongs to somebody else.
    """
    directory = path.expanduser().absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadFlagError(
            f"{directory}: cannot be created: {error.strerror}; name another folder by --data"
        ) from None
    if directory.stat().st_mode & 0o077:
        try:
            directory.chmod(0o700)
        except OSError:
            raise BadFlagError(
                f"{directory}: others may read it, and it is not yours to change; name another "
                "folder by --data"
            ) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise BadFlagError(f"{directory}: cannot be written to; name another folder by --data")
    return directory


def check_folders(folders: Iterable[Path], warn: Callable[[str], None]) -> None:
    """See that nobody else can put files into `folders`, which may hold more than ours and so stay
    as they are; where others may look in, `warn` is told. Ours in there are private themselves.

    Raises:
        StackError: somebody else can, and so take the place of the database or a socket.
    """
    for folder in sorted({folder.resolve() for folder in folders}):
        if not folder.is_dir():
            continue  # made later, for its owner alone
        mode = folder.stat().st_mode
        if mode & 0o002 and not mode & stat.S_ISVTX:
            raise StackError(
                f"{folder}: other users may put files there in the place of the bridge's: "
                f"`chmod 700 {folder}`, or use a folder of its own"
            )
        if mode & 0o077:
            more = " and write to it" if mode & 0o022 else ""
            unless = f"`chmod 700 {folder}` unless they have to"
            warn(f"other users may look into {folder}{more}; {unless}")
