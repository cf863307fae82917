"""All tools in one place: what they are, and how a call of an agent is run."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.config import Config
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.runtimes.protocol import ToolCall, ToolHandler, ToolResult, ToolSpec
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import TurnStatus, TurnStore
from letta_matrix.toolbox.arguments import parse
from letta_matrix.toolbox.asking import Asking
from letta_matrix.toolbox.files import file_tools
from letta_matrix.toolbox.messaging import Messaging
from letta_matrix.toolbox.questions import Questions
from letta_matrix.toolbox.rate_limit import RateLimit
from letta_matrix.toolbox.reading import Reading
from letta_matrix.toolbox.results import compact, cut
from letta_matrix.toolbox.tool import Caller, Tool, ToolError
from letta_matrix.toolbox.visits import Visits
from letta_matrix.toolbox.writing import writing_tools

log = structlog.get_logger()

_UNCERTAIN = (
    "It took too long. It may have happened or not: look with matrix_read_room before you try "
    "again."
)
_SLOW = "It took too long. Try again in a minute."
_AWAY = "The homeserver does not answer now. Try again in a minute."
_NO_DATABASE = "The bridge's database does not answer now. Try again in a minute."
_FAULT = "The tool failed, by a fault of the bridge; its log has the reason."


class Toolbox:
    """Runs calls of tools. An agent acts as itself and as nobody else.

    `questions` must see every event that people send: what answers an open question is no
    prompt.
    """

    def __init__(
        self,
        config: Config,
        homeserver: Homeserver,
        directory: AgentDirectory,
        rooms: Rooms,
        conversations: ConversationStore,
        turns: TurnStore,
        outbox: Outbox,
    ) -> None:
        self._homeserver = homeserver
        self._directory = directory
        self._conversations = conversations
        self._turns = turns
        self._limit = RateLimit(config.conversations.tool_calls_per_minute)
        self._waiting: Counter[tuple[str, str]] = Counter()
        self._visits = Visits(directory, rooms, turns)
        self.questions = Questions(config)
        self._asking = Asking(directory, self.questions)
        tools = [
            *writing_tools(),
            *file_tools(),
            *Reading(directory).tools(),
            *Messaging(config, directory, rooms, turns, outbox, self._visits).tools(),
            *self._asking.tools(),
        ]
        self.tools: Mapping[str, Tool[Any]] = {tool.name: tool for tool in tools}

    def specs(self) -> list[ToolSpec]:
        """The tools as a runtime offers them."""
        return [
            ToolSpec(tool.name, tool.description, tool.parameters()) for tool in self.tools.values()
        ]

    def waits(self, agent_id: str, conversation_id: str) -> bool:
        """Whether a call from a conversation waits for somebody's answer, which may take longer
        than a turn may be silent."""
        return self._waiting[agent_id, conversation_id] > 0

    async def ended(self, turn_id: str) -> None:
        """A turn is over, perhaps without the results of its calls."""
        await self._asking.ended(turn_id)

    def handler(self, runtime: str) -> ToolHandler:
        """Runs the calls of the agents that live in a runtime, and of no others; what goes wrong
        is told to the agent. The same call, come again after a crash, writes nothing a second
        time."""
        return partial(self._call, runtime)

    async def _call(self, runtime: str, call: ToolCall) -> ToolResult:
        try:
            result = ToolResult(await self._run(self._agent(runtime, call), call))
        except ToolError as error:
            result = ToolResult(_bounded(str(error)), ok=False)
        except HomeserverUnavailable:
            result = ToolResult(_AWAY, ok=False)
        except StoreUnavailable:
            result = ToolResult(_NO_DATABASE, ok=False)
        except MatrixRequestError as error:
            result = ToolResult(_bounded(_sentence(refusal(error))), ok=False)
        except Exception as error:
            log.error("a tool failed", agent=call.agent_id, tool=call.name, exc_info=error)
            result = ToolResult(_FAULT, ok=False)
        log.info("an agent used a tool", agent=call.agent_id, tool=call.name, ok=result.ok)
        return result

    def _agent(self, runtime: str, call: ToolCall) -> Agent:
        agent = self._directory.get(call.agent_id)
        if agent is not None and agent.runtime != runtime:
            log.warning("a runtime calls for another's agent", runtime=runtime, agent=call.agent_id)
            agent = None
        if agent is None or agent.status is not AgentStatus.ACTIVE:
            raise ToolError("You have no account on Matrix yet; try again in a minute.")
        return agent

    async def _run(self, agent: Agent, call: ToolCall) -> str:
        wait = self._limit.take(agent.agent_id, time.monotonic())
        if wait > 0:
            raise ToolError(f"Too many tool calls. Try again in {math.ceil(wait)} seconds.")
        tool = self.tools.get(call.name)
        if tool is None:
            raise ToolError(f"There is no tool {call.name!r}, only: {', '.join(self.tools)}.")
        params = parse(tool, call.arguments)
        caller = await self._caller(agent, call)
        waits = self._counted(caller) if tool.seconds is None else nullcontext()
        try:
            with waits:
                async with asyncio.timeout(tool.seconds):
                    return compact(await tool.run(caller, params))
        except TimeoutError as error:
            raise ToolError(_SLOW if tool.read_only else _UNCERTAIN) from error

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

    async def _caller(self, agent: Agent, call: ToolCall) -> Caller:
        place = await self._conversations.place_of(agent.agent_id, call.conversation_id)
        turn = await self._turns.open_at(place) if place is not None else None
        intent = Intent(self._homeserver, agent.user_id)
        refuses, conversation_id = self._visits.refuses, call.conversation_id
        caller = Caller(agent.agent_id, intent, call.request_id, refuses, conversation_id, place)
        if turn is None:
            return caller
        caller = replace(caller, hops=turn.hops)
        if turn.status is TurnStatus.DONE:
            return caller
        return replace(caller, turn_id=turn.turn_id, speaker=turn.sender)


def _bounded(text: str) -> str:
    return cut(text, 2_000).encode("utf-8", "replace").decode()


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
