"""Archives that somebody else has made: they do not say where on this machine something is
written."""

import gzip
import io
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests import kept_bridge
from tests.kept_bridge import restored, tree, typed

from letta_matrix.cli.backup.archive import MANIFEST, Manifest, read, writing
from letta_matrix.cli.backup.faults import BackupError
from letta_matrix.cli.backup.stored import schema_of

bridge = kept_bridge.bridge
NAMED = b"homeserver: {ca_file: %s}\n"

Make = Callable[[Mapping[str, bytes], Manifest], Path]


@pytest.fixture
def manifest(bridge: Path) -> Manifest:
    schema = schema_of(bridge.parent / "letta-matrix.db")
    return Manifest("1", 1.0, schema, "letta-matrix.db", "letta-matrix.db", servers=False)


@pytest.fixture
def make(bridge: Path, tmp_path: Path) -> Make:
    def make(files: Mapping[str, bytes], manifest: Manifest) -> Path:
        database = (bridge.parent / "letta-matrix.db").read_bytes()
        files = {"letta-matrix.db": database, "config.yaml": b"{}\n", **files}
        with (tmp_path / "b").open("wb") as file, writing(file, manifest, None) as writer:
            for name, content in files.items():
                writer.add(name, io.BytesIO(content), len(content))
        return tmp_path / "b"

    return make


@pytest.mark.parametrize(
    ("name", "config"),
    [
        (".ssh/authorized_keys", b"{}\n"),
        (".ssh/authorized_keys", NAMED % b".ssh/authorized_keys"),
        ("holiday.jpg", b"{}\n"),
        ("certificates/other.pem", NAMED % b"certificates/own.pem"),
        # Of servers, which are not in it as it says.
        ("synapse/homeserver.yaml", b"{}\n"),
        ("workspace", b"{}\n"),
    ],
)
async def test_a_file_that_is_in_no_backup_is_not_laid(
    make: Make, manifest: Manifest, tmp_path: Path, name: str, config: bytes
) -> None:
    file = make({name: b"whatever", "config.yaml": config}, manifest)
    with pytest.raises(BackupError, match=f"{name}.*was not made by letta-matrix"):
        await restored(file, tmp_path / "there/config.yaml")
    assert tree(tmp_path / "there") == {}


async def test_certificates_are_laid_where_the_configuration_has_them(
    make: Make, manifest: Manifest, tmp_path: Path
) -> None:
    for configured in (b"certificates/own.pem", b"/etc/bridge/certificates/own.pem"):
        files = {"config.yaml": NAMED % configured, "certificates/own.pem": b"certificates"}
        file = make(files, manifest)
        await restored(file, tmp_path / "there/config.yaml", replace=True)
        laid = tmp_path / "there/certificates/own.pem"
        assert laid.read_bytes() == b"certificates"
        laid.unlink()


@pytest.mark.parametrize(
    "place",
    [".ssh/authorized_keys", "config.yaml", "./registration.yaml", "synapse/b.db", "", "../b.db"],
)
async def test_the_database_takes_no_place_of_others(
    make: Make, manifest: Manifest, tmp_path: Path, place: str
) -> None:
    with pytest.raises(BackupError, match="--database"):
        await restored(make({}, replace(manifest, place=place)), tmp_path / "there/config.yaml")
    assert tree(tmp_path / "there") == {}


@pytest.mark.parametrize("servers", [True, False])
async def test_the_database_is_no_server_s(
    make: Make, manifest: Manifest, bridge: Path, tmp_path: Path, servers: bool
) -> None:
    content = (bridge.parent / "letta-matrix.db").read_bytes()
    odd = replace(manifest, database="synapse/b.db", servers=servers)
    with pytest.raises(BackupError, match="was not made by letta-matrix"):
        await restored(make({"synapse/b.db": content}, odd), tmp_path / "there/config.yaml")


@pytest.mark.parametrize(
    "odd",
    [
        {"version": "1\x1b[2J"},
        {"schema": "0010\n"},
        {"made_at": 1e300},
        {"made_at": float("nan")},
        {"made_at": -1e300},
    ],
)
def test_what_it_says_of_itself_can_be_told(
    make: Make, manifest: Manifest, odd: dict[str, Any]
) -> None:
    with pytest.raises(BackupError, match="does not say what it is"):
        read(make({}, replace(manifest, **odd)), None)


@pytest.mark.parametrize("odd", ["\u00a0", "\u3000", "\u200d", "\u202e", "\udcff", "\U000e0001"])
async def test_a_place_with_whatever_its_name_has_is_one(
    make: Make, manifest: Manifest, tmp_path: Path, odd: str
) -> None:
    file, config = make({}, replace(manifest, place=f"a{odd}b.db")), tmp_path / "there/config.yaml"
    done = await typed("restore", file, "-c", config)
    assert done.exit_code == 0, done.output
    assert (tmp_path / f"there/a{odd}b.db").is_file()
    assert odd not in done.output
    away = replace(manifest, place=f"/none/a{odd}b.db")
    with pytest.raises(BackupError, match=r"--database /none/a\\u"):
        await restored(make({}, away), tmp_path / "other/config.yaml")


def test_nesting_without_end_is_nothing_that_it_says(tmp_path: Path) -> None:
    text = b"[" * 100_000
    with (
        gzip.open(tmp_path / "b", "wb") as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        member = tarfile.TarInfo(MANIFEST)
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    with pytest.raises(BackupError, match="is not what it was"):
        read(tmp_path / "b", None)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_name_without_end_is_not_read(tmp_path: Path, kind: bytes) -> None:
    """Whatever size it has, nothing of it needs to be there for that."""
    head = tarfile.TarInfo("x")
    head.type, head.size = kind, 600_000_000
    with gzip.open(tmp_path / "b", "wb") as packed:
        packed.write(head.tobuf(tarfile.USTAR_FORMAT))
    with pytest.raises(BackupError, match="too long"):
        read(tmp_path / "b", None)


SPARSE: dict[str, dict[str, str]] = {
    "0.0": {"GNU.sparse.size": "1", "GNU.sparse.numblocks": "0"},
    "0.1": {"GNU.sparse.map": "0,1"},
    "1.0": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
}


@pytest.mark.parametrize("version", [*SPARSE, "old"])
def test_a_file_with_holes_is_not_read(tmp_path: Path, version: str) -> None:
    """The list of them may be of any length: here it has a number more in each block, for ever."""
    head = tarfile.TarInfo("x")
    head.pax_headers = SPARSE.get(version, {})
    head.type = head.type if version in SPARSE else tarfile.GNUTYPE_SPARSE
    with gzip.open(tmp_path / "b", "wb") as packed:
        packed.write(head.tobuf(tarfile.PAX_FORMAT))
        packed.write(b"1000000000\n" + b"0\n" * 100_000)
    with pytest.raises(BackupError, match="has holes"):
        read(tmp_path / "b", None)
