"""A backup as one file: a compressed tar archive, encrypted unless somebody wants it otherwise.

Its first member says what it is, its last one what all others have to be: their sizes and SHA-256.
By hand: `age -d FILE | tar xz`.
"""

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Generator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Self, cast
from unicodedata import category

from letta_matrix.cli.backup.age import INTRO, WORK, Sealing, Unsealing
from letta_matrix.cli.backup.faults import BackupError
from letta_matrix.common.json_fields import mapping

FORMAT = 1
MANIFEST, DIGESTS = "letta-matrix-backup.json", "digests.json"
_GZIP = b"\x1f\x8b"
_LEVEL = 3
"""Of compression: more is slower than most disks, and wins a few per cent."""
_BLOCK = 256 * 1024
_MOST_TOLD = 50_000_000
"""Bytes of what is read into memory: the two members of ours."""

_LATEST = 253_402_300_800
"""The end of the year 9999, as a Unix time."""
_LONGEST_HEADER = 65_536
_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
"""Members that tell of the one behind them."""

_FOLDER = "folder"
"""In the place of a digest."""

OTHER_FILE = "it is no backup of letta-matrix"
_DAMAGED = "it is damaged"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive says of itself. `database` is the name of the bridge's in it, and `place`
    where the configuration has it: beside its file, or at an absolute path. `schema` is the
    database's, `servers` says whether those of `up` are in it. Times are Unix times."""

    version: str
    made_at: float
    schema: str
    database: str
    place: str
    servers: bool
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Contents:
    """What was found in an archive: how many files, and how many bytes in them."""

    manifest: Manifest
    files: int
    size: int


class Writer:
    """Adds files to an archive; `size` and `count` are what came together."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._digests: dict[str, tuple[int, str]] = {}

    @property
    def count(self) -> int:
        return len(self._digests)

    @property
    def size(self) -> int:
        return sum(size for size, _ in self._digests.values())

    def add(self, name: str, source: BinaryIO, size: int, mode: int = 0o600) -> None:
        """Add `size` bytes of `source` under a name."""
        hashed = _Hashing(source)
        self._tar.addfile(_member(name, size, mode), hashed)
        self._digests[name] = size, hashed.digest.hexdigest()

    def add_folder(self, name: str) -> None:
        """Add an empty folder: git knows none of its own without those."""
        member = _member(name, 0, 0o700)
        member.type = tarfile.DIRTYPE
        self._tar.addfile(member)
        self._digests[name] = 0, _FOLDER

    def tell(self, name: str, content: object) -> None:
        """Add one of the members that are about the others."""
        text = json.dumps(content, indent=1).encode()
        self._tar.addfile(_member(name, len(text)), io.BytesIO(text))

    def end(self) -> None:
        """Say what all of it has to be."""
        self.tell(DIGESTS, self._digests)


@contextlib.contextmanager
def writing(
    target: BinaryIO, manifest: Manifest, passphrase: str | None, work: int = WORK
) -> Generator[Writer]:
    """An archive that is written into `target`, whole when this ends without an error."""
    sealing = None if passphrase is None else Sealing(target, passphrase, work)
    sink = cast("BinaryIO", sealing) if sealing is not None else target
    with (
        gzip.GzipFile("", "wb", fileobj=sink, compresslevel=_LEVEL, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        writer = Writer(tar)
        writer.tell(MANIFEST, asdict(manifest))
        yield writer
        writer.end()
    if sealing is not None:
        sealing.finish()


def is_encrypted(path: Path) -> bool:
    """Whether a backup wants a passphrase. Raises BackupError where it can be none."""
    try:
        with path.open("rb") as file:
            head = file.read(len(INTRO))
    except OSError as error:
        raise BackupError(f"{path}: cannot be read: {error.strerror}") from None
    if head == INTRO:
        return True
    if head.startswith(_GZIP):
        return False
    raise BackupError(f"{path}: {OTHER_FILE}" if head else f"{path}: it is empty")


def read(path: Path, passphrase: str | None, into: Path | None = None) -> Contents:
    """Read an archive to its end, and lay its files into the folder `into`, which is empty.

    Raises:
        BackupError: it cannot be read, or not all of it is as it was written; what was laid until
            then is nothing to use.
    """
    try:
        with path.open("rb") as file:
            return _read(file, passphrase, into)
    except BackupError as error:
        raise BackupError(f"{path}: {error}") from None
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BackupError(f"{path}: {_DAMAGED} ({error})") from None
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror or error}") from None


def _read(file: BinaryIO, passphrase: str | None, into: Path | None) -> Contents:
    source: BinaryIO = file
    if passphrase is not None:
        source = io.BufferedReader(Unsealing(file, passphrase), _BLOCK)
    with gzip.GzipFile(fileobj=source, mode="rb") as packed:
        with tarfile.open(fileobj=packed, mode="r|", tarinfo=_Short) as tar:
            manifest, digests = _members(tar, into)
        # Behind the archive's end: only there it shows whether all is what was written.
        while packed.read(_BLOCK):
            pass
    if source.read(1):
        raise BackupError(f"{_DAMAGED}: something stands behind its end")
    told = digests.pop(DIGESTS, None)
    if told is None:
        raise BackupError(f"{_DAMAGED}: its end is missing")
    if {name: list(found) for name, found in digests.items()} != told:
        raise BackupError(f"{_DAMAGED}: its files are not those that were written")
    if manifest.database not in digests:
        raise BackupError(f"{_DAMAGED}: the bridge's database is missing")
    return Contents(manifest, len(digests), sum(size for size, _ in digests.values()))


def _members(tar: tarfile.TarFile, into: Path | None) -> tuple[Manifest, dict[str, Any]]:
    """What the archive says of itself; each file's size and digest, and under `DIGESTS` what they
    have to be."""
    manifest: Manifest | None = None
    found: dict[str, Any] = {}
    for member in tar:
        if DIGESTS in found:
            raise BackupError(f"{_DAMAGED}: something stands behind its end")
        if manifest is None:
            manifest = _manifest(tar, member)
            continue
        if member.name == DIGESTS:
            found[DIGESTS] = _told(tar, member)
            continue
        _check(member)
        if member.name in found:
            raise BackupError(f"{member.name!r} is in it twice; it was not made by letta-matrix")
        found[member.name] = member.size, _laid(tar, member, into)
    if manifest is None:
        raise BackupError(OTHER_FILE)
    return manifest, found


def _check(member: tarfile.TarInfo) -> None:
    """Raises BackupError for what could be laid anywhere else than where it is to be."""
    name = member.name
    parts = name.split("/")
    if name.startswith("/") or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise BackupError(f"{name!r} would be laid outside; it was not made by letta-matrix")
    if not (member.isreg() or member.isdir()):
        raise BackupError(f"{name!r} is a link or a device; it was not made by letta-matrix")


def _laid(tar: tarfile.TarFile, member: tarfile.TarInfo, into: Path | None) -> str:
    """Lay a file or a folder; its digest."""
    if member.isdir():
        if into is not None:
            _make_folder(into, into / member.name)
        return _FOLDER
    source = tar.extractfile(member)
    if source is None:
        raise BackupError(f"{_DAMAGED}: {member.name!r} cannot be read")
    digest = hashlib.sha256()
    with contextlib.ExitStack() as opened:
        target = None
        if into is not None:
            path = into / member.name
            _make_folder(into, path.parent)
            # New ones alone: whatever a name leads to, nothing that is there is written to.
            target = opened.enter_context(path.open("xb"))
            path.chmod(0o700 if member.mode & 0o100 else 0o600)
        while block := source.read(_BLOCK):
            digest.update(block)
            if target is not None:
                target.write(block)
    return digest.hexdigest()


def _make_folder(into: Path, folder: Path) -> None:
    """Make a folder below another, with those between, for our user alone whatever the umask."""
    for part in reversed([folder, *folder.parents]):
        if part != into and part.is_relative_to(into):
            part.mkdir(mode=0o700, exist_ok=True)


def _manifest(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Manifest:
    told = _told(tar, member) if member.name == MANIFEST else {}
    if not isinstance(told.get("format"), int):
        raise BackupError(OTHER_FILE)
    if told["format"] > FORMAT:
        raise BackupError("it was made by a newer letta-matrix: upgrade letta-matrix")
    kinds = {"version": str, "made_at": float, "schema": str, "database": str, "place": str}
    kinds |= {"servers": bool}
    if not all(isinstance(told.get(name), kind) for name, kind in kinds.items()) or not (
        not any(_has_controls(told[name]) for name, kind in kinds.items() if kind is str)
        and 0 <= told["made_at"] < _LATEST
    ):
        raise BackupError(f"{_DAMAGED}: it does not say what it is")
    known = {one.name for one in fields(Manifest)}
    return Manifest(**{name: value for name, value in told.items() if name in known})


def _has_controls(text: str) -> bool:
    return any(category(character) == "Cc" for character in text)


def _told(tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    """One of the members about the others."""
    source = tar.extractfile(member) if member.size <= _MOST_TOLD else None
    try:
        return dict(mapping(json.loads(source.read() if source is not None else b"")))
    except (ValueError, RecursionError):
        raise BackupError(f"{_DAMAGED}: {member.name} is not what it was") from None


def _member(name: str, size: int, mode: int = 0o600) -> tarfile.TarInfo:
    # Neither times nor owners: they tell nothing about what was backed up.
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, mode
    return member


class _Short(tarfile.TarInfo):
    """Refuses what `tarfile` would read into memory, and take apart, at any length."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _HEADERS and found.size > _LONGEST_HEADER:
            raise tarfile.ReadError("a name in it is too long")
        if found.type == tarfile.GNUTYPE_SPARSE:
            found._sparse()
        return found

    def _sparse(self, *_: object) -> None:
        # Where the holes are is a list of any length, which we never write.
        raise tarfile.ReadError("a file in it has holes")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _sparse


class _Hashing(io.RawIOBase):
    """Notes the digest of what is read through it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        block = self._source.read(size)
        self.digest.update(block)
        return block
