"""A Letta API as a place where agents live."""

from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from letta_matrix.common.json_fields import id_of
from letta_matrix.common.sureness import Sure, alone
from letta_matrix.config.runtimes import LettaApiRuntime
from letta_matrix.runtimes.faults import (
    AgentGone,
    ConversationGone,
    CredentialsRefused,
    RuntimeFault,
    RuntimeRefused,
    RuntimeUnavailable,
    TurnLost,
)
from letta_matrix.runtimes.letta_api.errors import ApprovalPending
from letta_matrix.runtimes.letta_api.listing import AgentListing
from letta_matrix.runtimes.letta_api.orphans import deny_orphans
from letta_matrix.runtimes.letta_api.speech import said_since
from letta_matrix.runtimes.letta_api.turns import CANCEL_GRACE, Turn
from letta_matrix.runtimes.protocol import (
    AgentInfo,
    AgentRuntime,
    Capabilities,
    SaveTurnState,
    TurnEvent,
    TurnFinished,
    TurnRequest,
    TurnState,
)
from letta_matrix.runtimes.speech import Said

_KEPT = 200
"""Ended turns, and their runs, that are known again for a while."""
_UNBLOCKED = (
    "the agent was waiting for an approval that nobody could give any more; it is denied now: "
    "send the message again"
)
_CAPABILITIES = Capabilities(always=False, tools=False)


class LettaApi(AgentRuntime):
    """Implements `AgentRuntime` over the REST API of Letta Cloud or a V1 server.

    Turns are background runs: they go on without us, and are streamed again from their
    beginning (`POST /v1/runs/{id}/stream`).
    """

    def __init__(self, config: LettaApiRuntime, sure: Sure | None = None) -> None:
        # letta-client is heavy, and bridges without such a runtime never need it.
        from letta_matrix.runtimes.letta_api.client import Client

        self.name = config.name
        self.counters = Counter()
        self._client = Client(config, self.counters, sure or alone)
        self._listing = AgentListing(self._client)
        self._turns: dict[TurnRequest, Turn] = {}
        self._over: deque[TurnRequest] = deque(maxlen=_KEPT)
        self._runs: deque[str] = deque(maxlen=_KEPT)

    @property
    def capabilities(self) -> Capabilities:
        return _CAPABILITIES

    async def close(self) -> None:
        await self._client.close()

    async def list_agents(self) -> list[AgentInfo]:
        return await self._listing.read()

    async def create_agent(self, name: str, *, model: str = "", description: str = "") -> AgentInfo:
        fields = {"name": name, "model": model, "description": description}
        made = await self._client.create_agent({key: text for key, text in fields.items() if text})
        agent_id = id_of(made)
        if not agent_id:
            raise RuntimeUnavailable("the Letta API made an agent without an id")
        self._listing.forget()
        model = str(made.get("model") or model)
        return AgentInfo(agent_id, str(made.get("name") or name), description, model)

    async def rename_agent(self, agent_id: str, name: str) -> None:
        await self._client.update_agent(agent_id, {"name": name})

    async def delete_agent(self, agent_id: str) -> None:
        self._listing.forget()
        try:
            await self._client.delete_agent(agent_id)
        except AgentGone:
            return

    async def list_models(self) -> list[str]:
        handles = (item.get("handle") for item in await self._client.models())
        return sorted({handle for handle in handles if isinstance(handle, str) and handle})

    async def set_model(self, agent_id: str, model: str) -> None:
        await self._client.update_agent(agent_id, {"model": model})

    async def create_conversation(self, agent_id: str, title: str) -> str:
        conversation_id = id_of(await self._client.create_conversation(agent_id, title))
        if not conversation_id:
            raise RuntimeUnavailable("the Letta API made a conversation without an id")
        return conversation_id

    async def run_turn(
        self, request: TurnRequest, state: TurnState | None, save: SaveTurnState
    ) -> AsyncGenerator[TurnEvent]:
        turn = self._turns[request] = Turn(self._client, request, state, save, self.counters)
        try:
            async with aclosing(turn.follow()) as events:
                async for event in events:
                    if isinstance(event, TurnFinished):
                        yield await self._end(turn, event)
                    else:
                        yield event
        except RuntimeFault as error:
            fault = await self._meaning(turn, error)
            if isinstance(fault, TurnLost | RuntimeRefused):
                self._over.append(request)
            raise fault from None
        finally:
            self._runs += turn.runs
            if self._turns.get(request) is turn:
                del self._turns[request]

    async def _end(self, turn: Turn, end: TurnFinished) -> TurnFinished:
        """A turn's end; what held it up, a call that waits for nobody's answer, is denied."""
        conversation_id = turn.request.conversation_id
        alone = self._followed(conversation_id) == [turn]
        if turn.blocked and alone and await deny_orphans(self._client, conversation_id):
            end = replace(end, error=_UNBLOCKED)
        self._over.append(turn.request)
        return end

    async def _meaning(self, turn: Turn, error: RuntimeFault) -> RuntimeFault:
        """What an error means for a turn."""
        request = turn.request
        match error:
            case ApprovalPending() if self._followed(request.conversation_id) == [turn]:
                if await deny_orphans(self._client, request.conversation_id):
                    return error
                return RuntimeRefused(
                    "the agent waits for an approval that cannot be given or denied from here; "
                    "answer it where it was asked for, or begin a new conversation"
                )
            case CredentialsRefused() if turn.resumed:
                return RuntimeUnavailable(str(error))
            # Conversations go with their agent, and only the agent can be told of for good.
            case ConversationGone() if not await self._client.has_agent(request.agent_id):
                return AgentGone("the Letta API no longer has the agent")
            case ConversationGone() if turn.resumed:
                return TurnLost(str(error), tools_started=True)
            case _:
                return error

    def _followed(self, conversation_id: str) -> list[Turn]:
        turns = self._turns.values()
        return [turn for turn in turns if turn.request.conversation_id == conversation_id]

    async def cancel_turn(self, agent_id: str, conversation_id: str) -> None:
        turns = self._followed(conversation_id)
        for turn in turns:
            await turn.cancel()
        if await self._client.cancel(conversation_id):
            for turn in turns:
                turn.end_within(CANCEL_GRACE)
        elif not turns:
            await deny_orphans(self._client, conversation_id)

    async def answer_approval(
        self, request: TurnRequest, approval_id: str, *, allow: bool, message: str = ""
    ) -> None:
        """See `AgentRuntime`."""
        turn = self._turns.get(request)
        if turn is not None:
            await turn.answer(approval_id, allow=allow, message=message)
        elif request in self._over:
            raise RuntimeRefused("the turn has ended")
        else:
            raise RuntimeUnavailable("the turn is not being followed yet")

    async def said_since(self, agent_id: str, cursor: str | None) -> Said:
        ours = {run_id for turn in self._turns.values() for run_id in turn.runs}
        return await said_since(self._client, agent_id, cursor, ours.union(self._runs))
