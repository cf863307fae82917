"""A complete listing of a server's agents, kept current by asking for what changed."""

from functools import partial
from typing import TYPE_CHECKING

from letta_matrix.common import clock
from letta_matrix.common.json_fields import Json, id_of
from letta_matrix.runtimes.faults import RuntimeUnavailable
from letta_matrix.runtimes.letta_api.pages import PAGE, pages
from letta_matrix.runtimes.letta_json import agent_of
from letta_matrix.runtimes.protocol import AgentInfo

if TYPE_CHECKING:
    from letta_matrix.runtimes.letta_api.client import Client

FULL_EVERY = 60.0
"""Seconds after which all pages are read again: removals leave no other trace."""
MAX_PAGES = 400


class AgentListing:
    """Lists agents with one request where nothing, or little, has changed.

    The first page by `updated_at` holds every new, renamed and run agent, unless more
    changed than fit a page; up to one page of agents is always read anew in full.
    """

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._known: dict[str, Json] = {}
        self._full_at: float | None = None

    def forget(self) -> None:
        """Read everything anew next time."""
        self._full_at = None

    async def read(self) -> list[AgentInfo]:
        """Every agent. Raises what the client raises; then nothing of the try is kept."""
        newest = await self._client.agents("updated_at", "desc")
        if len(newest) < PAGE:
            self._known = _usable(newest)
        elif self._covers(newest):
            self._known |= _usable(newest)
        else:
            self._known = await self._all()
            self._full_at = clock.now()
        return [
            agent_of(item, str(item.get("last_run_completion") or ""))
            for item in self._known.values()
        ]

    def _covers(self, newest: list[Json]) -> bool:
        """Whether everything that changed since the last time is on this page."""
        if self._full_at is None or clock.now() - self._full_at > FULL_EVERY:
            return False
        last = newest[-1]
        known = self._known.get(id_of(last), {}).get("updated_at")
        return known is not None and known == last.get("updated_at")

    async def _all(self) -> dict[str, Json]:
        found: dict[str, Json] = {}
        by_age = partial(self._client.agents, "created_at", "asc")
        async for page in pages(by_age, MAX_PAGES):
            found |= _usable(page)
            if len(page) < PAGE:
                return found
        raise RuntimeUnavailable("the Letta API's listing of agents does not end")


def _usable(page: list[Json]) -> dict[str, Json]:
    """The agents of a page, by id; only what is shown of them is kept."""
    return {id_of(item): {name: item.get(name) for name in _SHOWN} for item in page if id_of(item)}


_SHOWN = ("id", "name", "description", "model", "last_run_completion", "updated_at")
