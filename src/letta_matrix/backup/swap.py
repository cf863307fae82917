"""New files and folders in the place of others, which are kept beside them: all, or nothing."""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path


class Swap:
    """Puts things in place, and takes that back by `undo`. `aside` are the folders that hold what
    stood there before. Methods raise OSError."""

    def __init__(self) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._name = f"before-restore-{stamp}-{secrets.token_hex(2)}"
        self._undo: list[Callable[[], object]] = []
        self.aside: list[Path] = []

    def put(self, staged: Path, place: Path) -> None:
        """Let a file or a folder take its place."""
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if staged.is_dir() or (place.is_dir() and not place.is_symlink()):
            self.away(place)
        kept = self._kept(place)
        _near(staged, place).replace(place)
        back = partial(place.rename, staged) if kept is None else partial(kept.replace, place)
        self._undo.append(back)

    def away(self, place: Path) -> None:
        """Move aside what stands in a place, if anything does."""
        if os.path.lexists(place):
            there = self._beside(place)
            place.rename(there)
            self._undo.append(partial(there.rename, place))

    def undo(self) -> None:
        """Let all be as before."""
        for step in reversed(self._undo):
            step()
        for folder in self.aside:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _kept(self, place: Path) -> Path | None:
        """A file under a second name, so that its place is never empty; None for none."""
        if not os.path.lexists(place):
            return None
        there = self._beside(place)
        os.link(place, there, follow_symlinks=False)
        self._undo.append(partial(there.unlink, missing_ok=True))
        return there

    def _beside(self, place: Path) -> Path:
        folder = place.parent / self._name
        if folder not in self.aside:
            folder.mkdir(mode=0o700)
            self.aside.append(folder)
        return folder / place.name


def _near(staged: Path, place: Path) -> Path:
    """What is to take a place, in the file system of that."""
    if staged.stat().st_dev == place.parent.stat().st_dev:
        return staged
    near = place.with_name(f".restoring-{secrets.token_hex(4)}")
    shutil.copyfile(staged, near)
    near.chmod(0o600)
    return near
