"""What sessions over HTTP have subscribed to, kept so that it outlives the process.

A client that goes on with its session after a restart (see `lasting_sessions`) is told nothing of
it, so it cannot subscribe again.
"""

import json

from letta_matrix.common.json_fields import mapping
from letta_matrix.operations.records import Meta

_KEY = "mcp_subscriptions"
_MOST = 200
"""Sessions, of which the latest are kept: clients seldom end theirs."""

Topics = dict[str, str]
"""URIs by topic."""


class KeptSubscriptions:
    """By the names of the sessions. Raises StoreUnavailable."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta
        self._known: dict[str, Topics] | None = None

    async def of(self, session_id: str) -> Topics:
        """What a session has subscribed to."""
        return dict((await self._all()).get(session_id, {}))

    async def keep(self, session_id: str, topics: Topics) -> None:
        """A session has subscribed to these, and to nothing else."""
        known = await self._all()
        if known.get(session_id, {}) == topics:
            return
        # The newest comes last.
        known.pop(session_id, None)
        if topics:
            known[session_id] = dict(topics)
        while len(known) > _MOST:
            del known[next(iter(known))]
        await self._meta.set(_KEY, json.dumps(known))

    async def _all(self) -> dict[str, Topics]:
        if self._known is None:
            kept = json.loads(await self._meta.get(_KEY) or "{}")
            known = {str(one): dict(mapping(topics)) for one, topics in mapping(kept).items()}
            # Meanwhile another may have read it.
            self._known = self._known or known
        return self._known
