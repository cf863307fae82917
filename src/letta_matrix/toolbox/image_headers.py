"""What the first bytes of an image tell: its format and size. No image is decoded here."""

from collections.abc import Callable
from typing import NamedTuple

_MOST = 1_000
"""Steps through a file that its header takes at most; real ones take a few dozen."""

_NO_SIZE = {0xC4, 0xC8, 0xCC}
"""JPEG markers among those of frames that are of none (ITU-T T.81, table B.1)."""


class Shape(NamedTuple):
    """A media type, and pixels."""

    media_type: str
    width: int
    height: int


def image_shape(data: bytes) -> Shape | None:
    """The shape of a PNG, JPEG, GIF or WebP; None for anything else, or where the bytes end too
    early to tell."""
    for magic, read in _FORMATS.items():
        if data.startswith(magic):
            shape = read(data)
            return shape if shape is not None and shape.width and shape.height else None
    return None


def _png(data: bytes) -> Shape | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    return Shape("image/png", _big(data[16:20]), _big(data[20:24]))


def _gif(data: bytes) -> Shape | None:
    if len(data) < 10 or data[3:6] not in (b"87a", b"89a"):
        return None
    return Shape("image/gif", _little(data[6:8]), _little(data[8:10]))


def _jpeg(data: bytes) -> Shape | None:
    at = 2
    for _ in range(_MOST):
        if at + 9 > len(data) or data[at] != 0xFF:
            break
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
            return Shape("image/jpeg", _big(data[at + 7 : at + 9]), _big(data[at + 5 : at + 7]))
        # Fill bytes may stand before a marker.
        at += 1 if marker == 0xFF else 2 + max(_big(data[at + 2 : at + 4]), 2)
    return None


def _webp(data: bytes) -> Shape | None:
    if len(data) < 30 or data[8:12] != b"WEBP":
        return None
    chunk = data[12:16]
    if chunk == b"VP8X":
        size = _little(data[24:27]) + 1, _little(data[27:30]) + 1
    elif chunk == b"VP8L":
        bits = _little(data[21:25])
        size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif chunk == b"VP8 ":
        size = _little(data[26:28]) & 0x3FFF, _little(data[28:30]) & 0x3FFF
    else:
        return None
    return Shape("image/webp", *size)


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


_FORMATS: dict[bytes, Callable[[bytes], Shape | None]] = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"GIF8": _gif,
    b"\xff\xd8": _jpeg,
    b"RIFF": _webp,
}
