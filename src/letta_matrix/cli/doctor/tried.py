"""With which versions of its servers the bridge was tried: those that `up` runs."""

import re
from importlib.metadata import PackageNotFoundError, requires

_PINNED = re.compile(r"([\w-]+)==([\w.]+)")


def tried(package: str) -> str:
    """The version of a server's package, "" where that is not known."""
    try:
        pins = [_PINNED.match(one) for one in requires("letta-matrix") or []]
    except PackageNotFoundError:
        return ""
    return next((pin[2] for pin in pins if pin is not None and pin[1] == package), "")


def older(version: str, known: str) -> bool:
    """Whether a version is from before another one, its last number aside; unknown ones are
    not."""
    one, other = _numbers(version), _numbers(known)
    return bool(one and other) and one < other


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
