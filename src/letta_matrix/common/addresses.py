"""Addresses of servers, as people write them."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

_HOST = re.compile(r"[\w.:%-]+")


class Place(NamedTuple):
    """Where something listens that is no web server, and whether it speaks TLS there."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def place_of(text: str) -> Place:
    """The place that `HOST:PORT` or `tls://HOST:PORT` names. Raises ValueError."""
    scheme, _, rest = text.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    else:
        host = host if parts.netloc == rest and "@" not in rest else None
    if scheme not in ("", "tls") or not host or not port:
        raise ValueError("should be HOST:PORT or tls://HOST:PORT")
    return Place(host, port, bool(scheme))


def is_address(text: str, *schemes: str) -> bool:
    """Whether it is a URL with one of these schemes that a server can be at."""
    if not text.isprintable() or " " in text:
        # Some of which `urlsplit` leaves out without a word.
        return False
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        # As it is looked up: no part of a name is empty or longer than 63 characters.
        host.encode("idna")
        return parts.scheme in schemes and bool(_HOST.fullmatch(host)) and parts.port != 0
    except ValueError:
        return False


def names_user(text: str) -> bool:
    """Whether a URL has a user name or a password: addresses are shown in logs, errors and by
    `ps`."""
    try:
        return "@" in urlsplit(text).netloc
    except ValueError:
        return "@" in text
