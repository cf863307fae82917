"""What keeps a replica from storing anything that another has taken over from."""

from sqlalchemy import Connection, select

from letta_matrix.common.sureness import Sure
from letta_matrix.store.faults import LeaseLost
from letta_matrix.store.schema import leases

ACTIVE = "active"
"""The lease of the replica that admits, asks and sends."""


class Fence:
    """What keeps out whoever held the lease before. `sure` returns once it is known to be held
    by `holder`: until when, by the event loop's clock. It raises LeaseLost once it is not."""

    def __init__(self, holder: str, epoch: int, sure: Sure) -> None:
        # The holder, too: a database that went back in time gives an epoch again.
        mine = (leases.c.epoch == epoch) & (leases.c.holder == holder)
        mine &= leases.c.name == ACTIVE
        self._query = select(leases.c.epoch).where(mine).with_for_update(read=True, key_share=True)
        self.sure = sure

    def check(self, db: Connection) -> None:
        """Every transaction of the holder begins with it: nobody else becomes the holder before
        it ends. Raises LeaseLost where somebody has.

        A renewal does not wait for it: of the row only the columns of its keys are locked
        (PostgreSQL, "Row-Level Locks").
        """
        if db.execute(self._query).scalar_one_or_none() is None:
            raise LeaseLost
