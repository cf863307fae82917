"""What agents have sent to other networks by tools, for as long as that counts."""

from dataclasses import dataclass

from sqlalchemy import delete, select

from letta_matrix.store.database import Database
from letta_matrix.store.rows import replacing
from letta_matrix.store.schema import meta

_SENT = "sent to a portal "
"""Keys in `meta`, each with that of a call behind it."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Something was, or was about to be, sent to a portal at a time (Unix time), for a `contact`
    there, "" where that is not known."""

    at: float
    room_id: str
    contact: str = ""


class SentBook:
    """By keys of the calls that send it; held in memory and written through. Call `load()` before
    use."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sent = dict[str, Sent]()

    async def load(self) -> None:
        query = select(meta).where(meta.c.key.startswith(_SENT))
        for row in await self._database.rows(query):
            at, room_id, *contact = row["value"].split(" ")
            self._sent[row["key"].removeprefix(_SENT)] = Sent(float(at), room_id, *contact)

    def since(self, at: float) -> dict[str, Sent]:
        """What was sent after a time (Unix)."""
        return {key: one for key, one in self._sent.items() if one.at > at}

    async def note(self, key: str, sent: Sent, *, forget: float) -> None:
        """The call with this key sends something; what was sent by the time `forget` counts no
        more. Raises StoreUnavailable."""
        row = {"key": _SENT + key, "value": f"{sent.at} {sent.room_id} {sent.contact}"}
        kept = self.since(forget)
        old = delete(meta).where(meta.c.key.in_([_SENT + one for one in self._sent.keys() - kept]))
        await self._database.execute(old, *replacing(meta, row))
        self._sent = {**kept, key: sent}
