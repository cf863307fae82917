"""Encrypted files: every program for age can open them, and nothing that was changed opens."""

import base64
import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta_matrix.cli.backup.age import INTRO, Sealing, Unsealing
from letta_matrix.cli.backup.faults import BackupError

BY_ANOTHER_PROGRAM = base64.b64decode(
    "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCAwRTZGdm9uZWl3UjB5TjNNbS8zdWZnIDE2ClJwWWlGdUhh"
    "N0V3K2Z0VzF3TStOUnhlZ0tFdy83cGZFVUdla0tCeWEwQjQKLS0tIHlSQ3RXdmhQVWpzdW1qQVN1eThDTHZpaHZz"
    "UjkweDhibHhSRDlEUVdXSDgKpGYSvlzRjlXJCsrWY/pY9MMnfZpxWj1UF1hQ9BbSOwJiH7y4H/HX2vA="
)
"""Made by pyrage 1.4.0, which is age in Rust."""
CHUNK = 65536
SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 17)


def sealed(data: bytes, passphrase: str = "a passphrase", at_once: int = 50_000) -> bytes:
    target = io.BytesIO()
    sealing = Sealing(target, passphrase, work=1)
    for begin in range(0, len(data), at_once):
        sealing.write(data[begin : begin + at_once])
    sealing.finish()
    return target.getvalue()


def opened(data: bytes, passphrase: str = "a passphrase") -> bytes:
    return io.BufferedReader(Unsealing(io.BytesIO(data), passphrase)).read()


def test_a_file_of_another_program_is_opened() -> None:
    assert opened(BY_ANOTHER_PROGRAM, "correct horse äö") == b"put back\n"


@pytest.mark.parametrize("size", SIZES)
def test_what_is_sealed_is_opened(size: int) -> None:
    data = random.Random(size).randbytes(size)
    for at_once in (7_001, CHUNK, 10**6):
        assert opened(sealed(data, at_once=at_once)) == data


def test_no_file_is_like_another() -> None:
    assert sealed(b"the same") != sealed(b"the same")


def test_another_passphrase_is_said() -> None:
    with pytest.raises(BackupError, match="the passphrase is not the one"):
        opened(sealed(b"secret"), "another one")


@pytest.mark.parametrize("size", SIZES)
def test_a_file_that_ends_too_early_is_not_opened(size: int) -> None:
    whole = sealed(bytes(size))
    lengths = {*range(0, min(300, len(whole))), *range(0, len(whole), 9_973), len(whole) - 1}
    # On the border of chunks, too: there all that is left is whole.
    header = len(whole) - size - 16 * max(1, -(-size // CHUNK))
    lengths |= {header + number * (CHUNK + 16) for number in range(size // CHUNK)}
    for length in sorted(lengths):
        with pytest.raises(BackupError, match="damaged"):
            opened(whole[:length])


@given(st.data())
def test_no_bit_can_be_changed(data: st.DataObject) -> None:
    content = data.draw(st.binary(max_size=100)) * data.draw(st.sampled_from([1, 1500]))
    whole = bytearray(sealed(content))
    place = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[place // 8] ^= 1 << place % 8
    with pytest.raises(BackupError):
        opened(bytes(whole))


@given(st.binary(max_size=600))
def test_any_other_file_is_refused(data: bytes) -> None:
    for one in (data, INTRO + data):
        with pytest.raises(BackupError):
            opened(one)


def test_chunks_stay_in_their_order() -> None:
    content = bytes(CHUNK) + bytes([1]) * CHUNK + b"end"
    whole = sealed(content)
    header = len(whole) - len(content) - 3 * 16
    chunks = [whole[header + n * (CHUNK + 16) :][: CHUNK + 16] for n in range(3)]
    for order in ((1, 0, 2), (0, 2), (0, 1, 1, 2), (0, 1, 2, 2)):
        with pytest.raises(BackupError, match="damaged"):
            opened(whole[:header] + b"".join(chunks[n] for n in order))


def test_a_file_asks_for_no_memory_without_bounds() -> None:
    whole = sealed(b"x").replace(b" 1\n", b" 40\n", 1)
    with pytest.raises(BackupError, match="open it with `age`"):
        opened(whole)
