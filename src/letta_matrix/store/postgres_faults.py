"""What a PostgreSQL server is called, what can be wrong with it, and what to do then."""

import re
from collections.abc import Mapping

from letta_matrix.store.faults import StoreDamaged, StoreUnavailable, StoreUnsure

_LONGEST = 300
OLDEST = 140_000
"""The oldest server that will do, by its `server_version_num`."""

_ALONE = "it may pass by itself"
_START = "start PostgreSQL there, or correct `database.url`"
_WHO = (
    "correct the user in `database.url`, or the password in `database.password_file`, and start "
    "the bridge again"
)
_TLS = (
    "correct `sslmode` and `sslrootcert` in `database.url`, or give the server a certificate that "
    "they accept"
)
_CROWDED = (
    "raise `max_connections` (or the role's or the database's `CONNECTION LIMIT`), or end what "
    "holds so many connections"
)
_DATABASE = "make it (`CREATE DATABASE`), or correct `database.url`"
_RIGHTS = "make the user of `database.url` the owner of the database, its schema and its tables"
_PRIMARY = (
    "name the primary in `database.url`, or make this server one; or end "
    "`default_transaction_read_only`"
)
_OPTIONS = "correct `database.url`, or the environment's PG... variables"
_POOLER = (
    "let the pooler keep a connection for each of ours, and clear it for who comes next "
    "(pgbouncer: `pool_mode = session`, `server_reset_query = DISCARD ALL`)"
)
_BEHIND = (
    "see whether PostgreSQL runs behind the pooler, whether that is let in there and has a "
    "connection left for us (pgbouncer: `pool_size`), and its log"
)
_OWN = "name a database of the bridge's own in `database.url`"
_ROOM = "make room on the server's disk: until then no message is taken"
_STARTING = "wait until it has started"
_STOPPING = "start it again, if it does not start by itself"

# PostgreSQL, "Error Codes": a class of two characters, or the whole code.
_BY_STATE: Mapping[str, str] = {
    "08": _START,
    "28": _WHO,
    "3D000": _DATABASE,
    "25006": _PRIMARY,
    "26000": _POOLER,
    "3F000": "correct the user's `search_path`: no schema of that name is there",
    "25P03": _ALONE,
    "40": _ALONE,
    "42501": _RIGHTS,
    "42P05": _POOLER,
    "42P07": _OWN,
    "42P01": "start the bridge of this version once: it makes what is new; what somebody has taken "
    "away is in a backup",
    "53100": _ROOM,
    "53200": "give the server more memory",
    "53300": _CROWDED,
    "53": "see the server's log",
    "55P03": "another program holds it: end that one",
    "57014": "see what else the server is busy with",
    "57P01": _STOPPING,
    "57P02": _STOPPING,
    "57P03": _STARTING,
    "57P04": _DATABASE,
    "57P05": _ALONE,
    "58": "see whether the server's disk is full, or fails, and its log",
}
_DAMAGED = ("XX001", "XX002")
_POOLERS_OWN = "08P01"
"""pgbouncer has this code for nearly all that it says itself: only its words tell what is wrong."""

# A connection that does not come about tells no code, only words; in another language than English
# they say as much as they say.
_BY_WORDS: tuple[tuple[str, str], ...] = (
    (r"connection refused|no such file or directory|is the server running", _START),
    (r"could not translate host|failed to resolve|name or service not known|nodename", _START),
    (r"password|authentication|no pg_hba\.conf entry|role .* does not exist", _WHO),
    (r"database .* does not exist", _DATABASE),
    (r"pooling mode|unsupported startup parameter|prepared statement", _POOLER),
    (r"query_wait_timeout|server login has been failing|server_login_retry", _BEHIND),
    (r"certificate|ssl|tls", _TLS),
    (r"too many (clients|connections)|connection slots are reserved", _CROWDED),
    (r"starting up|not yet accepting|not accepting connections|recovery mode", _STARTING),
    (r"shutting down|terminating connection", _STOPPING),
    (r"permission denied", _RIGHTS),
    (r"session is (not )?read-only|hot standby", _PRIMARY),
    (
        r"timeout expired|timed out|no answer|unreachable|no route",
        "see whether the server runs, and whether a firewall stands between",
    ),
    (r"invalid .*(option|value|port)|bad value for|definition of service|info string", _OPTIONS),
    (r"closed the connection unexpectedly|connection reset|broken pipe|eof detected", _STOPPING),
)


def fault_of(error: BaseException, place: str) -> StoreUnavailable:
    """What an error of the driver means, of a server and database called `place`. None of its
    words has the password: neither the server nor the driver repeats it."""
    said, state = _said(error), getattr(error, "sqlstate", None)
    if state in _DAMAGED:
        return StoreDamaged(
            f"{place}: the database is damaged ({said})",
            "stop the bridge and put a backup back, and see the server's log",
        )
    return StoreUnavailable(
        f"{place}: the database cannot be used now: {said}", _remedy(state, str(error))
    )


def _remedy(state: str | None, words: str) -> str:
    said = "" if state is None else _BY_STATE.get(state) or _BY_STATE.get(state[:2], "")
    if state not in (None, _POOLERS_OWN):
        return said
    return next(
        (remedy for pattern, remedy in _BY_WORDS if re.search(pattern, words, re.IGNORECASE)), said
    )


def _said(error: BaseException) -> str:
    """Its first line, without what the driver says of where and how it has tried."""
    words = str(error).strip().split("\n")[0] or type(error).__name__
    words = re.sub(r"^connection (failed|is bad): ", "", words)
    words = re.sub(r"^connection to server .*? failed: (?=\S)", "", words)
    return " ".join(re.sub(r"^(FATAL|ERROR): +", "", words).split())[:_LONGEST]


def unknown_outcome(place: str) -> StoreUnsure:
    """The fault where the connection was lost in the middle of a commit."""
    return StoreUnsure(
        f"{place}: the connection was lost as something was written, and the server does not come "
        "back to say whether it was",
        _STOPPING,
    )


def read_only(place: str) -> StoreUnavailable:
    """The fault for a server that follows another one."""
    return StoreUnavailable(f"{place} is a standby, which can only be read", _PRIMARY)


def shared_session(host: str) -> StoreUnavailable:
    """The fault where a pooler lets others use what we have set up for ourselves: locks would be
    theirs, and statements of theirs be executed in the place of ours."""
    return StoreUnavailable(
        f"PostgreSQL at {host}: a pooler in between gives our connection to others, too", _POOLER
    )
