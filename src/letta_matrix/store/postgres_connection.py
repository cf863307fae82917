"""Connections to PostgreSQL: how long they wait, and what they do with texts and JSON that the
server does not take."""

import json
import select
from typing import Any

import psycopg
from psycopg import errors, pq
from psycopg.abc import PQGen
from psycopg.types.string import StrDumperUnknown
from sqlalchemy import URL
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from letta_matrix.common.lenient_json import loads
from letta_matrix.store import postgres_faults as faults
from letta_matrix.store.faults import StoreError

_DEFAULTS = {
    "application_name": "letta-matrix",
    "connect_timeout": "5",
    # A network that carries nothing any more is noticed within ten seconds.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "9000",
}
"""What `database.url` may say otherwise (PostgreSQL, "Parameter Key Words" of libpq)."""

_ENCODING = {"client_encoding": "utf8"}
"""Without it texts come as bytes where somebody has set another one, for the user, say."""

SETTINGS = {
    "letta_matrix.session": "is set up",
    # What the server, the database or the user has else is for other programs.
    "default_transaction_isolation": "read committed",
    "extra_float_digits": "1",
    "idle_session_timeout": "0",
    "statement_timeout": "15s",
    "lock_timeout": "5s",
    # Of a bridge that stands still nothing is to stay locked, nor of one whose machine is lost.
    "idle_in_transaction_session_timeout": "5s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "9s",
}
"""What is set on each connection."""


def parameters_for(url: URL) -> dict[str, str]:
    """What a connection's parameters are besides those of the URL. Raises StoreError where it has
    some that libpq does not know: the driver would take them for its own."""
    known = {one.keyword.decode() for one in pq.Conninfo.get_defaults()}
    given = url.query.items()
    if odd := [name for name, value in given if name not in known or not isinstance(value, str)]:
        raise StoreError(
            "`database.url` has behind its `?` what PostgreSQL does not know, or twice: "
            f"{', '.join(odd)}",
            "correct it, or take it out",
        )
    return {key: value for key, value in _DEFAULTS.items() if key not in url.query} | _ENCODING


class PatientConnection(psycopg.Connection[Any]):
    """A connection that ends when the server says nothing for too long: one that stands still
    would hold whoever asks for ever."""

    patience = 20.0
    """Seconds without an answer; the server itself gives up earlier, see `SETTINGS`."""

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except errors._WaitTimeout:  # pyright: ignore[reportPrivateUsage]
            self.close()
            raise errors.OperationalError(f"no answer within {self.patience:.0f} seconds") from None


_SERVER = (
    "SELECT extract(epoch FROM pg_postmaster_start_time()), extract(epoch FROM stats_reset), "
    "current_setting('letta_matrix.session', true) FROM pg_stat_bgwriter"
)
"""Tells one life of a server from another: it forgets its statistics in a crash. And whether its
session had been set up before: then a pooler has passed it on."""


def set_up(connection: psycopg.Connection[Any], record: ConnectionPoolEntry) -> None:
    """Make a new connection one of ours; its `info` tells which life of which `server` it is to.
    Raises StoreUnavailable where the server's session is not ours alone, StoreError where it is of
    an earlier version than will do."""
    host, version = connection.info.host, connection.info.server_version
    if version < faults.OLDEST:
        # First: it does not know all that is set below.
        connection.close()
        raise StoreError(
            f"PostgreSQL at {host} is PostgreSQL {version // 10_000}, and at least "
            f"{faults.OLDEST // 10_000} is needed",
            "upgrade the server",
        )
    connection.adapters.register_dumper(str, _TextDumper)
    *server, mark = connection.execute(_SERVER, prepare=False).fetchone() or (None,)
    if mark:
        connection.close()
        raise faults.shared_session(host)
    record.info["server"] = server
    settings = "; ".join(f"SET {name} = '{value}'" for name, value in SETTINGS.items())
    connection.execute(settings.encode(), prepare=False)


def check_out(connection: psycopg.Connection[Any], _record: object, _proxy: object) -> None:
    """Have another connection made where this one has ended meanwhile. Nothing is asked: of one
    that is idle there is something to be read only when the server says goodbye."""
    if connection.closed or _has_ended(connection.fileno()):
        raise DisconnectionError("the server has ended the connection")


def _has_ended(socket: int) -> bool:
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


class _TextDumper(StrDumperUnknown):
    """PostgreSQL takes no text with U+0000, which people can write in a message: it stands for a
    character that is not known, as in Markdown (CommonMark, "Insecure characters")."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in obj else obj)


def json_text(value: object) -> str:
    """JSON as the server takes it: numbers that are none are null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(loads(json.dumps(value)), allow_nan=False)
