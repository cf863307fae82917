"""One `up` per data folder."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from letta_matrix.common.lock_files import lock
from letta_matrix.stack.errors import StackError

LOCK = "up.lock"


@contextmanager
def exclusive(directory: Path) -> Generator[None]:
    """Hold the data folder; the lock goes with the process, however it ends.

    Raises:
        StackError: another `up` holds it.
    """
    path = directory / LOCK
    file = lock(path)
    if file is None:
        holder = path.read_text(encoding="utf-8").strip() or "?"
        raise StackError(
            f"{directory} is in use by another `letta-matrix up` (process {holder}); "
            "stop it, or name another folder by --data and other ports by --port-offset"
        )
    with file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
