"""Checks of where the bridge keeps what it knows."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from letta_matrix.cli.doctor.check import check
from letta_matrix.cli.doctor.finding import Finding, Findings, fine, found, trouble, warning
from letta_matrix.cli.doctor.server_storage import examine_server
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.matrix.media import human_size
from letta_matrix.store.database import HEAD, StoreError
from letta_matrix.store.database_file import check_if_alone
from letta_matrix.store.faults import fault_of, newer_schema
from letta_matrix.store.postgres_address import hosts_of

_FULL, _FILLING = 50_000_000, 500_000_000
"""Bytes that are free; with the first, a busy day of messages is hardly to be kept."""
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre")
_REMOTE_FUSE = ("sshfs", "rclone", "s3fs", "glusterfs", "ceph", "davfs")
_PASSING = ("tmpfs", "ramfs", "overlay")


@check(
    "database",
    shows="no message is taken: the homeserver keeps them until this is mended",
    vital="database",
)
async def database(subject: Subject) -> Finding | Findings:
    """Whether it can be read and written, and has the schema of this version."""
    file, runs = subject.database_file, subject.health is not None
    if file is None:
        return await _on_server(subject, runs=runs)
    if not await asyncio.to_thread(file.is_file):
        return await asyncio.to_thread(_to_be_made, file)
    try:
        await asyncio.to_thread(check_if_alone, file)
        await asyncio.to_thread(try_to_write, file)
        revision = await subject.database.revision()
    except StoreError as error:
        return found(error.trouble)
    return judge_revision(revision, file, runs=runs)


async def _on_server(subject: Subject, *, runs: bool) -> Findings:
    host = hosts_of(subject.database_url) or "this machine"
    try:
        findings, revision = await examine_server(subject.database, host)
    except StoreError as error:
        return [found(error.trouble)]
    return [*findings, judge_revision(revision, "the database", runs=runs)]


def judge_revision(revision: str | None, file: Path | str, *, runs: bool) -> Finding:
    """Of the schema; `runs`: a bridge uses it."""
    if revision is not None and revision > HEAD:
        return found(newer_schema(revision, HEAD).trouble, shows="the bridge does not start")
    if revision != HEAD and runs:
        return warning(
            f"{file} has the schema {revision}, and this letta-matrix is newer than the bridge "
            "that runs",
            "start the bridge again: it migrates the database; make a backup before",
            shows="the bridge works as before the upgrade",
        )
    if revision != HEAD:
        return fine(f"{file} can be written; its schema is made or migrated at the next start")
    return fine(f"{file} can be written; its schema is current ({HEAD})")


def _to_be_made(file: Path) -> Finding:
    folder = next(one for one in file.parents if one.exists())
    if os.access(folder, os.W_OK | os.X_OK):
        return fine(f"{file} is made when the bridge first starts")
    return trouble(
        f"{file} cannot be made: {folder} is not to be written to",
        "the bridge's user has to own it, or name another file by `database.url`",
    )


def try_to_write(file: Path) -> None:
    """Begin to write, and leave it at that. Raises StoreUnavailable."""
    try:
        uri = f"{file.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise fault_of(error, file) from None


@dataclass(frozen=True, slots=True)
class Disk:
    """What a folder is on: bytes that are free there, and the kind of file system, "" for one
    that is not told."""

    free: int
    kind: str = ""


@check("disk", shows="no message is taken once it is full")
async def disk(subject: Subject) -> Finding:
    """Whether the database has room, on a disk that keeps it."""
    if subject.database_file is None:
        return fine("the database is on another disk: its server's")
    folder = next(one for one in subject.database_file.absolute().parents if one.exists())
    return judge_disk(await asyncio.to_thread(_disk, folder), folder)


def judge_disk(disk: Disk, folder: Path) -> Finding:
    """What is to be said of it."""
    if disk.kind in _NETWORK or disk.kind.startswith(tuple(f"fuse.{one}" for one in _REMOTE_FUSE)):
        return trouble(
            f"{folder} is on another machine ({disk.kind}), where SQLite's locks do not hold",
            "put the database on a disk of this machine (`database.url`)",
            shows="the database is damaged sooner or later",
        )
    if disk.free < _FULL:
        return trouble(
            f"{human_size(disk.free)} are left where the database is ({folder})", "make room there"
        )
    if disk.free < _FILLING:
        return warning(
            f"{human_size(disk.free)} are left where the database is ({folder})",
            "make room there, or move the database (`database.url`)",
        )
    if disk.kind in _PASSING:
        return warning(
            f"{folder} is on {disk.kind}, which ends with this machine's or container's run",
            "put the database on a disk or a volume (`database.url`)",
            shows="after a restart tokens and conversations are gone",
        )
    return fine(f"{human_size(disk.free)} are left at {folder}")


def _disk(folder: Path) -> Disk:
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        mounts = ""
    return Disk(shutil.disk_usage(folder).free, kind_of(folder.resolve(), mounts.splitlines()))


def kind_of(folder: Path, mounts: Iterable[str]) -> str:
    """The file system of a folder, by the lines of proc_pid_mounts(5); "" for none of them. Of
    several at one place the last is on top."""
    best, kind = -1, ""
    for line in mounts:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        place = Path(fields[1].replace("\\040", " "))
        if folder.is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), fields[2]
    return kind
