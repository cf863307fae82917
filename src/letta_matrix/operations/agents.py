"""Agents at their runtimes, and who comes into their rooms: what operators do with them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

from mautrix.errors import MatrixRequestError
from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.conversations.admission import Admission, Admitted
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.identifiers import is_ours
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.models import check_models, chosen
from letta_matrix.operations.operation import is_admin, operation
from letta_matrix.runtimes.faults import RuntimeFault, RuntimeUnavailable
from letta_matrix.runtimes.protocol import AgentInfo, AgentRuntime
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.toolbox.agent_tools import AGENT, known_to
from letta_matrix.toolbox.finding import find_agent
from letta_matrix.toolbox.tool import (
    Caller,
    Line,
    Params,
    Result,
    UserRef,
    WriteParams,
)

_AGENT, _BEFORE = "agent", "agents before"
"""What a call notes: the agent that it is about; the ids of those there were before it."""

_NOT_LET_IN = {
    Admitted.STRANGER: Fault.FORBIDDEN,
    Admitted.BANNED: Fault.CONFLICT,
    Admitted.NO_ROOM: Fault.CONFLICT,
}

AgentName = Annotated[Line, Field(max_length=100, description="as people see it")]


class CreateAgent(WriteParams):
    name: AgentName
    runtime: str = Field(
        "", max_length=200, description="where; not needed if only one lets agents be created"
    )
    model: str = Field("", max_length=200, description="as the runtime names it; default: its own")
    description: str = Field("", max_length=2_000)


class OfAgent(WriteParams):
    agent_id: Line = Field(max_length=255, description=AGENT)


class RenameAgent(OfAgent):
    name: AgentName


class SetModel(OfAgent):
    model: str = Field(min_length=1, max_length=200, description="as the runtime names it")


class InviteToAgent(OfAgent):
    user_id: UserRef = Field(description="Matrix user id of a person")


class ArchiveAgents(WriteParams):
    agent_id: str = Field("", max_length=255, description=f"{AGENT}; default: all removed ones")


class AgentMeant(TypedDict):
    agent_id: str
    name: str
    runtime: str


class ModelSet(TypedDict):
    agent_id: str
    model: str


class Invited(TypedDict):
    agent_id: str
    room_id: str | None
    user_id: str
    outcome: str  # a value of Admitted: invited, or why that was not needed


class Archived(TypedDict):
    agents: list[AgentMeant]


class Synced(TypedDict):
    agents: int  # active ones, of all runtimes
    troubles: dict[str, str]  # why a runtime could not be listed, "" where it could


class AgentOperations:
    """`sync` lists all runtimes now, and tells why one could not be listed, "" where it could, by
    its name; `archive` takes a removed agent's room out of the space."""

    def __init__(
        self,
        bot_user_id: str,
        directory: AgentDirectory,
        runtimes: Mapping[str, AgentRuntime],
        admission: Admission,
        sync: Callable[[], Awaitable[dict[str, str]]],
        archive: Callable[[Agent], Awaitable[None]],
    ) -> None:
        self._bot_user_id = bot_user_id
        self._directory = directory
        self._runtimes = runtimes
        self._admission = admission
        self._list_all = sync
        self._archive = archive

    @operation("agents.create", Scope.ADMIN, AgentMeant)
    async def _create(self, caller: Caller, params: CreateAgent) -> Result:
        """Create an agent at a runtime."""
        runtime = self._runtime_for(params.runtime)
        listing = await runtime.list_agents()
        before: list[str] | None = caller.noted(_BEFORE)
        made = None if before is None else _made_since(before, listing, params.name)
        if made is None:
            before = [info.agent_id for info in listing]
            await caller.note(_BEFORE, before)
            made = await _made_now(runtime, params, before)
        await self._list_all()
        return _told(made.agent_id, made.name, runtime.name)

    @operation("agents.rename", Scope.ADMIN, AgentMeant)
    async def _rename(self, caller: Caller, params: RenameAgent) -> Result:
        """Give an agent another name."""
        agent = await self._meant(caller, params.agent_id)
        await self._manageable(agent.runtime).rename_agent(agent.agent_id, params.name)
        await self._list_all()
        return _told(agent.agent_id, params.name, agent.runtime)

    @operation("agents.set_model", Scope.ADMIN, ModelSet)
    async def _switch(self, caller: Caller, params: SetModel) -> Result:
        """Let an agent think with another model from now on."""
        agent = await self._meant(caller, params.agent_id)
        runtime = self._runtime(agent.runtime)
        check_models(runtime)
        model = chosen(params.model, await runtime.list_models())
        await runtime.set_model(agent.agent_id, model)
        return {"agent_id": agent.agent_id, "model": model}

    @operation("agents.remove", Scope.ADMIN, AgentMeant, destructive=True)
    async def _remove(self, caller: Caller, params: OfAgent) -> Result:
        """Delete an agent with all it remembers, for good."""
        agent = await self._meant(caller, params.agent_id)
        await self._manageable(agent.runtime).delete_agent(agent.agent_id)
        await self._list_all()
        return _told(agent.agent_id, agent.name, agent.runtime)

    @operation("agents.invite", None, Invited)
    async def _invite(self, caller: Caller, params: InviteToAgent) -> Result:
        """Invite a person into an agent's own room; who is no admin, themselves alone."""
        admin = is_admin(caller)
        if not admin and params.user_id != caller.speaker:
            raise ToolError("Only an admin invites somebody else.", Fault.FORBIDDEN)
        if is_ours(params.user_id, self._bot_user_id):
            text = "That is one of us: agents are invited into rooms by people, or by `/rooms`."
            raise ToolError(text, Fault.CONFLICT)
        agent = await self._meant(caller, params.agent_id)
        try:
            outcome = await self._admission.admit(agent, params.user_id, by_admin=admin)
        except MatrixRequestError as error:
            text = f"{code(agent.name)} cannot invite: {code(refusal(error))}"
            raise ToolError(text, Fault.FORBIDDEN) from None
        if outcome in _NOT_LET_IN:
            text = f"{code(params.user_id)} cannot come in: {outcome.value}."
            raise ToolError(text, _NOT_LET_IN[outcome], detail=outcome.value)
        return {
            "agent_id": agent.agent_id,
            "room_id": agent.room_id,
            "user_id": params.user_id,
            "outcome": outcome.value,
        }

    @operation("agents.archive", Scope.ADMIN, Archived)
    async def _take_out(self, _: Caller, params: ArchiveAgents) -> Result:
        """Take removed agents' rooms out of the space."""
        every = self._directory.all()
        gone = [one for one in every if one.status is AgentStatus.REMOVED and one.room_id]
        if params.agent_id:
            there = [one for one in every if one.status is AgentStatus.ACTIVE]
            meant = [_removed(params.agent_id, gone, there)]
        else:
            meant = [agent for agent in gone if "space" in agent.applied]
        for agent in meant:
            await self._archive(agent)
        return {"agents": [_told(one.agent_id, one.name, one.runtime) for one in meant]}

    @operation("agents.sync", Scope.ADMIN, Synced, read_only=True)
    async def _sync(self, _caller: Caller, _params: Params) -> Result:
        """List the agents of every runtime now."""
        troubles = await self._list_all()
        active = sum(agent.status is AgentStatus.ACTIVE for agent in self._directory.all())
        return {"agents": active, "troubles": troubles}

    async def _meant(self, caller: Caller, ref: str) -> Agent:
        """The agent that is meant, which stays the same one through a crash and its own renaming.
        By its id it may be one that was removed."""
        agent = self._directory.get(caller.noted(_AGENT) or ref)
        if agent is None:
            agent = find_agent(ref, known_to(caller, self._directory))
            await caller.note(_AGENT, agent.agent_id)
        return agent

    def _runtime_for(self, name: str) -> AgentRuntime:
        """Where an agent is to be created."""
        if name:
            return self._manageable(name)
        able = [runtime for runtime in self._runtimes.values() if runtime.capabilities.manage]
        if not able:
            text = "No runtime lets agents be created: those made in one appear by themselves."
            raise ToolError(text, Fault.CONFLICT)
        if len(able) > 1:
            names = " or ".join(code(runtime.name) for runtime in able)
            raise ToolError(f"Say in which `runtime`: {names}.", Fault.CONFLICT)
        return able[0]

    def _runtime(self, name: str) -> AgentRuntime:
        runtime = self._runtimes.get(name)
        if runtime is None:
            known = ", ".join(map(code, self._runtimes)) or "none at all"
            raise ToolError(f"There is no runtime {code(name)}, only {known}.", Fault.NOT_FOUND)
        return runtime

    def _manageable(self, name: str) -> AgentRuntime:
        runtime = self._runtime(name)
        if not runtime.capabilities.manage:
            raise ToolError(
                f"The runtime {code(name)} does not let agents be created, renamed or removed from "
                "here: do that there, and the bridge follows.",
                Fault.CONFLICT,
            )
        return runtime


def _told(agent_id: str, name: str, runtime: str) -> AgentMeant:
    return {"agent_id": agent_id, "name": name, "runtime": runtime}


def _removed(ref: str, gone: list[Agent], there: list[Agent]) -> Agent:
    is_there = any(ref in (one.agent_id, one.user_id, one.name) for one in there)
    if is_there and not any(ref in (one.agent_id, one.user_id) for one in gone):
        text = f"{code(ref)} is not removed: `!remove` deletes an agent first."
        raise ToolError(text, Fault.CONFLICT)
    return find_agent(ref, gone)


async def _made_now(runtime: AgentRuntime, params: CreateAgent, before: list[str]) -> AgentInfo:
    """Raises RuntimeFault, ToolError."""
    try:
        return await runtime.create_agent(
            params.name, model=params.model, description=params.description
        )
    except RuntimeUnavailable as error:
        # Perhaps only its answer was lost.
        try:
            made = _made_since(before, await runtime.list_agents(), params.name)
        except RuntimeFault:
            raise ToolError(
                f"Whether {code(params.name)} was created cannot be known now "
                f"({code(str(error), limit=300)}): the list of agents shows it once "
                f"{code(runtime.name)} answers.",
                Fault.UNAVAILABLE,
            ) from None
        if made is None:
            raise
        return made


def _made_since(before: list[str], listing: list[AgentInfo], name: str) -> AgentInfo | None:
    return next((i for i in listing if i.name == name and i.agent_id not in before), None)
