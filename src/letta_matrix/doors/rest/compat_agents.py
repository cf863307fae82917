"""What the original Letta-Matrix integration tells of agents and their rooms, with its fields."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Path

from letta_matrix.access.principal import Principal, Scope
from letta_matrix.doors.rest.calling import do
from letta_matrix.doors.rest.compat_door import Admit, compatible_router
from letta_matrix.doors.rest.compat_models import (
    CompatAgentRoom,
    CompatMapping,
    CompatMappings,
    CompatNewAgent,
    CompatSynced,
)
from letta_matrix.doors.rest.problems import Problem, may
from letta_matrix.doors.rest.security import Api, needs
from letta_matrix.doors.rest.services import Services
from letta_matrix.operations.agent_lists import is_shown
from letta_matrix.operations.records import Agent, AgentStatus

router = compatible_router()


@router.post("/webhook/new-agent", responses=may("not-found"), openapi_extra=needs(Scope.ADMIN))
async def new_agent(api: Api, admit: Admit, told: CompatNewAgent) -> CompatSynced:
    """List every runtime's agents now, because there is a new one."""
    holder = await admit(Scope.ADMIN)
    listed = await do(api, holder, "agents.sync", {})
    away = sorted(name for name, trouble in listed["troubles"].items() if trouble)
    if _agent(api, told.agent_id) is None:
        if away:
            raise Problem("unavailable", f"These runtimes cannot be listed: {', '.join(away)}.")
        raise Problem("not-found", "No runtime has an agent with this `agent_id`.")
    return CompatSynced(
        success=True,
        message=f"Triggered sync for new agent: {told.agent_id}",
        timestamp=datetime.now(UTC).isoformat(),
    )


@router.get("/agents/mappings", openapi_extra=needs(Scope.AGENTS))
async def mappings(api: Api, admit: Admit) -> CompatMappings:
    """List the agents with their users and rooms, by agent id."""
    holder = await admit(Scope.AGENTS)
    found = [agent for agent in api.directory.active() if is_shown(agent, holder)]
    return CompatMappings(
        success=True,
        message=f"Retrieved {len(found)} agent mappings",
        mappings={agent.agent_id: _mapping(agent, holder) for agent in found},
    )


@router.get(
    "/agents/{agent_id}/room", responses=may("not-found"), openapi_extra=needs(Scope.AGENTS)
)
async def agent_room(
    api: Api, admit: Admit, agent_id: Annotated[str, Path(max_length=255, examples=["agent-1"])]
) -> CompatAgentRoom:
    """Get an agent's room."""
    holder = await admit(Scope.AGENTS)
    agent = _agent(api, agent_id)
    if agent is None or agent.room_id is None or not holder.may_act_in(agent.room_id):
        raise Problem("not-found", "No agent with this `agent_id` has a room for your token.")
    return CompatAgentRoom(
        success=True,
        agent_id=agent_id,
        agent_name=agent.name,
        room_id=agent.room_id,
        matrix_user_id=agent.user_id,
        room_created=True,
        invitation_status={},
    )


def _agent(api: Services, agent_id: str) -> Agent | None:
    agent = api.directory.get(agent_id)
    return agent if agent is not None and agent.status is AgentStatus.ACTIVE else None


def _mapping(agent: Agent, holder: Principal) -> CompatMapping:
    room_id = agent.room_id
    shown = room_id if room_id is not None and holder.may_act_in(room_id) else None
    return CompatMapping(
        agent_id=agent.agent_id,
        agent_name=agent.name,
        matrix_user_id=agent.user_id,
        room_id=shown,
        room_created=room_id is not None,
        created=room_id is not None,
    )
