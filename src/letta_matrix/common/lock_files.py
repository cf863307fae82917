"""Files by whose lock a process shows that it lives: the lock ends with it, however it ends."""

import fcntl
from pathlib import Path
from typing import TextIO


def lock(path: Path) -> TextIO | None:
    """The file, locked until it is closed; None where another process holds it."""
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def is_held(path: Path) -> bool:
    """Whether a process that lives holds it."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
