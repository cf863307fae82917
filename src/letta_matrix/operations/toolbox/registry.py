"""All tools in one place: what they are, who may call them, and how a call is run."""

import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import field, replace
from functools import partial
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.access.rate_limit import RateLimit
from letta_matrix.common import clock
from letta_matrix.common.parts import part
from letta_matrix.common.tools import ToolCall, ToolHandler, ToolResult, ToolSpec
from letta_matrix.config import Config
from letta_matrix.matrix.event_bus import EventBus
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.operations.toolbox.asking import AskingPeople
from letta_matrix.operations.toolbox.catalogue import every_tool
from letta_matrix.operations.toolbox.house import House
from letta_matrix.operations.toolbox.ledger import Ledger, Mirror
from letta_matrix.operations.toolbox.membership import Entered, nobody_hears
from letta_matrix.operations.toolbox.notes import Notes
from letta_matrix.operations.toolbox.others import OTHERS, called_by, others_tool
from letta_matrix.operations.toolbox.outcome import NO_DATABASE, outcome_of
from letta_matrix.operations.toolbox.questions import Questions
from letta_matrix.operations.toolbox.results import bounded, compact
from letta_matrix.operations.toolbox.tool import (
    Caller,
    Params,
    Progress,
    Result,
    Tool,
    WriteParams,
    no_progress,
)
from letta_matrix.operations.toolbox.toolsets import Toolset, shown
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.audit import AuditEntry, AuditStore, fingerprint
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Turn, TurnStatus, TurnStore

log = structlog.get_logger()


@part
class Toolbox:
    """Runs calls of tools. Whoever calls acts as one Matrix user and as nobody else.

    `questions` must see every event that people send: what answers an open question is no
    prompt. `event_bus` must be told of every event that is stored. `operations` are offered by
    doors of their own, `further` are tools beside those of this package. `on_entered` hears of who
    of us comes into a room by a tool, `mirror` of calls that ended. `is_portal` is as in House.
    """

    _config: Config
    _homeserver: Homeserver
    _directory: AgentDirectory
    _rooms: Rooms
    _conversations: ConversationStore
    _turns: TurnStore
    _outbox: Outbox
    _audit: AuditStore
    _operations: Iterable[Tool[Any]] = ()
    _further: Iterable[Tool[Any]] = ()
    event_bus: EventBus = field(default_factory=EventBus)
    _on_entered: Entered = nobody_hears
    _mirror: Mirror = lambda _: None
    _is_portal: Callable[[str], bool] = lambda _: False

    def __post_init__(self) -> None:
        told = self.event_bus, self._on_entered, self._is_portal
        stores = self._directory, self._rooms, self._turns, self._outbox
        self._house = House(self._config, self._homeserver, *stores, *told)
        self._limit = RateLimit(self._config.conversations.tool_calls_per_minute)
        self._waiting: Counter[tuple[str, str]] = Counter()
        self.membership = self._house.membership
        self.questions = Questions(self._config)
        self.ledger = Ledger(self._audit, self._mirror)
        self._asking = AskingPeople(self.questions)
        more = {one.name: one for one in self._further}
        self.tools: Mapping[str, Tool[Any]] = every_tool(self._asking) | more
        self.operations = {one.name: one for one in self._operations}
        self.others: Tool[Any] = others_tool(self.tools_for)

    def tools_for(self, principal: Principal) -> list[Tool[Any]]:
        """The tools that somebody may call."""
        return [tool for tool in self.tools.values() if _permits(principal, tool)]

    def shown_to(self, principal: Principal, toolset: Toolset) -> list[Tool[Any]]:
        """What somebody is shown of them; where that is not all, with one that calls the rest."""
        permitted = self.tools_for(principal)
        tools = shown(permitted, toolset)
        return tools if len(tools) == len(permitted) else [*tools, self.others]

    def specs(self) -> list[ToolSpec]:
        """The tools as a runtime offers them to its agents."""
        toolset = Toolset(self._config.conversations.toolset)
        tools = self.shown_to(self._agents_principal(""), toolset)
        return [ToolSpec(tool.name, tool.description, tool.offered) for tool in tools]

    def waits(self, agent_id: str, conversation_id: str) -> bool:
        """Whether a call from a conversation waits for somebody's answer, which may take longer
        than a turn may be silent."""
        return self._waiting[agent_id, conversation_id] > 0

    async def ended(self, turn_id: str) -> None:
        """A turn is over, perhaps without the results of its calls."""
        await self._asking.ended(turn_id)

    async def close(self) -> None:
        """Finish the audit log, and close the questions that nobody waits for any more."""
        await self.ledger.close()
        await self._asking.close()
        await self._house.guest_posting.close()

    def handler(self, runtime: str) -> ToolHandler:
        """Runs the calls of the agents that live in a runtime, and of no others; what goes wrong
        is told to the agent. The same call, come again after a crash, writes nothing a second
        time."""
        return partial(self._handle, runtime)

    async def call(
        self,
        principal: Principal,
        name: str,
        arguments: Mapping[str, object],
        *,
        door: str,
        progress: Progress = no_progress,
    ) -> Result:
        """Run a tool for whoever came through a door (`mcp`, `api`). Raises ToolError alone."""
        tool, params = self._parsed(principal, *called_by(name, arguments))
        caller = replace(self.caller(principal), progress=progress)
        return await self._run(caller, tool, params, door)

    async def do(
        self,
        principal: Principal,
        name: str,
        arguments: Mapping[str, object],
        *,
        door: str,
        transaction_id: str = "",
        turn: Turn | None = None,
    ) -> Result:
        """Carry out an operation for whoever came through a door (`api`, `chat`), once for a
        `transaction_id` where it changes something; `turn` is the one in which a person asks for
        it. Raises ToolError alone."""
        operation = self.operations[name]
        if turn is None or not operation.people:
            _check_permits(principal, operation)
        if transaction_id and issubclass(operation.params, WriteParams):
            arguments = {**arguments, "transaction_id": transaction_id}
        params = operation.parse(arguments)
        caller = self.caller(principal)
        if turn is not None:
            caller = replace(caller, turn_id=turn.turn_id, place=turn.place, speaker=turn.sender)
        return await self._run(caller, operation, params, door)

    def caller(self, principal: Principal) -> Caller:
        """Whoever came through a door, for what a door does itself. Raises ToolError."""
        return Caller(principal, self._intent(principal), uuid.uuid4().hex, self._house)

    async def _handle(self, runtime: str, call: ToolCall) -> ToolResult:
        with ExitStack() as about:
            try:
                name, arguments = called_by(call.name, call.arguments)
                call = replace(call, name=name, arguments=arguments)
                result = ToolResult(compact(await self._called(runtime, call, about)))
            except ToolError as error:
                result = ToolResult(bounded(str(error)), ok=False)
            log.info("an agent used a tool", agent=call.agent_id, tool=call.name, ok=result.ok)
        return result

    async def _called(self, runtime: str, call: ToolCall, about: ExitStack) -> Result:
        """What comes of a call; as long as `about` is open, what is logged names its turn."""
        agent = self._agent(runtime, call)
        wait = self._limit.take(agent.agent_id, clock.now())
        if wait > 0:
            raise ToolError(
                f"Too many tool calls. Try again in {math.ceil(wait)} seconds.",
                Fault.RATE_LIMITED,
                retry_after=wait,
            )
        principal = self._agents_principal(agent.agent_id)
        tool, params = self._parsed(principal, call.name, call.arguments)
        try:
            caller = await self._agents_caller(principal, call)
        except StoreUnavailable as error:
            raise ToolError(NO_DATABASE, Fault.UNAVAILABLE) from error
        if caller.turn_id:
            about.enter_context(bound_contextvars(turn=caller.turn_id))
        with self._counted(caller) if tool.seconds is None else nullcontext():
            return await self._run(caller, tool, params, "agent", call.request_id)

    def _parsed(
        self, principal: Principal, name: str, arguments: Mapping[str, object]
    ) -> tuple[Tool[Any], Params]:
        if name == OTHERS:
            return self.others, self.others.parse(arguments)
        tool = self.tools.get(name)
        if tool is None:
            known = ", ".join(one.name for one in self.tools_for(principal))
            raise ToolError(f"There is no tool {name!r}, only: {known}.", Fault.UNKNOWN_TOOL)
        _check_permits(principal, tool)
        return tool, tool.parse(arguments)

    async def _run(
        self, caller: Caller, tool: Tool[Any], params: Params, door: str, request_id: str = ""
    ) -> Result:
        if tool.read_only or tool is self.others:
            return await outcome_of(caller, tool, params)
        transaction_id = request_id or getattr(params, "transaction_id", "")
        arguments = params.model_dump(exclude={"transaction_id"})
        entry = AuditEntry(
            principal=caller.principal.key,
            user_id=caller.user_id,
            door=door,
            tool=tool.noted_as or tool.name,
            fingerprint=fingerprint(arguments),
            at=time.time(),
            transaction_id=transaction_id or None,
        )
        if transaction_id:
            caller = replace(caller, request_id=transaction_id)
        notes = Notes(self._audit)
        caller = replace(caller, door=door, notes=notes)

        async def work(again: bool) -> Result:
            return await outcome_of(replace(caller, again=again), tool, params)

        try:
            return await self.ledger.run(entry, work, waits=tool.seconds is None, notes=notes)
        except StoreUnavailable as error:
            raise ToolError(NO_DATABASE, Fault.UNAVAILABLE) from error

    def _agent(self, runtime: str, call: ToolCall) -> Agent:
        agent = self._directory.get(call.agent_id)
        if agent is not None and agent.runtime != runtime:
            log.warning("a runtime calls for another's agent", runtime=runtime, agent=call.agent_id)
            agent = None
        if agent is None or agent.status is not AgentStatus.ACTIVE:
            raise ToolError(
                "You have no account on Matrix yet; try again in a minute.", Fault.FORBIDDEN
            )
        return agent

    def _intent(self, principal: Principal) -> Intent:
        if principal.person:
            theirs = self._homeserver.with_token(principal.access_token)
            return theirs.acting_as(principal.person)
        if not principal.agent_id:
            return self._homeserver.acting_as(self._config.bot_user_id)
        agent = self._directory.get(principal.agent_id)
        if agent is None or agent.status is not AgentStatus.ACTIVE:
            raise ToolError(
                f"The agent {principal.agent_id}, as which you act, does not exist (any more).",
                Fault.FORBIDDEN,
            )
        return self._homeserver.acting_as(agent.user_id)

    def _agents_principal(self, agent_id: str) -> Principal:
        settings = self._config.conversations
        return Principal(
            f"agent:{agent_id}",
            agent_id,
            frozenset(Scope(scope) for scope in settings.tool_scopes),
            destructive=settings.destructive_tools,
        )

    @contextmanager
    def _counted(self, caller: Caller) -> Generator[None]:
        conversation = caller.agent_id, caller.conversation_id
        self._waiting[conversation] += 1
        try:
            yield
        finally:
            self._waiting[conversation] -= 1
            if not self._waiting[conversation]:
                del self._waiting[conversation]

    async def _agents_caller(self, principal: Principal, call: ToolCall) -> Caller:
        place = await self._conversations.place_of(principal.agent_id, call.conversation_id)
        turn = await self._turns.open_at(place) if place is not None else None
        intent, conversation_id = self._intent(principal), call.conversation_id
        caller = Caller(principal, intent, call.request_id, self._house, conversation_id, place)
        if turn is None:
            return caller
        caller = replace(caller, hops=turn.hops)
        if turn.status is TurnStatus.DONE:
            return caller
        return replace(caller, turn_id=turn.turn_id, speaker=turn.sender)


def _permits(principal: Principal, tool: Tool[Any]) -> bool:
    in_scope = tool.scope is None or tool.scope in principal.scopes
    return in_scope and (principal.destructive or not tool.destructive)


def _check_permits(principal: Principal, tool: Tool[Any]) -> None:
    if not _permits(principal, tool):
        needed = f"the scope {tool.scope!s}"
        needed += "" if principal.destructive or not tool.destructive else " and more trust"
        raise ToolError(f"{tool.name} is not for you: it needs {needed}.", Fault.FORBIDDEN)
