"""What differs between the databases that the bridge can be kept in."""

from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import DBAPIError

from letta_matrix.store.faults import StoreUnavailable

REVISION = text("SELECT version_num FROM alembic_version")
"""The schema's, where there is one (Alembic)."""


def revision_in(connection: Connection, is_kept: TextClause) -> str | None:
    """The schema's revision, None where there is none yet: as the query `is_kept` tells."""
    return connection.execute(REVISION).scalar() if connection.execute(is_kept).scalar() else None


class StoreEngine(Protocol):
    """One way to keep the tables. All of it is called in the database's thread, and may wait; of
    one that is `at_hand`, `glancing` and `sizes` may be called in any, as they wait for nothing."""

    at_hand: bool

    def take(self, *, alone: bool = False) -> None:
        """Let this process have it, `alone` or, where several bridges may have one, together with
        others. Raises StoreError, also where another has it for itself."""
        ...

    def check(self, *, writes: bool = True) -> None:
        """Look at it before it is used, to be written or only to be read. Raises StoreError."""
        ...

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection that is only read from."""
        ...

    def moment(self) -> AbstractContextManager[Connection]:
        """The same, which shows one moment, whoever writes meanwhile."""
        ...

    def glancing(self) -> AbstractContextManager[Connection]:
        """A connection for one query, which is read at once; it may be kept for the next."""
        ...

    def writing(self) -> AbstractContextManager[Connection]:
        """A connection in a transaction that is written at the end of the block, or not at all
        where it raises. Raises StoreUnavailable."""
        ...

    def fault_of(self, error: DBAPIError) -> StoreUnavailable:
        """What an error of its driver means for whoever runs the bridge."""
        ...

    def revision(self, connection: Connection) -> str | None:
        """The schema's, None where there is none yet."""
        ...

    def sizes(self) -> dict[str, int]:
        """Bytes that it takes, by what for."""
        ...

    def close(self) -> None:
        """End its connections, and let others have it."""
        ...
