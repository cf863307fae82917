"""The kernel's table of TCP sockets (proc(5), `/proc/net/tcp`), and which process holds them."""

import os
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

Address = tuple[str, int]
"""An IPv4 address and a port."""

_TABLE = Path("/proc/net/tcp")
_TABLES = (_TABLE, Path("/proc/net/tcp6"))
_LISTENING = "0A"
_SOCKET = "socket:["
_HANDSHAKE = (1, 3)
"""TCP_ESTABLISHED and TCP_SYN_RECV: the states until a connection is accepted."""
_ENDED = ("Z", "X")
"""States of a process that only waits for somebody to ask how it ended."""
_STARTED = 19
"""Place of `starttime` in `/proc/PID/stat`, counted behind the name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A socket: whose it is, and its number, 0 while nobody has accepted it."""

    uid: int
    inode: int
    state: int

    @property
    def waits(self) -> bool:
        """Whether it is still to be accepted."""
        return self.inode == 0 and self.state in _HANDSHAKE


def is_known_here() -> bool:
    """Whether this system has the table."""
    return sys.platform.startswith("linux") and _TABLE.exists()


def socket_between(local: Address, remote: Address) -> Entry | None:
    """The socket at `local` of a connection with `remote`, None where there is none.

    Raises:
        OSError: the table cannot be read.
    """
    return entry_in(_TABLE.read_text(encoding="ascii"), local, remote)


def entry_in(table: str, local: Address, remote: Address) -> Entry | None:
    """The same in the text of a table."""
    wanted = f" {_written(local)} {_written(remote)} "
    line = next((line for line in table.splitlines() if wanted in line), None)
    if line is None:
        return None
    fields = line.split()
    return Entry(uid=int(fields[7]), inode=int(fields[9]), state=int(fields[3], 16))


def listeners(port: int) -> set[int]:
    """The ids of the users who listen on a port, none where this system does not tell."""
    found = set[int]()
    for table in _TABLES:
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        fields = [line.split() for line in lines]
        found |= {
            int(of[7]) for of in fields if of[3] == _LISTENING and of[1].endswith(f":{port:04X}")
        }
    return found


def held_by(pid: int) -> set[int]:
    """The sockets that a process has open; nothing of one that is not ours to look into."""
    folder = f"/proc/{pid}/fd"
    try:
        links = [_leads_to(f"{folder}/{name}") for name in os.listdir(folder)]  # noqa: PTH208
    except OSError:
        return set()
    return {int(link[len(_SOCKET) : -1]) for link in links if link.startswith(_SOCKET)}


def identity_of(pid: int) -> str | None:
    """What no other process will be called again: its number and when it started; None where
    there is no such process, or it has ended, the number alone where the system tells no more."""
    if not is_known_here():
        return str(pid)
    try:
        fields = stat_of(pid)
    except OSError:
        return None
    return None if fields[0] in _ENDED else f"{pid} {fields[_STARTED]}"


def processes() -> list[int]:
    """All that run on this machine, as far as the system tells."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError:
        return []


def stat_of(pid: int) -> list[str]:
    """What proc_pid_stat(5) tells of a process behind its name. Raises OSError."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    # Names may have spaces and brackets.
    return stat.rpartition(")")[2].split()


def _leads_to(link: str) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115
    except OSError:
        return ""  # closed meanwhile


def _written(address: Address) -> str:
    host, port = address
    (number,) = struct.unpack("=I", socket.inet_aton(host))
    return f"{number:08X}:{port:04X}"
