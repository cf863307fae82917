"""Generated avatars: a symmetric pattern on a soft gradient, drawn from the agent id."""

import colorsys
import hashlib
import struct
import zlib

SIZE = 256
"""Width and height in pixels."""

_CELLS = 5
_CELL = 34
_MARGIN = (SIZE - _CELLS * _CELL) // 2
_RADIUS = 12
_SHADES = 64


def avatar_png(agent_id: str) -> bytes:
    """A PNG of 256 x 256 pixels, always the same for the same agent id, below 6 kB."""
    digest = hashlib.sha256(agent_id.encode("utf-8", "surrogatepass")).digest()
    pixels = _pixels(_pattern(digest))
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 3, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", _palette(digest)),
            _chunk(b"IDAT", zlib.compress(pixels, 6)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _palette(digest: bytes) -> bytes:
    """Shades of the background, then shades of the pattern."""
    hue = digest[0] / 256
    turn = 0.06 + digest[1] / 256 * 0.12
    background = _ramp((hue, 0.52, 0.62), (hue + turn, 0.42, 0.62))
    return background + _ramp((hue + 0.03, 0.93, 0.75), (hue + turn, 0.86, 0.75))


def _ramp(start: tuple[float, float, float], end: tuple[float, float, float]) -> bytes:
    """Colours from `start` to `end`, both as (hue, lightness, saturation)."""
    colours = bytearray()
    for shade in range(_SHADES):
        part = shade / (_SHADES - 1)
        mixed = [a + (b - a) * part for a, b in zip(start, end, strict=True)]
        colours += bytes(round(255 * c) for c in colorsys.hls_to_rgb(mixed[0] % 1, *mixed[1:]))
    return bytes(colours)


def _pattern(digest: bytes) -> list[list[bool]]:
    """Rows of cells, the right half mirroring the left; between 9 and 16 of 25 are set."""
    bits = int.from_bytes(digest[2:], "big")
    while True:
        rows: list[list[bool]] = []
        for row in range(_CELLS):
            left = [bool(bits >> (3 * row + column) & 1) for column in range(3)]
            rows.append([*left, left[1], left[0]])
        if 9 <= sum(map(sum, rows)) <= 16:
            return rows
        bits = bits >> 1 | 1 << 240


def _pixels(pattern: list[list[bool]]) -> bytes:
    """Palette indices, each row led by PNG filter 0; both ramps run along the diagonal."""
    ramp = bytes(place * _SHADES // (2 * SIZE) for place in range(2 * SIZE))
    raised = bytes(shade + _SHADES for shade in ramp)
    rows: list[bytes] = []
    for y in range(SIZE):
        row = bytearray(ramp[y : y + SIZE])
        cell, inside = divmod(y - _MARGIN, _CELL)
        if 0 <= cell < _CELLS:
            for start, end in _spans(pattern, cell, inside):
                row[start:end] = raised[y + start : y + end]
        rows.append(b"\0" + bytes(row))
    return b"".join(rows)


def _spans(pattern: list[list[bool]], row: int, inside: int) -> list[tuple[int, int]]:
    """Where the set cells of a row lie at the height `inside` of it, corners rounded."""
    inset = _inset(inside)
    cells = enumerate(pattern[row])
    starts = [_MARGIN + column * _CELL for column, is_set in cells if is_set]
    return [(start + inset + 1, start + _CELL - inset - 1) for start in starts]


def _inset(inside: int) -> int:
    edge = min(inside, _CELL - 1 - inside)
    if edge >= _RADIUS:
        return 0
    depth = _RADIUS - edge - 0.5
    return round(_RADIUS - (_RADIUS**2 - depth**2) ** 0.5)
