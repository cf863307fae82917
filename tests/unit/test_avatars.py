"""Generated avatars: valid small PNGs, the same for the same agent."""

import struct
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.calls import calls

from letta_matrix.matrix.avatars import SIZE, avatar_png


def chunks(png: bytes) -> dict[bytes, bytes]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    found: dict[bytes, bytes] = {}
    position = 8
    while position < len(png):
        (length,) = struct.unpack_from(">I", png, position)
        kind = png[position + 4 : position + 8]
        data = png[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", png, position + 8 + length)
        assert checksum == zlib.crc32(kind + data)
        found[kind] = data
        position += 12 + length
    return found


@settings(max_examples=40, deadline=None)
@given(st.text())
def test_every_id_gets_a_valid_small_png(agent_id: str) -> None:
    png = avatar_png(agent_id)
    assert len(png) < 6_000
    parts = chunks(png)
    assert list(parts) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", parts[b"IHDR"]) == (SIZE, SIZE, 8, 3, 0, 0, 0)
    pixels = zlib.decompress(parts[b"IDAT"])
    assert len(pixels) == SIZE * (SIZE + 1)
    assert max(pixels) < len(parts[b"PLTE"]) // 3


def test_deterministic_and_distinct() -> None:
    ids = [f"agent-{number}" for number in range(50)]
    assert [avatar_png(one) for one in ids] == [avatar_png(one) for one in ids]
    assert len({avatar_png(one) for one in ids}) == 50


def test_the_pattern_is_symmetric() -> None:
    pixels = zlib.decompress(chunks(avatar_png("agent-1"))[b"IDAT"])
    for y in range(SIZE):
        raised = [shade >= 64 for shade in pixels[y * (SIZE + 1) + 1 : (y + 1) * (SIZE + 1)]]
        assert raised == raised[::-1]


def test_drawing_costs_little_whatever_the_id() -> None:
    costs = {calls(lambda one=one: avatar_png(one)) for one in ("", "agent-1", "x" * 100_000)}
    assert max(costs) < 10_000
