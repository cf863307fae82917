"""Archives: what they hold is what was put in, and nothing is laid anywhere else."""

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from letta_matrix.cli.backup.archive import (
    DIGESTS,
    MANIFEST,
    Manifest,
    is_encrypted,
    read,
    writing,
)
from letta_matrix.cli.backup.faults import BackupError

ABOUT = Manifest("0.1.0", 1e9, "0008", "letta-matrix.db", "letta-matrix.db", servers=False)
FILES = {"letta-matrix.db": b"rows", "config.yaml": b"a: b\n", "synapse/media/ab/c d\u00e9": b"\0"}


def archive(path: Path, passphrase: str | None = None, files: dict[str, bytes] = FILES) -> Path:
    with path.open("wb") as file, writing(file, ABOUT, passphrase, work=1) as writer:
        writer.add_folder("letta/.git/refs")
        for name, content in files.items():
            writer.add(name, io.BytesIO(content), len(content), 0o755)
    return path


def by_hand(path: Path, fill: Callable[[tarfile.TarFile], object], about: object = None) -> Path:
    """An archive that somebody else has made, with all that it has to say."""
    told = asdict(ABOUT) if about is None else about
    with gzip.open(path, "wb") as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        add(tar, MANIFEST, json.dumps(told).encode())
        fill(tar)
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("passphrase", [None, "a passphrase"])
def test_all_that_is_put_in_comes_out(tmp_path: Path, passphrase: str | None) -> None:
    path, into = archive(tmp_path / "backup", passphrase), tmp_path / "into"
    into.mkdir()
    assert is_encrypted(path) is (passphrase is not None)
    found = read(path, passphrase, into)
    assert (found.manifest, found.files, found.size) == (ABOUT, 4, 10)
    assert {name: (into / name).read_bytes() for name in FILES} == FILES
    assert (into / "letta/.git/refs").is_dir()
    assert {path.stat().st_mode & 0o777 for path in into.rglob("*")} == {0o700}
    assert read(path, passphrase) == found


def test_by_hand_it_is_an_ordinary_archive(tmp_path: Path) -> None:
    with tarfile.open(archive(tmp_path / "backup")) as tar:
        assert [*FILES] == tar.getnames()[2:-1]


@pytest.mark.parametrize("passphrase", [None, "a passphrase"])
def test_no_part_of_it_is_a_backup(tmp_path: Path, passphrase: str | None) -> None:
    files = {**FILES, "synapse/homeserver.db": random.Random(1).randbytes(200_000)}
    whole = archive(tmp_path / "whole", passphrase, files).read_bytes()
    part = tmp_path / "part"
    for length in [*range(40), *range(40, len(whole), 4_999), len(whole) - 1]:
        part.write_bytes(whole[:length])
        with pytest.raises(BackupError):
            read(part, passphrase)


def test_an_unencrypted_one_that_was_changed_is_none(tmp_path: Path) -> None:
    whole, changed = archive(tmp_path / "whole").read_bytes(), tmp_path / "changed"
    # The head of gzip has bytes that mean nothing: a time, an operating system.
    noticed, places = 0, range(10, len(whole), 3)
    for place in places:
        changed.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        into = tmp_path / f"into {place}"
        into.mkdir()
        try:
            read(changed, None, into)
        except BackupError:
            noticed += 1
        else:
            # A bit that fills up a byte.
            assert {name: (into / name).read_bytes() for name in FILES} == FILES
    assert noticed > len(places) * 0.9
    changed.write_bytes(whole + b"more")
    with pytest.raises(BackupError):
        read(changed, None)


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/etc/up", "a//b", "./a", "a/.", "a\0b"])
def test_nothing_is_laid_outside(tmp_path: Path, name: str) -> None:
    path = by_hand(tmp_path / "backup", lambda tar: _raw(tar, name))
    _refused(path, tmp_path, "outside|damaged")


def _raw(tar: tarfile.TarFile, name: str) -> None:
    add(tar, "placeholder", b"x", pax_headers={"path": name})


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE],
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "letta/way", type=kind, linkname="/etc")
        add(tar, "letta/way/passwd", b"x")

    _refused(by_hand(tmp_path / "backup", fill), tmp_path, "link or a device")


def _refused(path: Path, folder: Path, why: str) -> None:
    before, into = {*folder.rglob("*")}, folder / "into"
    into.mkdir()
    with pytest.raises(BackupError, match=why):
        read(path, None, into)
    assert {*folder.rglob("*")} - before == {into}


def test_files_that_are_not_those_that_were_written_are_noticed(tmp_path: Path) -> None:
    digests = {"letta-matrix.db": [4, hashlib.sha256(b"rows").hexdigest()]}

    def fill(*files: tuple[str, bytes]) -> Callable[[tarfile.TarFile], None]:
        def all_of(tar: tarfile.TarFile) -> None:
            for name, content in [*files, (DIGESTS, json.dumps(digests).encode())]:
                add(tar, name, content)

        return all_of

    rows = ("letta-matrix.db", b"rows")
    assert read(by_hand(tmp_path / "whole", fill(rows)), None).files == 1
    for files in ([], [("letta-matrix.db", b"ROWS")], [rows, ("more", b"")], [rows, rows]):
        with pytest.raises(BackupError, match=r"damaged|twice"):
            read(by_hand(tmp_path / "odd", fill(*files)), None)


def test_what_is_none_is_said(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    for content, why in ((b"", "empty"), (b"PK\3\4", "no backup"), (b"x" * 900, "no backup")):
        path.write_bytes(content)
        with pytest.raises(BackupError, match=why):
            is_encrypted(path)
    odd: tuple[tuple[object, str], ...] = (
        ({}, "no backup"),
        ([], "no backup"),
        ({"format": 1}, "does not say what it is"),
        ({"format": 2}, "newer letta-matrix"),
    )
    for about, why in odd:
        with pytest.raises(BackupError, match=why):
            read(by_hand(path, lambda _: None, about), None)
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "holiday.jpg", b"x")
    with pytest.raises(BackupError, match="no backup"):
        read(path, None)
    with pytest.raises(BackupError, match="cannot be read"):
        is_encrypted(tmp_path / "none")
