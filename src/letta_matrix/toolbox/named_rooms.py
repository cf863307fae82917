"""Which rooms the names in a call meant when it came first."""

from collections.abc import Mapping

from letta_matrix.matrix.events import mapping
from letta_matrix.store.audit import AuditEntry, AuditStore

_ROOMS = "rooms"


class NamedRooms:
    """The rooms of one call by the names it gave them, so that it acts in the same ones when it
    comes again: by then it may have renamed them itself.

    Kept only of calls with a `transaction_id`, others do not come again.
    """

    def __init__(self, store: AuditStore) -> None:
        self._store = store
        self._seq: int | None = None
        self._found: dict[str, str] = {}

    @property
    def noted(self) -> dict[str, object] | None:
        """What an entry without a result keeps of them (see `begin`)."""
        return {_ROOMS: dict(self._found)} if self._found else None

    def begin(self, known: AuditEntry) -> None:
        """The call as it is stored, by an earlier try perhaps."""
        self._seq = known.seq
        rooms: Mapping[str, object] = mapping((known.result or {}).get(_ROOMS))
        self._found = {name: str(room_id) for name, room_id in rooms.items()}

    def get(self, name: str) -> str | None:
        """The room that a name meant before."""
        return self._found.get(name)

    async def keep(self, name: str, room_id: str) -> None:
        """Note what a name means now. Raises StoreUnavailable."""
        if self._seq is None:
            return
        self._found[name] = room_id
        await self._store.note(self._seq, {_ROOMS: dict(self._found)})
