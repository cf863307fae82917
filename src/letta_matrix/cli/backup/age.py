"""Files encrypted with a passphrase, in the format of age (age-encryption.org/v1), so that `age -d`
and every other program for it can open them.

A random file key is wrapped with what scrypt makes of the passphrase. What it encrypts is cut into
chunks of 64 KiB, each sealed with its number and whether it is the last (STREAM): none can be
changed, moved, left out or cut off unseen.
"""

import io
import os
import re
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, BinaryIO

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from letta_matrix.cli.backup.faults import BackupError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

INTRO = b"age-encryption.org/v1\n"
"""What every such file begins with."""
WORK = 17
"""The passphrase costs 2^17 rounds of scrypt to try: 128 MB and about half a second."""

_MOST_WORK = 20
"""What we take the trouble for, or a file could ask for any amount of memory."""
_CHUNK = 64 * 1024
_TAG = 16
_NONCE = 16
_SALT = b"age-encryption.org/v1/scrypt"
_HEADER = re.compile(
    rb"age-encryption\.org/v1\n"
    rb"-> scrypt (?P<salt>[A-Za-z0-9+/]{22}) (?P<work>[1-9][0-9]?)\n"
    rb"(?P<body>[A-Za-z0-9+/]{43})\n"
    rb"--- (?P<mac>[A-Za-z0-9+/]{43})\n"
)
_HEADER_SIZE = len(INTRO) + 200


class Sealing(io.RawIOBase):
    """Encrypts what is written to it into `target`, which is whole once this is closed."""

    def __init__(self, target: BinaryIO, passphrase: str, work: int = WORK) -> None:
        self._target = target
        file_key, nonce = os.urandom(16), os.urandom(_NONCE)
        self._cipher = _payload_cipher(file_key, nonce)
        self._waiting = bytearray()
        self._number = 0
        target.write(_header(file_key, passphrase, work) + nonce)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        self._waiting += data
        # A full chunk may be the last one: it waits for what comes behind it.
        while len(self._waiting) > _CHUNK:
            self._seal(bytes(self._waiting[:_CHUNK]), last=False)
            del self._waiting[:_CHUNK]
        return len(data)

    def finish(self) -> None:
        """Write the last chunk. Without it whoever reads the file takes it for cut off."""
        self._seal(bytes(self._waiting), last=True)
        self._waiting.clear()

    def _seal(self, chunk: bytes, *, last: bool) -> None:
        self._target.write(self._cipher.encrypt(_nonce(self._number, last=last), chunk, None))
        self._number += 1


class Unsealing(io.RawIOBase):
    """Reads what such a file holds.

    Raises BackupError: when made, for another file and a wrong passphrase; when read, for what is
    not as it was written.
    """

    def __init__(self, source: BinaryIO, passphrase: str) -> None:
        head = source.read(_HEADER_SIZE)
        found = _HEADER.match(head)
        if found is None or not all(_is_plain(found[name]) for name in ("salt", "body", "mac")):
            raise BackupError("it is damaged: its head is not that of a file with a passphrase")
        file_key = _file_key(found, passphrase)
        _check_head(head[: found.start("mac") - 1], found["mac"], file_key)
        self._source = source
        self._ahead = head[found.end() :]
        nonce = self._bytes(_NONCE)
        if len(nonce) < _NONCE:
            raise BackupError(_CUT_OFF)
        self._cipher = _payload_cipher(file_key, nonce)
        self._number = 0
        self._next = self._bytes(_CHUNK + _TAG)
        self._plain = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        if not self._plain and not self._ended:
            self._plain = self._open()
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._plain))
        view[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def _open(self) -> bytes:
        chunk, self._next = self._next, self._bytes(_CHUNK + _TAG)
        # Only a full chunk has another behind it.
        last = not self._next
        try:
            plain = self._cipher.decrypt(_nonce(self._number, last=last), chunk, None)
        except InvalidTag:
            raise BackupError(_CUT_OFF if last else _CHANGED) from None
        if last and not plain and self._number:
            raise BackupError(_CHANGED)
        self._number += 1
        self._ended = last
        return plain

    def _bytes(self, count: int) -> bytes:
        """As many bytes, fewer at the end alone."""
        while len(self._ahead) < count and (more := self._source.read(count - len(self._ahead))):
            self._ahead += more
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        return taken


_CHANGED = "it is damaged: what it holds is not what was written"
_CUT_OFF = "it is damaged: its end is missing or changed; was it copied whole?"


def _header(file_key: bytes, passphrase: str, work: int) -> bytes:
    salt = os.urandom(16)
    # The key is of this one file: it wraps once, so its nonce need not differ.
    wrapped = _wrapping(passphrase, salt, work).encrypt(bytes(12), file_key, None)
    stanza = b"-> scrypt " + _text(salt) + b" %d\n" % work + _text(wrapped) + b"\n"
    head = INTRO + stanza + b"---"
    mac = _mac(file_key)
    mac.update(head)
    return head + b" " + _text(mac.finalize()) + b"\n"


def _file_key(head: "re.Match[bytes]", passphrase: str) -> bytes:
    work = int(head["work"])
    if work > _MOST_WORK:
        raise BackupError(f"its passphrase takes 2^{work} rounds of scrypt; open it with `age`")
    cipher = _wrapping(passphrase, _data(head["salt"]), work)
    try:
        return cipher.decrypt(bytes(12), _data(head["body"]), None)
    except InvalidTag:
        raise BackupError("the passphrase is not the one that it was made with") from None


def _check_head(head: bytes, mac: bytes, file_key: bytes) -> None:
    expected = _mac(file_key)
    expected.update(head)
    try:
        expected.verify(_data(mac))
    except InvalidSignature:
        raise BackupError("it is damaged: its head was changed") from None


def _wrapping(passphrase: str, salt: bytes, work: int) -> ChaCha20Poly1305:
    scrypt = Scrypt(salt=_SALT + salt, length=32, n=2**work, r=8, p=1)
    return ChaCha20Poly1305(scrypt.derive(passphrase.encode()))


def _payload_cipher(file_key: bytes, nonce: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))


def _mac(file_key: bytes) -> HMAC:
    return HMAC(_derived(file_key, b"", b"header"), SHA256())


def _derived(file_key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=salt, info=info).derive(file_key)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _text(data: bytes) -> bytes:
    return b64encode(data).rstrip(b"=")


def _is_plain(text: bytes) -> bool:
    """Whether a text is the one way to write its bytes: no bit of the head may be changed."""
    return _text(_data(text)) == text


def _data(text: bytes) -> bytes:
    return b64decode(text + b"=" * (-len(text) % 4))
