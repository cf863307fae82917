"""Client transaction ids (client-server API, 'Transaction identifiers'), derived from causes."""

import hashlib
import re

TXN_ID = re.compile(r"lm[0-9a-f]{32}", re.ASCII)
"""What `txn_id` makes."""


def txn_id(*cause: str | int) -> str:
    """The txn id of the request that `cause` calls for: the same cause, the same id."""
    digest = hashlib.sha256("\0".join(str(part) for part in cause).encode()).hexdigest()
    return f"lm{digest[:32]}"
