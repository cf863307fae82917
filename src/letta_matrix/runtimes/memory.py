"""A runtime in memory, for tests and benchmarks: agents that answer at once by script."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable

from letta_matrix.runtimes.protocol import (
    AgentInfo,
    Capabilities,
    RuntimeRefused,
    RuntimeUnavailable,
    SaveTurnState,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnLost,
    TurnRequest,
    TurnStarted,
    TurnState,
)

Script = Callable[[TurnRequest], Iterable[TurnEvent | float]]
"""What an agent does with a message: events, and numbers that are pauses in seconds."""


def echo(request: TurnRequest) -> Iterable[TurnEvent | float]:
    """The default script: says back what it was told, in one piece."""
    yield TextDelta("0", f"echo: {request.text}")
    yield TurnFinished(StopReason.END_TURN)


class MemoryRuntime:
    """An `AgentRuntime` whose agents live in this object.

    `asked` lists the requests that reached an agent; `available` False makes every call raise
    RuntimeUnavailable. A turn can be followed again as long as the object lives.
    """

    def __init__(self, name: str = "memory", agents: int = 0, script: Script = echo) -> None:
        self._name = name
        self._numbers = itertools.count(1)
        self._agents: dict[str, AgentInfo] = {}
        self._conversations: dict[str, str] = {}
        self._cancelled: set[str] = set()
        self.counters: Counter[str] = Counter()
        self.script = script
        self.available = True
        self.asked: list[TurnRequest] = []
        for number in range(1, agents + 1):
            self.add(AgentInfo(f"agent-{number:08d}-0000", f"Agent {number}"))

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(approvals=False)

    def add(self, agent: AgentInfo) -> None:
        self._agents[agent.agent_id] = agent

    def remove(self, agent_id: str) -> None:
        del self._agents[agent_id]

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def list_agents(self) -> list[AgentInfo]:
        self._check()
        return list(self._agents.values())

    async def create_agent(self, name: str, *, model: str = "", description: str = "") -> AgentInfo:
        self._check()
        agent = AgentInfo(f"agent-{next(self._numbers):08d}-ffff", name, description, model)
        self.add(agent)
        return agent

    async def rename_agent(self, agent_id: str, name: str) -> None:
        self._check()
        old = self._agents.get(agent_id)
        if old is None:
            raise RuntimeRefused(f"there is no agent {agent_id}")
        self.add(AgentInfo(agent_id, name, old.description, old.model))

    async def create_conversation(self, agent_id: str, title: str) -> str:
        self._check()
        conversation_id = f"conversation-{next(self._numbers)}"
        self._conversations[conversation_id] = agent_id
        return conversation_id

    async def list_conversations(self, agent_id: str) -> list[str]:
        self._check()
        return [key for key, owner in self._conversations.items() if owner == agent_id]

    async def run_turn(
        self, request: TurnRequest, state: TurnState | None, save: SaveTurnState
    ) -> AsyncGenerator[TurnEvent]:
        self._check()
        if request.agent_id not in self._agents:
            raise RuntimeRefused(f"there is no agent {request.agent_id}")
        known = any(asked.message_id == request.message_id for asked in self.asked)
        if state is not None and not known:
            raise TurnLost("the agent's memory went with its process", tools_started=False)
        await save({"message_id": request.message_id})
        if not known:
            self.asked.append(request)
        self._cancelled.discard(request.conversation_id)
        yield TurnStarted(run_id=f"run-{request.message_id}")
        for step in self.script(request):
            if isinstance(step, float | int):
                await asyncio.sleep(step)
                self._check()
            elif request.conversation_id in self._cancelled:
                self._cancelled.discard(request.conversation_id)
                yield TurnFinished(StopReason.CANCELLED)
                return
            else:
                yield step

    async def cancel_turn(self, agent_id: str, conversation_id: str) -> None:
        self._cancelled.add(conversation_id)

    async def answer_approval(
        self, request: TurnRequest, approval_id: str, *, allow: bool, message: str = ""
    ) -> None:
        raise RuntimeRefused("the in-memory runtime asks for no approvals")

    async def finish_turn(self, request: TurnRequest) -> None:
        pass

    def _check(self) -> None:
        if not self.available:
            raise RuntimeUnavailable("the in-memory runtime is switched off")
