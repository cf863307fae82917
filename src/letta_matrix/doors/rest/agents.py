"""Agents of a path, and making one, which waits for its room."""

import asyncio
from typing import Annotated

from fastapi import Depends, Path
from pydantic import ConfigDict, Field

from letta_matrix.access.principal import Scope
from letta_matrix.common import clock
from letta_matrix.doors.rest.calling import IdempotencyKey, Json, do
from letta_matrix.doors.rest.examples import AGENT_ID
from letta_matrix.doors.rest.problems import Problem, may
from letta_matrix.doors.rest.routing import WriteBody, router_for
from letta_matrix.doors.rest.security import Admin, Api, Holder, needs
from letta_matrix.doors.rest.services import Services
from letta_matrix.operations.agent_lists import known_agent
from letta_matrix.operations.agents import CreateAgent
from letta_matrix.operations.records import Agent
from letta_matrix.operations.types import AgentDetails

router = router_for("agents")

_LOOK_EVERY = 0.05

AgentId = Annotated[str, Path(max_length=255, examples=[AGENT_ID])]


class NewAgent(WriteBody, CreateAgent):
    # FastAPI takes none whose making is put off.
    model_config = ConfigDict(defer_build=False)

    wait_seconds: float = Field(
        15.0, ge=0, le=120, description="how long to wait until it has its room"
    )


async def _agent_of(holder: Holder, api: Api, agent_id: AgentId) -> Agent:
    return known_agent(api.directory, holder, agent_id)


KnownAgent = Annotated[Agent, Depends(_agent_of)]
"""The agent of a path, removed ones too."""


async def _id_of(agent: KnownAgent) -> str:
    return agent.agent_id


IdOfPath = Annotated[str, Depends(_id_of)]


@router.post(
    "/agents",
    status_code=201,
    response_model=AgentDetails,
    responses=may("conflict", "not-found", "refused"),
    openapi_extra=needs(Scope.ADMIN),
)
async def create_agent(holder: Admin, api: Api, body: NewAgent, key: IdempotencyKey = "") -> Json:
    """Create an agent at its runtime and wait until it has its room.

    `room_id` is null if that takes longer than `wait_seconds`; it comes by itself.
    """
    wanted = body.model_dump(exclude={"wait_seconds"})
    made = {"agent_id": (await do(api, holder, "agents.create", wanted, key))["agent_id"]}
    await _roomed(api, made["agent_id"], body.wait_seconds)
    where = {"Location": f"/api/v1/agents/{made['agent_id']}"}
    return Json(await do(api, holder, "agents.get", made), 201, where)


async def _roomed(api: Services, agent_id: str, seconds: float) -> None:
    """Wait so many seconds for an agent's room. Raises Problem where there is no agent by then."""
    deadline = clock.now() + seconds
    agent = api.directory.get(agent_id)
    while (agent is None or agent.room_id is None) and clock.now() < deadline:
        await asyncio.sleep(_LOOK_EVERY)
        agent = api.directory.get(agent_id)
    if agent is None:
        raise Problem(
            "unavailable",
            f"The agent {agent_id} is created, but its runtime does not list it yet. It comes by "
            "itself.",
        )
