"""When agents ran last, in any of their conversations."""

from collections import Counter

from letta_matrix.common.json_fields import Json, id_of
from letta_matrix.runtimes.app_server.connection import Connection
from letta_matrix.runtimes.app_server.frames import changed_at, time_of
from letta_matrix.runtimes.app_server.history import conversations
from letta_matrix.runtimes.faults import RuntimeRefused

PAGE = 20
FIRST_PAGE = 100
MAX_PAGES = 20


class Activity:
    """Follows the listing of all conversations, newest first, as far as it is news.

    An agent's own `last_run_completion` knows only its default conversation.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last: dict[str, str] = {}
        self._newest = ""
        self._looks: Counter[str] = Counter()

    def unsettled(self, agent_id: str) -> None:
        """A turn of the agent still runs: nothing in the listing will tell its end."""
        self._looks[agent_id] += 1

    def last_run(self, agent: Json) -> str:
        """A text that changes whenever the agent has run."""
        own, agent_id = time_of(agent.get("last_run_completion")), id_of(agent)
        return f"{max(own, self._last.get(agent_id, ''))} {self._looks[agent_id]}"

    async def look(self) -> None:
        """Take note of what changed since the last look.

        Raises:
            RuntimeUnavailable: as `Connection.call`.
        """
        newest = reached = self._newest
        limit = PAGE if newest else FIRST_PAGE
        try:
            async for item in conversations(self._connection, newest, limit, MAX_PAGES):
                self._note(item)
                reached = max(reached, changed_at(item))
        except RuntimeRefused:
            self._connection.counters["refused conversation_list"] += 1
            return
        # Not before every page was read: after a failure they are all read again.
        self._newest = reached

    def _note(self, conversation: Json) -> None:
        agent_id, said = conversation.get("agent_id"), time_of(conversation.get("last_message_at"))
        if isinstance(agent_id, str) and said > self._last.get(agent_id, ""):
            self._last[agent_id] = said
