"""Addresses of servers, as people write them."""

from urllib.parse import urlsplit


def is_address(text: str, *schemes: str) -> bool:
    """Whether it is a URL with one of these schemes that a server can be at."""
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def names_user(text: str) -> bool:
    """Whether a URL has a user name or a password: addresses are shown in logs, errors and by
    `ps`."""
    try:
        return "@" in urlsplit(text).netloc
    except ValueError:
        return "@" in text
