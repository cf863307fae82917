"""One `up` per data folder."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from letta_matrix.stack.errors import StackError

LOCK = "up.lock"


def is_held(lock: Path) -> bool:
    """Whether a process that lives holds the lock file."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def exclusive(directory: Path) -> Generator[None]:
    """Hold the data folder; the lock goes with the process, however it ends.

    Raises:
        StackError: another `up` holds it.
    """
    path = directory / LOCK
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "?"
            raise StackError(
                f"{directory} is in use by another `letta-matrix up` (process {holder}); "
                "stop it, or name another folder by --data and other ports by --port-offset"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
