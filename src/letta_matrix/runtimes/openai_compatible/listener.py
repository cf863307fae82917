"""Which App Server process serves an address of this machine, by Linux' `/proc` (proc(5))."""

from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

_PROC = Path("/proc")
_LISTEN = "0A"
_DOOR = b"--openai-api"
"""The argument by which an App Server is told from a proxy before one."""


def server_at(url: str) -> str:
    """A text that names the process that listens at the port of `url`, another one after each
    restart of it; "" where that cannot be known: no `/proc`, a process of another user, a
    proxy, nobody there."""
    parts = urlsplit(url)
    try:
        sockets = _listening(parts.port or (443 if parts.scheme == "https" else 80))
        owners = {pid: held for pid in _processes() if (held := _sockets_of(pid) & sockets)}
        if not sockets or set[str]().union(*owners.values()) != sockets:
            return ""
        # A program that one of them is just starting holds for a moment all that it held.
        servers = [pid for pid in owners if _parent(pid) not in owners]
        if not servers or not all(_is_app_server(pid) for pid in servers):
            return ""
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return " ".join([boot, *sorted(f"{pid}@{_started(pid)}" for pid in servers)])
    except (OSError, ValueError, IndexError):
        return ""


def _listening(port: int) -> set[str]:
    """The sockets that listen at a port, at whichever address, as links to them are named."""
    found = set[str]()
    for table in ("net/tcp", "net/tcp6"):
        path = _PROC / table
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        for fields in map(str.split, lines):
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _processes() -> list[str]:
    return [path.name for path in _PROC.iterdir() if path.name.isdecimal()]


def _sockets_of(pid: str) -> set[str]:
    """What a process holds open; nothing of one that is not ours to look into."""
    found = set[str]()
    with suppress(OSError):
        for link in (_PROC / pid / "fd").iterdir():
            with suppress(OSError):
                found.add(str(link.readlink()))
    return found


def _is_app_server(pid: str) -> bool:
    return _DOOR in (_PROC / pid / "cmdline").read_bytes().split(b"\0")


def _parent(pid: str) -> str:
    return _stat(pid)[1]


def _started(pid: str) -> str:
    """When a process started, in clock ticks since the machine did."""
    return _stat(pid)[19]


def _stat(pid: str) -> list[str]:
    """What proc_pid_stat(5) tells of a process, from its state on."""
    return (_PROC / pid / "stat").read_text().rpartition(")")[2].split()
