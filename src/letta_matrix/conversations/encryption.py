"""What our users say in rooms whose messages they cannot read."""

from dataclasses import replace

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.config import Config
from letta_matrix.conversations import notices
from letta_matrix.matrix.content import text_content
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.identifiers import room_alias
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.matrix.verbatim import link
from letta_matrix.store.agents import ENCRYPTED, Agent, AgentDirectory

log = structlog.get_logger()


class Encryption:
    """Says once in an encrypted room that nothing is read there, and where it is."""

    def __init__(self, config: Config, directory: AgentDirectory) -> None:
        self._domain = config.homeserver.domain
        self._directory = directory

    async def entered(self, room_id: str, intent: Intent, event_id: str) -> None:
        """One of us has come into a room by an event; say it if that is encrypted. Raises
        HomeserverUnavailable."""
        try:
            state = await intent.state(room_id, "m.room.encryption")
            if state.get("algorithm"):
                await self.tell(room_id, intent, event_id)
        except MatrixRequestError as error:
            log.info("not told of encryption", room=room_id, reason=refusal(error))

    async def tell(self, room_id: str, intent: Intent, event_id: str) -> None:
        """Say it as one of us, once for each event. Raises HomeserverUnavailable and
        MatrixRequestError."""
        agent = self._directory.by_user(intent.user_id)
        if agent is not None and agent.room_id == room_id:
            await self._directory.change([agent.agent_id], _encrypted)
        cause = txn_id(event_id, intent.user_id, "encrypted")
        marker = {"agent_id": agent.agent_id if agent else "", "txn": cause}
        text = notices.encrypted(elsewhere(agent, room_id, self._domain))
        content = text_content(text, marker=marker, msgtype="m.notice")
        await intent.send(
            room_id, "m.room.message", content, cause, give_up_after=60, look_first=True
        )


def _encrypted(agent: Agent) -> Agent:
    return replace(agent, applied={**agent.applied, ENCRYPTED: True})


def unreadable(agent: Agent, room_id: str, domain: str) -> str:
    """What answers an encrypted message."""
    if agent.room_id in (None, room_id):
        return notices.UNREADABLE
    return notices.encrypted(elsewhere(agent, room_id, domain))


def elsewhere(agent: Agent | None, room_id: str, domain: str) -> str:
    """Where somebody is read who is not in a room, as Markdown: an agent in its own room."""
    if agent is None or agent.room_id in (None, room_id):
        return "a room without encryption"
    return link("my own room", room_alias(agent.agent_id, domain)) + ", or one without encryption"
