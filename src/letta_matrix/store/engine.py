"""What differs between the databases that the bridge can be kept in."""

from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from letta_matrix.store.faults import StoreUnavailable


class StoreEngine(Protocol):
    """One way to keep the tables. All of it is called in the database's thread, and may wait; of
    one that is `at_hand`, `reading` and `sizes` may be called in any, as they wait for nothing."""

    at_hand: bool

    def take(self) -> None:
        """Let this process have it. Raises StoreError, also where another has it for itself."""
        ...

    def check(self) -> None:
        """Look at it before it is used. Raises StoreError."""
        ...

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection that is only read from."""
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
