"""Texts that a bridge could not bring to its network: told once, and never sent again."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common import clock
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.parts import part
from letta_matrix.common.vitals import Trouble
from letta_matrix.conversations import notices
from letta_matrix.conversations.reply import Notice
from letta_matrix.conversations.speakers import Speaker
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.portals.deliveries import SENT, outcome_in
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.portals import Portal
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Outcome, Turn, TurnStatus

log = structlog.get_logger()

_TOLD = 3600.0
"""Seconds that one which did not go out counts: not every bridge tells what did."""


@part
class Undelivered:
    """Tells of each in the agent's own room, and in `trouble` until something went out again, or an
    hour long."""

    _speaker: Speaker
    _homeserver: Homeserver
    _directory: AgentDirectory
    _rooms: Rooms
    _outbox: Outbox

    def __post_init__(self) -> None:
        self._failing: dict[str, tuple[float, str]] = {}
        self.failures = Counter[str]()
        """How many did not go out, by bridge."""

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Say it exactly once. `recovered`: an earlier try may have said it."""
        portal = self._speaker.portals.portal(turn.room_id)
        agent = await self._whose(turn, portal) if portal is not None else None
        if agent is None or portal is None:
            await self.give_up(turn)
            return
        turn.agent_id = agent.agent_id
        entries = await self._speaker.left_of(turn, recovered=recovered)
        reply = self._speaker.of_agent(turn, agent, entries)
        if turn.status is not TurnStatus.REPLYING:
            log.warning("a text did not go out", bridge=portal.name, agent=agent.agent_id)
            self.failures[portal.name] += 1
            self._failing[portal.name] = clock.now() + _TOLD, turn.prompt or ""
            await reply.freeze("", Notice(notices.undelivered(turn.prompt or "")), Outcome.FAILED)
        await self._speaker.deliver(turn, reply)

    async def give_up(self, turn: Turn) -> None:
        """End it without a word."""
        await self._speaker.keep_silent(turn, Outcome.DROPPED)

    def heard(self, event: Mapping[str, Any]) -> None:
        """Hear of an event that was stored: something may have gone out again."""
        outcome = outcome_in(event)
        portal = self._speaker.portals.portal(str(event.get("room_id")))
        if portal is None or outcome is None or outcome.status != SENT:
            return
        if event.get("sender") == self._speaker.portals.bridges[portal.name].bot:
            self._failing.pop(portal.name, None)

    @property
    def trouble(self) -> Trouble | None:
        """What did not go out lately, and since nothing did."""
        failing = {name: why for name, (end, why) in self._failing.items() if clock.now() < end}
        if not failing:
            return None
        return Trouble(
            "texts of agents do not go out to: " + ", ".join(sorted(failing)),
            "they are not sent again by themselves; see what the bridge says of its login "
            "(`!sms status`), and whether the phone is connected",
            "; ".join(one for one in failing.values() if one),
        )

    async def _whose(self, turn: Turn, portal: Portal) -> Agent | None:
        """The agent whose words they were, None for what people wrote. Of what was redacted since
        only its sender is left, so that it is who answers there."""
        if (sent := await self._outbox.turn_of(turn.event_id)) is not None:
            return self._directory.get(sent.agent_id)
        ours = list(self._rooms.ours_in(turn.room_id))
        try:
            event = await self._homeserver.acting_as(ours[0]).event(turn.room_id, turn.event_id)
        except (MatrixRequestError, IndexError) as error:
            log.info("not known what did not go out", room=turn.room_id, reason=str(error))
            return None
        if event.get("sender") not in ours:
            return None
        marked = self._directory.get(str(mapping(Event(event).marker).get("agent_id")))
        by_itself = self._directory.by_user(str(event.get("sender")))
        # Who is in the room this process may not know.
        portals = self._speaker.portals
        there = portals.agent_for(portal, turn.sender) or portals.agent_of(portal)
        return marked or by_itself or there
