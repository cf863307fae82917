"""Creating, renaming and removing agents at their runtimes, and letting people in to them."""

import asyncio
from typing import Any

from mautrix.errors import MatrixRequestError

from letta_matrix.api.changes import change
from letta_matrix.api.problems import Problem
from letta_matrix.api.services import Services
from letta_matrix.common import clock
from letta_matrix.conversations.admission import Admitted
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.identifiers import is_ours
from letta_matrix.runtimes.faults import RuntimeFault, RuntimeUnavailable
from letta_matrix.runtimes.protocol import AgentRuntime
from letta_matrix.store.agents import Agent
from letta_matrix.toolbox.faults import Fault, ToolError
from letta_matrix.toolbox.principal import Principal
from letta_matrix.toolbox.tool import Result

_LOOK_EVERY = 0.05


async def create(
    api: Services,
    holder: Principal,
    name: str,
    runtime_name: str,
    model: str,
    description: str,
    transaction_id: str,
) -> str:
    """Create an agent; its id. Raises Problem, ToolError."""
    runtime = _runtime_for(api, runtime_name)
    wanted = {
        "name": name,
        "runtime": runtime_name,
        "model": model,
        "description": description,
    }

    async def work(again: bool) -> Result:
        before = {info.agent_id: info.name for info in await runtime.list_agents()}
        if again and name in before.values():
            namesakes = [agent_id for agent_id, known in before.items() if known == name]
            raise ToolError(
                "Whether an earlier try has created it is not known, and there is an agent of this "
                f"name: {', '.join(namesakes[:10])}. If it is another one, try with a new "
                "`transaction_id`.",
                Fault.CONFLICT,
            )
        try:
            made = await runtime.create_agent(name, model=model, description=description)
        except RuntimeUnavailable as error:
            return {"agent_id": await _made_after_all(runtime, name, before, error)}
        return {"agent_id": made.agent_id}

    result = await change(api, holder, "agents.create", wanted, transaction_id, work)
    return str(result["agent_id"])


async def rename(
    api: Services, holder: Principal, agent: Agent, name: str, transaction_id: str
) -> None:
    """Give an agent another name. Raises Problem, ToolError."""
    runtime = _manageable(api, agent.runtime)

    async def work(_again: bool) -> Result:
        await runtime.rename_agent(agent.agent_id, name)
        return {}

    wanted = {"agent_id": agent.agent_id, "name": name}
    await change(api, holder, "agents.rename", wanted, transaction_id, work)


async def remove(api: Services, holder: Principal, agent: Agent, transaction_id: str) -> None:
    """Delete an agent with all it remembers. Raises Problem, ToolError."""
    runtime = _manageable(api, agent.runtime)

    async def work(_again: bool) -> Result:
        await runtime.delete_agent(agent.agent_id)
        return {}

    wanted = {"agent_id": agent.agent_id}
    await change(api, holder, "agents.remove", wanted, transaction_id, work)


async def invite(
    api: Services, holder: Principal, agent: Agent, user_id: str, transaction_id: str
) -> dict[str, Any]:
    """Invite a person into an agent's own room. Raises Problem, ToolError."""
    if is_ours(user_id, api.config.bot_user_id):
        raise Problem("conflict", "Agents and the bot are invited into rooms by /rooms/{room}.")

    async def work(_again: bool) -> Result:
        try:
            outcome = await api.admission.admit(agent, user_id, by_admin=True)
        except MatrixRequestError as error:
            raise ToolError(refusal(error), Fault.FORBIDDEN) from error
        if outcome is Admitted.BANNED:
            raise ToolError(f"{user_id} is banned from the room of {agent.name}.", Fault.CONFLICT)
        if outcome is Admitted.NO_ROOM:
            raise ToolError(f"{agent.name} has no room yet.", Fault.CONFLICT)
        membership = "join" if outcome is Admitted.INSIDE else "invite"
        return {"room_id": agent.room_id, "user_id": user_id, "membership": membership}

    wanted = {"agent_id": agent.agent_id, "user_id": user_id}
    result = await change(api, holder, "agents.invite", wanted, transaction_id, work)
    return {"agent_id": agent.agent_id, **result}


async def roomed(api: Services, agent_id: str, seconds: float) -> Agent:
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


def _runtime_for(api: Services, name: str) -> AgentRuntime:
    """Where an agent is to be created."""
    if name:
        return _manageable(api, name)
    able = [runtime for runtime in api.runtimes.values() if runtime.capabilities.manage]
    if not able:
        raise Problem(
            "conflict", "No runtime lets agents be created: those made in one appear by themselves."
        )
    if len(able) > 1:
        names = ", ".join(runtime.name for runtime in able)
        raise Problem("conflict", f"Say where with `runtime`: one of {names}.")
    return able[0]


def _manageable(api: Services, name: str) -> AgentRuntime:
    runtime = api.runtimes.get(name)
    if runtime is None:
        known = ", ".join(api.runtimes) or "none at all"
        raise Problem("not-found", f"There is no runtime {name!r}, only {known}.")
    if not runtime.capabilities.manage:
        raise Problem(
            "conflict",
            f"The runtime {name} does not let agents be created, renamed or removed from here: do "
            "that there, and the bridge follows.",
        )
    return runtime


async def _made_after_all(
    runtime: AgentRuntime, name: str, before: dict[str, str], error: RuntimeUnavailable
) -> str:
    """The agent whose making was only not confirmed. Raises RuntimeUnavailable, ToolError."""
    try:
        listing = await runtime.list_agents()
    except RuntimeFault:
        raise ToolError(
            f"Whether {name!r} was created cannot be known now ({error}): the list of agents shows "
            "it once the runtime answers.",
            Fault.UNAVAILABLE,
        ) from error
    for info in listing:
        if info.name == name and info.agent_id not in before:
            return info.agent_id
    raise error
