"""What agents say unasked (schedules, other clients, background runs) appears in their rooms.

A listing tells by `last_run` that an agent has run; only then is its runtime asked what it
said, one agent at a time and at most every `speech_interval` for each.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from letta_matrix.common import clock
from letta_matrix.common.parts import part
from letta_matrix.conversations.reply import Reply
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.runtimes.faults import RuntimeFault
from letta_matrix.runtimes.protocol import AgentInfo, AgentRuntime
from letta_matrix.runtimes.speech import Speech
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.outbox import Outbox, OutboxEntry
from letta_matrix.store.places import Place
from letta_matrix.store.portals import PortalBook
from letta_matrix.store.speech import SpeechStore
from letta_matrix.store.turn_ids import turn_id_of
from letta_matrix.store.turns import Turn, TurnKind, TurnStatus, TurnStore

log = structlog.get_logger()

UNASKED = "*(on my own)* "
"""Stands before what an agent says outside of a turn from Matrix."""


@part
class SpeechWatch:
    """Watches one runtime. `listed` is told every listing, `run` does the work."""

    _runtime: AgentRuntime
    _interval: float
    _directory: AgentDirectory
    _store: SpeechStore
    _turns: TurnStore
    _outbox: Outbox
    _portals: PortalBook
    _homeserver: Homeserver
    _start: Callable[[list[Turn]], None]

    def __post_init__(self) -> None:
        self._due: dict[str, str] = {}
        self._looked: dict[str, float] = {}
        self._wake = asyncio.Event()

    async def listed(self, listing: Iterable[AgentInfo]) -> None:
        """Note who has run since it was last looked at. Raises StoreUnavailable."""
        unborn: list[str] = []
        for info in listing:
            agent = self._directory.get(info.agent_id)
            if agent is None or agent.runtime != self._runtime.name:
                continue
            known = self._store.get(info.agent_id)
            if known is None and not info.last_run:
                unborn.append(info.agent_id)
            elif info.last_run and (known is None or known[0] != info.last_run):
                self._due[info.agent_id] = info.last_run
                self._wake.set()
        if unborn:
            await self._store.begin(unborn)

    async def run(self) -> None:
        """Look, one agent after the other, for ever."""
        while True:
            await self._wake.wait()
            agent_id = self._next()
            if agent_id is None:
                self._wake.clear()
                if self._due:
                    await asyncio.sleep(min(self._interval, 1.0))
                    self._wake.set()
                continue
            await self._look(agent_id, self._due.pop(agent_id))

    def _next(self) -> str | None:
        now = clock.now()
        for agent_id in self._due:
            if now - self._looked.get(agent_id, float("-inf")) >= self._interval:
                return agent_id
        return None

    async def _look(self, agent_id: str, last_run: str) -> None:
        self._looked[agent_id] = clock.now()
        agent, known = self._directory.get(agent_id), self._store.get(agent_id)
        if agent is None or agent.status is AgentStatus.REMOVED:
            return
        # At first sight it is only noted where its speech stands, which takes no room.
        room_id = agent.room_id if known else ""
        if room_id is None:
            # It is still being made: the next listing brings it up again.
            return
        try:
            said = await self._runtime.said_since(agent_id, known[1] if known else None)
        except RuntimeFault as error:
            log.debug("speech cannot be read", agent=agent_id, reason=str(error))
            return
        told = [await self._tell(agent, room_id, speech) for speech in said.speeches]
        # Who has not said all yet is looked at again, also by the next process.
        seen = "" if said.more else last_run
        new = await self._store.advance(agent_id, seen, said.cursor, told)
        if new:
            log.info("agent spoke unasked", agent=agent_id, messages=len(new))
            self._start(new)

    async def _tell(
        self, agent: Agent, room_id: str, speech: Speech
    ) -> tuple[Turn, list[OutboxEntry]]:
        known = await self._turns.conversations.place_of(agent.agent_id, speech.conversation_id)
        # Nobody on another network is told what was said unasked.
        is_outside = known is not None and self._portals.portal(known.room_id) is not None
        place = known if known and not is_outside else Place(agent.agent_id, room_id)
        cause = f"speech:{speech.message_id}"
        turn = Turn(
            turn_id=turn_id_of(cause, agent.agent_id),
            agent_id=agent.agent_id,
            room_id=place.room_id,
            event_id=cause,
            sender=agent.user_id,
            sent_at=time.time(),
            prompt=None,
            status=TurnStatus.REPLYING,
            kind=TurnKind.SPEECH,
            thread_id=place.thread_id,
        )
        reply = Reply(turn, self._homeserver.acting_as(agent.user_id), self._outbox, 1.0)
        return turn, await reply.whole(UNASKED + speech.text)
