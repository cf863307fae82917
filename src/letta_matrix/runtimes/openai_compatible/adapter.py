"""An endpoint that speaks the OpenAI API (`/v1/models`, `/v1/chat/completions`) as a place
where agents live: every model that it lists is an agent."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing

from letta_matrix.common.json_fields import id_of, mapping
from letta_matrix.common.lenient_json import whole_text
from letta_matrix.common.sureness import Sure, alone
from letta_matrix.config import OpenAICompatibleRuntime
from letta_matrix.runtimes.faults import RuntimeUnavailable
from letta_matrix.runtimes.openai_compatible.endpoint import Endpoint
from letta_matrix.runtimes.openai_compatible.turns import Stopped, Turn
from letta_matrix.runtimes.protocol import (
    AgentInfo,
    AgentRuntime,
    Capabilities,
    SaveTurnState,
    StopReason,
    TurnEvent,
    TurnRequest,
    TurnState,
)


class OpenAICompatible(AgentRuntime):
    """Agents behind an OpenAI API.

    A conversation is the `X-Letta-Chat-Key` of its messages; an endpoint that does not know
    this header has no memory of them. Only an App Server (`letta server --openai-api`) is
    trusted to join a repeated message to its turn; elsewhere a turn whose stream is gone is
    lost (`TurnLost`), never asked again.
    """

    def __init__(self, config: OpenAICompatibleRuntime, sure: Sure | None = None) -> None:
        self._endpoint = Endpoint(config, sure or alone)
        self.name, self.counters = config.name, self._endpoint.counters
        self._running: dict[asyncio.Event, tuple[str, str]] = {}
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:
        """`resume`, `cancel` and `images` depend on the endpoint, once it was reached: an App
        Server goes on with a turn whose stream is closed, and others are taken to stop; it does
        not tell whether images were seen, and others are taken to refuse those they cannot. A
        turn is only resumed where the App Server is on this machine; see `Endpoint.still_knows`."""
        keeps_turns = bool(self._endpoint.keeps_turns)
        return Capabilities(
            resume=keeps_turns and self._endpoint.is_local,
            cancel=not keeps_turns,
            images=not keeps_turns,
            approvals=False,
            always=False,
            models=False,
            tools=False,
            speech=False,
            manage=False,
        )

    async def close(self) -> None:
        self._closed = True
        for stop in self._running:
            stop.set()
        await self._endpoint.close()

    async def list_agents(self) -> list[AgentInfo]:
        found: dict[str, AgentInfo] = {}
        for item in await self._endpoint.models():
            agent_id = id_of(mapping(item))
            if agent_id and agent_id == whole_text(agent_id):
                found.setdefault(agent_id, AgentInfo(agent_id, agent_id))
            else:
                self.counters["malformed models"] += 1
        return list(found.values())

    async def create_conversation(self, agent_id: str, title: str) -> str:
        """A fresh chat key; the endpoint hears of it with the first message."""
        return f"matrix-{secrets.token_hex(16)}"

    async def run_turn(
        self, request: TurnRequest, state: TurnState | None, save: SaveTurnState
    ) -> AsyncGenerator[TurnEvent]:
        if self._closed:
            raise self._closing()
        stop = asyncio.Event()
        self._running[stop] = (request.agent_id, request.conversation_id)
        turn = Turn(self._endpoint, request, save, stop)
        try:
            async with aclosing(turn.run(state)) as events:
                async for event in events:
                    yield event
        except Stopped:
            if self._closed:
                raise self._closing() from None
            yield await turn.end(StopReason.CANCELLED)
        finally:
            del self._running[stop]

    async def cancel_turn(self, agent_id: str, conversation_id: str) -> None:
        """Close the streams of a conversation. An App Server's agent goes on unheard, and the
        conversation's next message waits for it; see `capabilities`."""
        for stop, place in self._running.items():
            if place == (agent_id, conversation_id):
                stop.set()

    def _closing(self) -> RuntimeUnavailable:
        return RuntimeUnavailable(f"{self.name} is not followed any more: letta-matrix stops")
