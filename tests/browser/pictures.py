"""Pictures to send."""

import struct
import zlib


def red_png(width: int, height: int) -> bytes:
    """A PNG in one colour; sizes in pixels."""
    rows = zlib.compress((b"\0" + b"\xd0\x40\x30" * width) * height)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
