"""What is read of images and recordings without decoding them."""

import io
import wave
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from letta_matrix.common.audio_headers import audio_seconds, audio_type
from letta_matrix.common.image_headers import image_shape

MAGICS = (
    *(b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"RIFF____WEBPVP8X", b"", b"OggS"),
    *(b"RIFF____WAVEfmt ", b"RIFF____WAVEdata", b"OggS\x01vorbis", b"OggSOpusHead"),
)


def image(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((301, 20), 50).convert(mode).save(file, kind, **options)
    return file.getvalue()


def recording(frames: int, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(2)
        wav.setsampwidth(2)
        wav.setframerate(rate)
        wav.writeframes(b"\0\0\0\0" * frames)
    return file.getvalue()


def page(granule: int, payload: bytes) -> bytes:
    """A page of an Ogg stream (RFC 3533), without its checksum."""
    head = b"OggS\0\0" + granule.to_bytes(8, "little") + bytes(12)
    return head + b"\x01" + bytes([len(payload)]) + payload


def opus(granule: int, skipped: int = 312) -> bytes:
    """The pages of an Opus stream (RFC 7845): its head and its last one."""
    head = b"OpusHead\x01\x01" + skipped.to_bytes(2, "little") + bytes(7)
    return page(0, head) + page(granule, b"sound")


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (image("PNG"), "image/png"),
        (image("PNG", "P"), "image/png"),
        (image("GIF"), "image/gif"),
        (image("JPEG"), "image/jpeg"),
        (image("JPEG", progressive=True, comment=b"x" * 9_000), "image/jpeg"),
        (image("JPEG", "CMYK"), "image/jpeg"),
        (image("WEBP"), "image/webp"),
        (image("WEBP", lossless=True), "image/webp"),
        (image("WEBP", exif=b"Exif\0\0" + bytes(20)), "image/webp"),
    ],
)
def test_the_size_of_an_image_is_known(data: bytes, media_type: str) -> None:
    assert image_shape(data) == (media_type, 301, 20)
    for length in range(0, len(data), 7):
        assert image_shape(data[:length]) in (None, (media_type, 301, 20))


@pytest.mark.parametrize("data", [b"", b"<svg/>", image("BMP"), image("PNG")[:8] + bytes(40)])
def test_what_is_no_image_of_ours_has_no_size(data: bytes) -> None:
    assert image_shape(data) is None


@pytest.mark.parametrize(
    ("data", "media_type", "seconds"),
    [
        (recording(4000), "audio/wav", 0.5),
        (recording(4000)[:-8000], "audio/wav", 0.25),
        (opus(48_000 * 3 + 312), "audio/ogg", 3.0),
        (opus(100), "audio/ogg", None),
        (page(0, b"\x01vorbis" + bytes(5) + (8000).to_bytes(4, "little")), "audio/ogg", None),
        (
            page(0, b"\x01vorbis" + bytes(5) + (8000).to_bytes(4, "little")) + page(4000, b"s"),
            "audio/ogg",
            0.5,
        ),
        (b"ID3\x04", "audio/mpeg", None),
        (b"\0\0\0\x20ftypM4A ", "audio/mp4", None),
        (image("PNG"), "", None),
    ],
)
def test_the_length_of_a_recording_is_known(
    data: bytes, media_type: str, seconds: float | None
) -> None:
    assert audio_type(data) == media_type
    assert audio_seconds(data) == seconds


@given(st.sampled_from(MAGICS), st.binary(max_size=80))
def test_no_bytes_are_stumbled_over(magic: bytes, rest: bytes) -> None:
    shape, seconds = image_shape(magic + rest), audio_seconds(magic + rest)
    assert shape is None or (shape.width > 0 and shape.height > 0)
    assert seconds is None or seconds > 0


def test_long_headers_are_not_read_to_their_end() -> None:
    padded = b"\xff\xd8" + b"\xff" * 5_000 + image("JPEG")[2:]
    assert image_shape(padded) is None
    wav = recording(4000)
    assert audio_seconds(wav[:12] + b"junk\0\0\0\0" * 5_000 + wav[12:]) is None
