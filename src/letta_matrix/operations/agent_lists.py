"""Who the agents are, as operators and programs need to know it."""

import itertools
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.common.parts import part
from letta_matrix.operations.operation import operation
from letta_matrix.operations.pages import After, Limit, page_of
from letta_matrix.operations.toolbox.tool import Caller, Params, Result
from letta_matrix.operations.types import Agent as AgentTold
from letta_matrix.operations.types import AgentDetails, told
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.conversations import ConversationStore

_NEEDED = {Scope.AGENTS, Scope.ADMIN}


class ListedAgents(Params):
    name: str = Field("", max_length=255, description="a part of the name")
    runtime: str = Field("", max_length=255)
    status: Literal["active", "removed", "all"] = "active"
    limit: Limit = 50
    after: After = None


class OneAgent(Params):
    agent_id: str = Field(max_length=255)


class AgentPage(TypedDict):
    agents: list[AgentTold]
    total: Annotated[int, Field(description="of all pages")]
    next: Annotated[str | None, Field(description="`after` of the next page")]


@part
class AgentLists:
    """Tells of the agents; a token that is limited to rooms hears of those whose rooms they are."""

    _directory: AgentDirectory
    _conversations: ConversationStore
    _trouble_of: Callable[[str], str]

    @operation("agents.list", None, AgentPage, rest="GET /agents")
    async def list_agents(self, caller: Caller, params: ListedAgents) -> Result:
        """List the agents, the first known first; for a token that is limited to rooms those whose
        rooms they are. Needs the scope `agents` or `admin`."""
        _check(caller.principal)
        found = [
            agent
            for agent in self._directory.all()
            if is_shown(agent, caller.principal)
            and params.name.casefold() in agent.name.casefold()
            and params.runtime in ("", agent.runtime)
            and params.status in ("all", str(agent.status))
        ]
        behind = self._behind(found, params.after)
        shown, more = page_of(behind, params.limit, lambda agent: agent.agent_id)
        agents = [told(AgentTold, agent) for agent in shown]
        return {"agents": agents, "total": len(found), "next": more}

    @operation("agents.get", None, AgentDetails, rest="GET /agents/{agent_id}")
    async def get_agent(self, caller: Caller, params: OneAgent) -> AgentDetails:
        """An agent, with what an operator needs to know of it. Needs the scope `agents` or
        `admin`."""
        holder = caller.principal
        _check(holder)
        agent = known_agent(self._directory, holder, params.agent_id)
        had = await self._conversations.count_of(agent.agent_id)
        trouble = self._trouble_of(agent.agent_id) if Scope.ADMIN in holder.scopes else None
        return told(AgentDetails, agent, conversations=had, trouble=trouble)

    def _behind(self, found: list[Agent], after: str | None) -> list[Agent]:
        """Those behind the agent with an id; it need not be among them any more."""
        if not after:
            return found
        if self._directory.get(after) is None:
            raise ToolError("`after` is none that an earlier answer gave.")
        behind = itertools.dropwhile(lambda one: one.agent_id != after, self._directory.all())
        ids = {agent.agent_id for agent in itertools.islice(behind, 1, None)}
        return [agent for agent in found if agent.agent_id in ids]


def known_agent(directory: AgentDirectory, holder: Principal, agent_id: str) -> Agent:
    """The agent with an id, removed ones too, for who may know of it. Raises ToolError."""
    agent = directory.get(agent_id)
    if agent is not None and is_shown(agent, holder):
        return agent
    text = f"There is no agent {agent_id!r}."
    if holder.scopes & _NEEDED:
        # A name is easily taken for an id.
        shown = [one for one in directory.active() if is_shown(one, holder)]
        called = [one.agent_id for one in shown if one.name == agent_id]
        if len(called) == 1:
            text = f"This path takes the agent_id: {called[0]} is called {agent_id!r}."
    raise ToolError(text, Fault.NOT_FOUND)


def is_shown(agent: Agent, holder: Principal) -> bool:
    """Whether a token that may be limited to rooms is to know of an agent."""
    here = agent.room_id is not None and holder.may_act_in(agent.room_id)
    return holder.rooms is None or here or agent.agent_id == holder.agent_id


def _check(holder: Principal) -> None:
    if not holder.scopes & _NEEDED:
        raise ToolError("This needs a token with the scope `agents`.", Fault.FORBIDDEN)
