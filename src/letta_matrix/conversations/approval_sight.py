"""Whether people see what the bridge asked them."""

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.matrix.events import newest_content
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.approvals import Approval
from letta_matrix.store.outbox import Outbox

log = structlog.get_logger()


class ApprovalSight:
    """Looks at questions as the homeserver shows them."""

    def __init__(self, homeserver: Homeserver, directory: AgentDirectory, outbox: Outbox) -> None:
        self._homeserver = homeserver
        self._directory = directory
        self._outbox = outbox

    async def is_as_asked(self, approval: Approval) -> bool:
        """Whether its event says, to the letter, what was frozen when it was asked.

        One that is still on its way does: who answers so early saw what was frozen, at another
        door. Raises HomeserverUnavailable.
        """
        agent = self._directory.get(approval.agent_id)
        entries = await self._outbox.of_turn(approval.turn_id)
        asked = next((one for one in entries if one.txn_id == approval.prompt_txn), None)
        if agent is None or asked is None:
            return False
        if asked.event_id is None:
            return asked.failure is None
        try:
            ghost = self._homeserver.acting_as(agent.user_id)
            event = await ghost.event(approval.room_id, asked.event_id)
        except MatrixRequestError as error:
            log.warning("a question cannot be looked at", key=approval.key, reason=str(error))
            return False
        return dict(newest_content(event)) == dict(asked.content)
