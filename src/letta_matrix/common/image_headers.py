"""What the first bytes of an image tell: its format and size. No image is decoded here."""

from typing import NamedTuple

_MOST = 1_000
"""Steps through a file that its header takes at most; real ones take a few dozen."""

_NO_SIZE = {0xC4, 0xC8, 0xCC}
"""JPEG markers among those of frames that are of none (ITU-T T.81, table B.1)."""


Size = tuple[int, int]


class Shape(NamedTuple):
    """A media type, and pixels."""

    media_type: str
    width: int
    height: int


def image_type(data: bytes) -> str | None:
    """The media type of a PNG, JPEG, GIF or WebP by its first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)


def image_shape(data: bytes) -> Shape | None:
    """The shape of a PNG, JPEG, GIF or WebP; None for anything else, or where the bytes end too
    early to tell."""
    kind = image_type(data)
    size = _SIZES[kind](data) if kind is not None else None
    return Shape(str(kind), *size) if size is not None and all(size) else None


def little(data: bytes) -> int:
    """A number whose lowest byte comes first."""
    return int.from_bytes(data, "little")


def _png(data: bytes) -> Size | None:
    is_whole = len(data) >= 24 and data[12:16] == b"IHDR"
    return (_big(data[16:20]), _big(data[20:24])) if is_whole else None


def _gif(data: bytes) -> Size | None:
    return (little(data[6:8]), little(data[8:10])) if len(data) >= 10 else None


def _jpeg(data: bytes) -> Size | None:
    at = 2
    for _ in range(_MOST):
        if at + 9 > len(data) or data[at] != 0xFF:
            break
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
            return _big(data[at + 7 : at + 9]), _big(data[at + 5 : at + 7])
        # Fill bytes may stand before a marker.
        at += 1 if marker == 0xFF else 2 + max(_big(data[at + 2 : at + 4]), 2)
    return None


def _webp(data: bytes) -> Size | None:
    chunk = data[12:16] if len(data) >= 30 else b""
    if chunk == b"VP8X":
        return little(data[24:27]) + 1, little(data[27:30]) + 1
    if chunk == b"VP8L":
        bits = little(data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        return little(data[26:28]) & 0x3FFF, little(data[28:30]) & 0x3FFF
    return None


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
_SIZES = {"image/png": _png, "image/gif": _gif, "image/jpeg": _jpeg, "image/webp": _webp}
