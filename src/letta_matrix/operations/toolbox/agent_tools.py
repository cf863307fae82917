"""Tools that tell who the agents are.

A token that is limited to rooms hears of those alone whose rooms they are, and of its own.
"""

from typing import NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.principal import Scope
from letta_matrix.operations.toolbox.arguments import After
from letta_matrix.operations.toolbox.finding import find_agent
from letta_matrix.operations.toolbox.results import (
    UNTRUSTED,
    Page,
    Untrusted,
    cut,
    filled,
    fit_items,
)
from letta_matrix.operations.toolbox.tool import Caller, Line, Params, Result, tool
from letta_matrix.store.agents import Agent

AGENT = "the agent's name, agent id or Matrix user id"

_MOST = 100
_NAME = 200
_LISTED, _DESCRIBED = 200, 3_000
"""Characters of a description, in a list and alone."""


class ListAgents(Params):
    after: After = 0


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


class AgentsResult(Page):
    agents: list[AgentEntry]


class AgentResult(AgentEntry, Untrusted):
    """An agent, told alone."""


@tool("list_agents", "List agents", Scope.AGENTS, AgentsResult, read_only=True, idempotent=True)
async def list_agents(caller: Caller, params: ListAgents) -> Result:
    """List the agents you can message: names, ids, rooms, what they are for."""
    known = sorted(caller.agents(), key=lambda one: (one.name, one.agent_id))
    shown = known[params.after : params.after + _MOST]
    agents = [_entry(caller, agent, _LISTED) for agent in shown]
    return fit_items(UNTRUSTED, "agents", agents, params.after, len(known))


@tool("get_agent", "Get an agent", Scope.AGENTS, AgentResult, read_only=True, idempotent=True)
async def get_agent(caller: Caller, params: GetAgent) -> Result:
    """Tell of one agent: its ids, its own room, what it is for."""
    agent = find_agent(params.agent, caller.agents())
    return {**UNTRUSTED, **_entry(caller, agent, _DESCRIBED)}


def _entry(caller: Caller, agent: Agent, length: int) -> dict[str, object]:
    settings = caller.house.rooms.settings(agent.agent_id, agent.room_id or "")
    return {
        "agent_id": agent.agent_id,
        "name": cut(agent.name, _NAME),
        "user_id": agent.user_id,
        "status": "paused" if settings.paused else str(agent.status),
        **filled(
            room_id=agent.room_id,
            description=cut(agent.description, length),
            is_you=agent.agent_id == caller.agent_id,
        ),
    }
