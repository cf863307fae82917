"""Which App Server process serves an address of this machine, by Linux' `/proc` (proc(5))."""

from pathlib import Path
from urllib.parse import urlsplit

from letta_matrix.common.connections.socket_table import held_by, identity_of, stat_of

_PROC = Path("/proc")
_LISTEN = "0A"
_PARENT = 1
"""Place of `ppid` in what `stat_of` tells."""
_DOOR = b"--openai-api"
"""The argument by which an App Server is told from a proxy before one."""


def server_at(url: str) -> str:
    """A text that names the process that listens at the port of `url`, another one after each
    restart of it; "" where that cannot be known: no `/proc`, a process of another user, a
    proxy, nobody there."""
    parts = urlsplit(url)
    try:
        sockets = _listening(parts.port or (443 if parts.scheme == "https" else 80))
        owners = {pid: held for pid in _processes() if (held := held_by(pid) & sockets)}
        if not sockets or set[int]().union(*owners.values()) != sockets:
            return ""
        # A program that one of them is just starting holds for a moment all that it held.
        servers = [pid for pid in owners if int(stat_of(pid)[_PARENT]) not in owners]
        if not servers or not all(_is_app_server(pid) for pid in servers):
            return ""
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        names = [name.replace(" ", "@") for pid in servers if (name := identity_of(pid))]
        return " ".join([boot, *sorted(names)]) if len(names) == len(servers) else ""
    except (OSError, ValueError, IndexError):
        return ""


def _listening(port: int) -> set[int]:
    """The sockets that listen at a port, at whichever address."""
    found = set[int]()
    for table in ("net/tcp", "net/tcp6"):
        path = _PROC / table
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        for fields in map(str.split, lines):
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(int(fields[9]))
    return found


def _processes() -> list[int]:
    return [int(path.name) for path in _PROC.iterdir() if path.name.isdecimal()]


def _is_app_server(pid: int) -> bool:
    return _DOOR in (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
