"""What a call that changes something has noted, for when it comes again."""

from typing import Any

from letta_matrix.common.json_fields import mapping
from letta_matrix.store.audit import AuditEntry, AuditStore

_NOTES = "notes"


class Notes:
    """What a call has found out before it acts, by names of its own: which room or agent a name
    means (by the next try it may have renamed them itself), or what there was before.

    Kept only of calls with a `transaction_id`, others do not come again.
    """

    def __init__(self, store: AuditStore) -> None:
        self._store = store
        self._seq: int | None = None
        self._found: dict[str, Any] = {}

    @property
    def noted(self) -> dict[str, object] | None:
        """What an entry without a result keeps of them (see `begin`)."""
        return {_NOTES: dict(self._found)} if self._found else None

    def begin(self, known: AuditEntry) -> None:
        """The call as it is stored, by an earlier try perhaps."""
        self._seq = known.seq
        self._found = dict(mapping((known.result or {}).get(_NOTES)))

    def get(self, name: str) -> Any:
        """What was noted before, None for nothing."""
        return self._found.get(name)

    async def keep(self, name: str, value: str | list[str]) -> None:
        """Note something. Raises StoreUnavailable."""
        if self._seq is None:
            return
        self._found[name] = value
        await self._store.note(self._seq, {_NOTES: dict(self._found)})
