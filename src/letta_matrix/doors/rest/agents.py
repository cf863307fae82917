"""Agents: who there is, and making, renaming and removing them at their runtimes."""

import asyncio
import itertools
from typing import Annotated, Literal

from fastapi import Depends, Path, Query, Response
from pydantic import Field

from letta_matrix.access.principal import Principal, Scope
from letta_matrix.client import types
from letta_matrix.common import clock
from letta_matrix.conversations.admission import Admitted
from letta_matrix.doors.rest.calling import IdempotencyKey, do
from letta_matrix.doors.rest.examples import AGENT_ID
from letta_matrix.doors.rest.problems import Problem, may
from letta_matrix.doors.rest.routing import After, Answer, Limit, WriteBody, router_for, told
from letta_matrix.doors.rest.security import Admin, Api, Holder
from letta_matrix.doors.rest.services import Services
from letta_matrix.operations.agents import AgentName, CreateAgent
from letta_matrix.store.agents import Agent, AgentStatus
from letta_matrix.toolbox.tool import UserRef

router = router_for("agents")

_LOOK_EVERY = 0.05

AgentId = Annotated[str, Path(max_length=255, examples=[AGENT_ID])]


class AgentPage(Answer):
    agents: list[types.Agent]
    total: int = Field(description="of all pages")
    next: str | None = Field(description="`after` of the next page")


class AgentSync(Answer):
    agents: int = Field(description="active ones, of all runtimes")
    troubles: dict[str, str] = Field(
        description='why a runtime could not be listed, "" where it could, by its name'
    )


class NewAgent(WriteBody, CreateAgent):
    wait_seconds: float = Field(
        15.0, ge=0, le=120, description="how long to wait until it has its room"
    )


class AgentChange(WriteBody):
    name: AgentName


class Guest(WriteBody):
    user_id: UserRef = Field(description="Matrix user id of a person")


class Admission(Answer):
    agent_id: str
    room_id: str
    user_id: str
    membership: Literal["invite", "join"] = Field(description="`join` for who was in already")


async def agents_holder(holder: Holder) -> Principal:
    """Somebody who may know of agents."""
    if not holder.scopes & {Scope.AGENTS, Scope.ADMIN}:
        raise Problem("forbidden", "This needs a token with the scope `agents`.")
    return holder


AgentsHolder = Annotated[Principal, Depends(agents_holder)]


async def known_agent(holder: Holder, api: Api, agent_id: AgentId) -> Agent:
    """The agent of a path, removed ones too."""
    agent = api.directory.get(agent_id)
    if agent is None or not is_shown(agent, holder):
        raise Problem("not-found", _no_agent(api, holder, agent_id))
    return agent


KnownAgent = Annotated[Agent, Depends(known_agent)]


@router.get("/agents", responses=may("not-found"))
async def list_agents(
    holder: AgentsHolder,
    api: Api,
    name: Annotated[str, Query(max_length=255, description="a part of the name")] = "",
    runtime: Annotated[str, Query(max_length=255)] = "",
    status: Annotated[Literal["active", "removed", "all"], Query()] = "active",
    limit: Limit = 50,
    after: After = None,
) -> AgentPage:
    """List the agents, the first known first; for a token that is limited to rooms those whose
    rooms they are."""
    found = [
        agent
        for agent in api.directory.all()
        if is_shown(agent, holder)
        and name.casefold() in agent.name.casefold()
        and runtime in ("", agent.runtime)
        and status in ("all", str(agent.status))
    ]
    page = _after(api, found, after)[: limit + 1]
    more = page[limit - 1].agent_id if len(page) > limit else None
    shown = [told(types.Agent, agent) for agent in page[:limit]]
    return AgentPage(agents=shown, total=len(found), next=more)


@router.get("/agents/{agent_id}", responses=may("not-found"))
async def get_agent(holder: AgentsHolder, api: Api, agent: KnownAgent) -> types.AgentDetails:
    """An agent, with what an operator needs to know of it."""
    return await _details(api, holder, agent)


@router.post(
    "/agents",
    status_code=201,
    responses=may("conflict", "not-found", "refused"),
)
async def create_agent(
    holder: Admin, api: Api, body: NewAgent, response: Response, key: IdempotencyKey = ""
) -> types.AgentDetails:
    """Create an agent at its runtime and wait until it has its room.

    `room_id` is null if that takes longer than `wait_seconds`; it comes by itself.
    """
    wanted = body.model_dump(exclude={"wait_seconds"})
    agent_id = (await do(api, holder, "agents.create", wanted, key))["agent_id"]
    agent = await _roomed(api, agent_id, body.wait_seconds)
    response.headers["Location"] = f"/api/v1/agents/{agent_id}"
    return await _details(api, holder, agent)


@router.patch(
    "/agents/{agent_id}",
    responses=may("conflict", "not-found", "refused"),
)
async def rename_agent(
    holder: Admin, api: Api, agent: KnownAgent, body: AgentChange, key: IdempotencyKey = ""
) -> types.AgentDetails:
    """Give an agent another name, at its runtime and on Matrix."""
    await do(api, holder, "agents.rename", {**_id(agent), **body.model_dump()}, key)
    return await _details(api, holder, api.directory.get(agent.agent_id) or agent)


@router.delete(
    "/agents/{agent_id}",
    status_code=204,
    responses=may("conflict", "not-found", "refused"),
)
async def remove_agent(
    holder: Admin,
    api: Api,
    agent: KnownAgent,
    confirm: Annotated[str, Query(max_length=300, description="the agent's name, exactly")],
    key: IdempotencyKey = "",
) -> None:
    """Delete an agent from its runtime with all it remembers, for good.

    Its room stays. The bridge calls it removed once it is missing in its runtime's listings for
    as long as `agents.removal_grace` says.
    """
    if confirm != agent.name:
        raise Problem(
            "conflict", f"{agent.agent_id} is called {agent.name!r}: repeat that as `confirm`."
        )
    await do(api, holder, "agents.remove", _id(agent), key)


@router.post("/agents/{agent_id}/invite", responses=may("not-found", "conflict", "forbidden"))
async def invite_to_agent(
    holder: Admin, api: Api, agent: KnownAgent, body: Guest, key: IdempotencyKey = ""
) -> Admission:
    """Invite a person into an agent's own room, also one who had left it."""
    wanted = {**_id(agent), **body.model_dump()}
    done = dict(await do(api, holder, "agents.invite", wanted, key))
    inside = Admitted(done.pop("outcome")) is Admitted.INSIDE
    return Admission(**done, membership="join" if inside else "invite")


@router.post("/agents/sync")
async def sync_agents(holder: Admin, api: Api) -> AgentSync:
    """List the agents of every runtime now, without waiting for the next regular listing."""
    return AgentSync(**await do(api, holder, "agents.sync", {}))


async def _roomed(api: Services, agent_id: str, seconds: float) -> Agent:
    """An agent once it has its room, or as it is after so many seconds. Raises Problem."""
    deadline = clock.now() + seconds
    while True:
        agent = api.directory.get(agent_id)
        if agent is not None and agent.room_id is not None:
            return agent
        if clock.now() >= deadline:
            break
        await asyncio.sleep(_LOOK_EVERY)
    if agent is None:
        raise Problem(
            "unavailable",
            f"The agent {agent_id} is created, but its runtime does not list it yet. It comes by "
            "itself.",
        )
    return agent


def _id(agent: Agent) -> dict[str, object]:
    return {"agent_id": agent.agent_id}


def _after(api: Services, found: list[Agent], after: str | None) -> list[Agent]:
    """Those behind the agent with an id; it need not be among them any more."""
    if not after:
        return found
    if api.directory.get(after) is None:
        raise Problem("invalid-arguments", "`after` is none that an earlier answer gave.")
    behind = itertools.dropwhile(lambda agent: agent.agent_id != after, api.directory.all())
    ids = {agent.agent_id for agent in itertools.islice(behind, 1, None)}
    return [agent for agent in found if agent.agent_id in ids]


async def _details(api: Services, holder: Principal, agent: Agent) -> types.AgentDetails:
    had = await api.turns.conversations.count_of(agent.agent_id)
    trouble = api.trouble_of(agent.agent_id) if Scope.ADMIN in holder.scopes else None
    return told(types.AgentDetails, agent, conversations=had, trouble=trouble)


def _no_agent(api: Services, holder: Principal, agent_id: str) -> str:
    """Why there is none with an id; a name is easily taken for one."""
    if holder.scopes & {Scope.AGENTS, Scope.ADMIN}:
        called = [
            agent.agent_id
            for agent in api.directory.all()
            if (agent.name, agent.status) == (agent_id, AgentStatus.ACTIVE)
            and is_shown(agent, holder)
        ]
        if len(called) == 1:
            return f"This path takes the agent_id: {called[0]} is called {agent_id!r}."
    return f"There is no agent {agent_id!r}."


def is_shown(agent: Agent, holder: Principal) -> bool:
    """Whether a token that may be limited to rooms is to know of an agent."""
    here = agent.room_id is not None and holder.may_act_in(agent.room_id)
    return holder.rooms is None or here or agent.agent_id == holder.agent_id
