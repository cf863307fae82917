"""Files that are never half written and never readable by others."""

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, mode 0600."""
    with _whole(path, text) as temporary:
        temporary.replace(path)


def make_private(path: Path, text: str) -> None:
    """The same where there is no `path` yet; of several who make it at once one wins."""
    with _whole(path, text) as temporary, suppress(FileExistsError):
        path.hardlink_to(temporary)


@contextmanager
def private_beside(path: Path) -> Generator[Path]:
    """An empty file beside `path`, mode 0600, gone afterwards unless it was moved."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _whole(path: Path, text: str) -> Generator[Path]:
    """The same, with `text` in it."""
    with private_beside(path) as temporary:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
