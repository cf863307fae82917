"""Addresses of servers, as people write them."""

import re
from urllib.parse import urlsplit

_HOST = re.compile(r"[\w.:%-]+")


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
