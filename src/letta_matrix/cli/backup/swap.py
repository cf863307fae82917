"""New files and folders in the place of others, which are kept beside them: all, or nothing."""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

from letta_matrix.cli.backup.folders import sync


class Swap:
    """Puts things in place, and takes that back by `undo`. `aside` are the folders that hold what
    stood there before. `put` and `away` raise OSError."""

    def __init__(self) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._name = f"before-restore-{stamp}-{secrets.token_hex(2)}"
        # Each is there before what it takes back, and does nothing where that was not done.
        self._undo: list[Callable[[], object]] = []
        self._touched: set[Path] = set()
        self.aside: list[Path] = []

    def put(self, staged: Path, place: Path) -> None:
        """Let a file or a folder take its place."""
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._touched.add(place.parent)
        if staged.is_dir() or (place.is_dir() and not place.is_symlink()):
            self.away(place)
        kept = self._kept(place)
        with _near(staged, place) as near:
            back = partial(_remove, place) if kept is None else partial(kept.replace, place)
            self._undo.append(back)
            near.replace(place)

    def away(self, place: Path) -> None:
        """Move aside what stands in a place, if anything does."""
        if os.path.lexists(place):
            there = self._beside(place)
            self._undo.append(partial(_back, there, place))
            place.rename(there)

    def sync(self) -> None:
        """Let all of it survive a power cut. Raises OSError."""
        for folder in {*self._touched, *self.aside}:
            sync(folder)

    def undo(self) -> list[OSError]:
        """Let all be as before; what could not be taken back. Every step is tried."""
        faults: list[OSError] = []
        for step in reversed(self._undo):
            try:
                step()
            except OSError as error:
                faults.append(error)
        for folder in self.aside:
            with contextlib.suppress(OSError):
                folder.rmdir()
        return faults

    def _kept(self, place: Path) -> Path | None:
        """A file under a second name, so that its place is never empty; None for none."""
        if not os.path.lexists(place):
            return None
        there = self._beside(place)
        self._undo.append(partial(there.unlink, missing_ok=True))
        os.link(place, there, follow_symlinks=False)
        return there

    def _beside(self, place: Path) -> Path:
        folder = place.parent / self._name
        if folder not in self.aside:
            self.aside.append(folder)
            folder.mkdir(mode=0o700)
        return folder / place.name


def _back(there: Path, place: Path) -> None:
    if os.path.lexists(there):
        there.rename(place)


def _remove(place: Path) -> None:
    """Take away what was put where nothing stood."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


@contextlib.contextmanager
def _near(staged: Path, place: Path) -> Generator[Path]:
    """What is to take a place, in the file system of that."""
    if staged.stat().st_dev == place.parent.stat().st_dev:
        yield staged
        return
    # A copy of a restore that was killed is written over.
    near = place.with_name(f".{place.name}.restoring")
    near.unlink(missing_ok=True)
    try:
        near.touch(0o600, exist_ok=False)
        shutil.copyfile(staged, near)
        with near.open("rb") as file:
            os.fsync(file.fileno())
        yield near
    finally:
        near.unlink(missing_ok=True)
