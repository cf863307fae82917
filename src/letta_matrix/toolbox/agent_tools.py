"""Tools that tell who the agents are."""

from typing import NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.principal import Scope
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.rooms import Rooms
from letta_matrix.toolbox.finding import find_agent
from letta_matrix.toolbox.results import UNTRUSTED, cut, fit_items
from letta_matrix.toolbox.tool import Caller, Line, Params, Result, tool

AGENT = "the agent's name, agent id or Matrix user id"

_MOST = 100
_NAME = 200
_LISTED, _DESCRIBED = 200, 3_000
"""Characters of a description, in a list and alone."""


class ListAgents(Params):
    after: int = Field(0, ge=0, description="`next` of an earlier answer")


class GetAgent(Params):
    agent: Line = Field(max_length=255, description=AGENT)


class AgentEntry(TypedDict):
    agent_id: str
    name: str
    user_id: str
    status: str  # active, paused in its room, or removed
    room_id: NotRequired[str]
    description: NotRequired[str]
    is_you: NotRequired[bool]


class AgentsResult(TypedDict):
    untrusted: str
    agents: list[AgentEntry]
    next: NotRequired[int]
    note: NotRequired[str]


class AgentResult(AgentEntry):
    untrusted: str


class AgentTools:
    """Tells of the agents in the directory, in the order of their names.

    A token that is limited to rooms hears of those alone whose rooms they are, and of its own.
    """

    def __init__(self, directory: AgentDirectory, rooms: Rooms) -> None:
        self._directory = directory
        self._rooms = rooms

    @tool("list_agents", "List agents", Scope.AGENTS, AgentsResult, read_only=True, idempotent=True)
    async def list_agents(self, caller: Caller, params: ListAgents) -> Result:
        """List the agents you can message: names, ids, rooms, what they are for."""
        known = sorted(known_to(caller, self._directory), key=lambda one: (one.name, one.agent_id))
        shown = known[params.after : params.after + _MOST]
        agents = [self._entry(caller, agent, _LISTED) for agent in shown]
        return fit_items(UNTRUSTED, "agents", agents, params.after, len(known))

    @tool("get_agent", "Get an agent", Scope.AGENTS, AgentResult, read_only=True, idempotent=True)
    async def get_agent(self, caller: Caller, params: GetAgent) -> Result:
        """Tell of one agent: its ids, its own room, what it is for."""
        agent = find_agent(params.agent, known_to(caller, self._directory))
        return {**UNTRUSTED, **self._entry(caller, agent, _DESCRIBED)}

    def _entry(self, caller: Caller, agent: Agent, length: int) -> AgentEntry:
        entry: AgentEntry = {
            "agent_id": agent.agent_id,
            "name": cut(agent.name, _NAME),
            "user_id": agent.user_id,
            "status": self._status(agent),
        }
        if agent.room_id is not None:
            entry["room_id"] = agent.room_id
        if agent.description:
            entry["description"] = cut(agent.description, length)
        if agent.agent_id == caller.agent_id:
            entry["is_you"] = True
        return entry

    def _status(self, agent: Agent) -> str:
        room_id = agent.room_id or ""
        is_paused = self._rooms.settings(agent.agent_id, room_id).paused
        return "paused" if is_paused else str(agent.status)


def known_to(caller: Caller, directory: AgentDirectory) -> list[Agent]:
    """The active agents that a caller may know of."""
    return [
        agent
        for agent in directory.active()
        if agent.agent_id == caller.agent_id or caller.principal.may_act_in(agent.room_id or "")
    ]
