"""How many files and sockets this process may have open (RLIMIT_NOFILE)."""

import contextlib
import resource

_PLENTY = 65_536
"""Where there is no limit; macOS takes no larger ones."""
_OWN = 512
"""For all that is no connection of strangers: the homeserver's, the keeper's, the database."""
_MOST_CONNECTIONS = 2_000
_MOST_KEPT = 128


def raise_limit() -> None:
    """Raise the soft limit to the hard one, for the programs that are started from here, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _PLENTY if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # Where the system refuses it, the limit stays, and fewer connections are accepted.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """How many connections of strangers the limit has room for, beside what is our own."""
    limit = _limit()
    return min(_MOST_CONNECTIONS, max(limit - _OWN, limit // 2))


def kept_connections() -> int:
    """How many more there may be on a port that is kept from the rush on the others."""
    return min(_MOST_KEPT, (_limit() - most_connections()) // 4)


def _limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _PLENTY if soft == resource.RLIM_INFINITY else soft
