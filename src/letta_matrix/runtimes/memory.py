"""A runtime in memory, for tests and benchmarks: agents that answer at once by script."""

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from letta_matrix.common.tools import ToolCall, ToolHandler, ToolResult, ToolSpec
from letta_matrix.runtimes.faults import (
    AgentGone,
    RuntimeRefused,
    RuntimeUnavailable,
    TurnLost,
)
from letta_matrix.runtimes.protocol import (
    AgentInfo,
    AgentRuntime,
    ApprovalRequested,
    Capabilities,
    ImagesDropped,
    SaveTurnState,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnRequest,
    TurnStarted,
    TurnState,
)
from letta_matrix.runtimes.speech import Said, Speech


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said to an ApprovalRequested."""

    allow: bool
    message: str = ""


Script = Callable[[TurnRequest], Iterable[TurnEvent | float]]
"""What an agent does with a message: events, and numbers that are pauses in seconds.

A generator gets the `Answer` as the value of the `yield` that asked for an approval.
"""


def echo(request: TurnRequest) -> Iterable[TurnEvent | float]:
    """The default script: says back what it was told, in one piece."""
    yield TextDelta("0", f"echo: {request.text}")
    yield TurnFinished(StopReason.END_TURN)


class MemoryRuntime(AgentRuntime):
    """An `AgentRuntime` whose agents live in this object.

    `asked` lists the requests that reached an agent, `answers` what was said to approvals, by
    their ids, `conversations` the agent of each; `available` False makes every call raise
    RuntimeUnavailable. A turn can be followed again as long as the object lives.
    """

    def __init__(
        self,
        name: str = "memory",
        agents: int = 0,
        script: Script = echo,
        capabilities: Capabilities | None = None,
    ) -> None:
        self.name = name
        self._capabilities = capabilities or Capabilities()
        self._numbers = itertools.count(1)
        self._agents: dict[str, AgentInfo] = {}
        self._cancelled: set[str] = set()
        self._pending: set[str] = set()
        self._known: set[tuple[str, str]] = set()
        self._news: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._speeches: defaultdict[str, list[Speech]] = defaultdict(list)
        self._tools: dict[str, ToolHandler] = {}
        self.counters = Counter()
        self.script = script
        self.available = True
        self.models = ["memory/small", "memory/large"]
        self.asked: list[TurnRequest] = []
        self.answers: dict[str, Answer] = {}
        self.conversations: dict[str, str] = {}
        for number in range(1, agents + 1):
            self.add(AgentInfo(f"agent-{number:08d}-0000", f"Agent {number}"))

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def add(self, agent: AgentInfo) -> None:
        self._agents[agent.agent_id] = agent

    def remove(self, agent_id: str) -> None:
        del self._agents[agent_id]

    def say(self, agent_id: str, text: str, conversation_id: str = "") -> Speech:
        """Let an agent say something by itself."""
        number = next(self._numbers)
        speech = Speech(f"speech-{number}", conversation_id, text)
        self._speeches[agent_id].append(speech)
        self._ran(agent_id)
        return speech

    async def call_tool(
        self,
        agent_id: str,
        conversation_id: str,
        name: str,
        arguments: Mapping[str, object],
        call_id: str = "",
    ) -> ToolResult:
        """Let an agent call an offered tool; raises KeyError for one that nobody offered."""
        call_id = call_id or f"call-{next(self._numbers)}"
        return await self._tools[name](
            ToolCall(agent_id, conversation_id, call_id, name, arguments, request_id=call_id)
        )

    def offer_tools(self, tools: Sequence[ToolSpec], handler: ToolHandler) -> None:
        self._tools |= dict.fromkeys((tool.name for tool in tools), handler)

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
        self.add(replace(self._agent(agent_id), name=name))

    async def delete_agent(self, agent_id: str) -> None:
        self._check()
        self._agents.pop(agent_id, None)

    async def list_models(self) -> list[str]:
        self._check()
        return list(self.models)

    async def set_model(self, agent_id: str, model: str) -> None:
        agent = self._agent(agent_id)
        if model not in self.models:
            raise RuntimeRefused(f"there is no model {model}")
        self.add(replace(agent, model=model))

    async def create_conversation(self, agent_id: str, title: str) -> str:
        self._check()
        single = not self._capabilities.conversations
        conversation_id = f"conversation-{agent_id if single else next(self._numbers)}"
        self.conversations[conversation_id] = agent_id
        return conversation_id

    async def run_turn(
        self, request: TurnRequest, state: TurnState | None, save: SaveTurnState
    ) -> AsyncGenerator[TurnEvent]:
        self._agent(request.agent_id)
        # One message may be for several agents.
        key = (request.agent_id, request.message_id)
        known = key in self._known
        if state is not None and not known:
            raise TurnLost("the agent's memory went with its process", tools_started=False)
        await save({"message_id": request.message_id})
        if not known:
            self.asked.append(request)
            self._known.add(key)
        self._cancelled.discard(request.conversation_id)
        yield TurnStarted(run_id=f"run-{request.message_id}")
        if request.images and not self._capabilities.images:
            yield ImagesDropped("the in-memory agent cannot see")
        async for event in self._perform(request):
            yield event
        self._ran(request.agent_id)

    async def cancel_turn(self, agent_id: str, conversation_id: str) -> None:
        self._check()
        self._cancelled.add(conversation_id)
        self._news[conversation_id].set()

    async def answer_approval(
        self, request: TurnRequest, approval_id: str, *, allow: bool, message: str = ""
    ) -> None:
        self._check()
        if approval_id not in self._pending:
            raise RuntimeRefused(f"the approval {approval_id} is no longer pending")
        self._pending.remove(approval_id)
        self.answers[approval_id] = Answer(allow, message)
        self._news[request.conversation_id].set()

    async def said_since(self, agent_id: str, cursor: str | None) -> Said:
        self._agent(agent_id)
        speeches = self._speeches[agent_id]
        told = len(speeches) if cursor is None else int(cursor or 0)
        return Said(tuple(speeches[told:]), str(len(speeches)))

    async def _perform(self, request: TurnRequest) -> AsyncGenerator[TurnEvent]:
        """Play the script from its beginning; approvals answered before are not asked again."""
        steps = iter(self.script(request))
        step = next(steps, None)
        while step is not None:
            answer = None
            if request.conversation_id in self._cancelled:
                self._cancelled.discard(request.conversation_id)
                yield TurnFinished(StopReason.CANCELLED)
                return
            if isinstance(step, float | int):
                await self._happens(request.conversation_id, within=step)
                self._check()
            elif not isinstance(step, ApprovalRequested):
                yield step
            elif step.approval_id not in self.answers:
                self._pending.add(step.approval_id)
                yield step
                answer = await self._answer(request.conversation_id, step.approval_id)
            else:
                answer = self.answers[step.approval_id]
            step = _next(steps, answer)

    async def _answer(self, conversation_id: str, approval_id: str) -> Answer | None:
        """The answer to an approval, None when the turn was cancelled instead."""
        while approval_id not in self.answers:
            await self._happens(conversation_id)
            if conversation_id in self._cancelled:
                self._pending.discard(approval_id)
                return None
        return self.answers[approval_id]

    async def _happens(self, conversation_id: str, within: float | None = None) -> None:
        """Wait until the turn is cancelled or an approval is answered."""
        news = self._news[conversation_id]
        news.clear()
        if conversation_id in self._cancelled:
            return
        try:
            async with asyncio.timeout(within):
                await news.wait()
        except TimeoutError:
            return

    def _ran(self, agent_id: str) -> None:
        if agent := self._agents.get(agent_id):
            self.add(replace(agent, last_run=str(next(self._numbers))))

    def _agent(self, agent_id: str) -> AgentInfo:
        self._check()
        agent = self._agents.get(agent_id)
        if agent is None:
            raise AgentGone(f"there is no agent {agent_id}")
        return agent

    def _check(self) -> None:
        if not self.available:
            raise RuntimeUnavailable("the in-memory runtime is switched off")


def _next(steps: Iterable[TurnEvent | float], answer: Answer | None) -> TurnEvent | float | None:
    if isinstance(steps, Generator):
        try:
            return steps.send(answer)
        except StopIteration:
            return None
    return next(iter(steps), None)
