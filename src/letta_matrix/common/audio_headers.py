"""What the bytes of an audio file tell without decoding them: its format and length."""

from letta_matrix.common.image_headers import little

_MAGIC = {
    b"OggS": "audio/ogg",
    b"ID3": "audio/mpeg",
    b"\xff\xfb": "audio/mpeg",
    b"\xff\xf3": "audio/mpeg",
    b"\xff\xf2": "audio/mpeg",
    b"fLaC": "audio/flac",
    b"\x1aE\xdf\xa3": "audio/webm",
}
_OPUS_RATE = 48_000
"""Of the granule positions of any Opus stream (RFC 7845, section 4)."""

_MOST = 1_000
"""Chunks of a WAV file that are looked at; real ones have a handful."""

_LAST_PAGES = 70_000
"""Bytes in which the last page of an Ogg file begins: a page has at most 65,307."""


def audio_type(data: bytes) -> str:
    """The media type, "" for what is no audio file that we know."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "audio/wav"
    if data[4:8] == b"ftyp":
        return "audio/mp4"
    return next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), "")


def audio_seconds(data: bytes) -> float | None:
    """How long a whole Ogg (Opus, Vorbis) or WAV file plays; None for others."""
    if data.startswith(b"OggS"):
        return _ogg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return _wav(data)
    return None


def _ogg(data: bytes) -> float | None:
    if (opus := data.find(b"OpusHead", 0, 200)) >= 0:
        rate, skipped = _OPUS_RATE, little(data[opus + 10 : opus + 12])
    elif (vorbis := data.find(b"\x01vorbis", 0, 200)) >= 0:
        rate, skipped = little(data[vorbis + 12 : vorbis + 16]), 0
    else:
        return None
    last = data.rfind(b"OggS", max(len(data) - _LAST_PAGES, 0))
    samples = little(data[last + 6 : last + 14]) - skipped
    # All bits are set on a page where no packet ends.
    return samples / rate if last > 0 and rate and 0 < samples < 2**48 else None


def _wav(data: bytes) -> float | None:
    at, bytes_a_second = 12, 0
    for _ in range(_MOST):
        if at + 8 > len(data):
            break
        name, length = data[at : at + 4], little(data[at + 4 : at + 8])
        if name == b"fmt ":
            bytes_a_second = little(data[at + 16 : at + 20])
        if name == b"data":
            # Written while recording, it may claim more than there is.
            length = min(length, len(data) - at - 8)
            return length / bytes_a_second if bytes_a_second and length else None
        at += 8 + length + length % 2
    return None
