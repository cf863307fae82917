"""When agents ran last, in any of their conversations."""

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

    An agent's own `last_run_completion` knows only its default conversation, and is when that was
    made while there is no message in it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last: dict[str, str] = {}
        self._newest = ""
        self._knows_all = True

    def last_run(self, agent: Json) -> str:
        """A text that changes whenever the agent has run; "" if it surely never has."""
        own = time_of(agent.get("last_run_completion")) if agent.get("message_ids") != [] else ""
        unknown = "" if self._knows_all else "unknown"
        return max(own, self._last.get(id_of(agent), "")) or unknown

    async def look(self) -> None:
        """Take note of what changed since the last look.

        Raises:
            RuntimeUnavailable: as `Connection.call`.
        """
        newest = reached = self._newest
        limit, found = PAGE if newest else FIRST_PAGE, 0
        try:
            async for item in conversations(self._connection, newest, limit, MAX_PAGES):
                self._note(item)
                reached, found = max(reached, changed_at(item)), found + 1
        except RuntimeRefused:
            self._connection.counters["refused conversation_list"] += 1
            self._knows_all = False
            return
        # Not before every page was read: after a failure they are all read again.
        self._newest = reached
        if not newest and found == FIRST_PAGE * MAX_PAGES:
            self._knows_all = False

    def _note(self, conversation: Json) -> None:
        agent_id, said = conversation.get("agent_id"), time_of(conversation.get("last_message_at"))
        if isinstance(agent_id, str) and said > self._last.get(agent_id, ""):
            self._last[agent_id] = said
