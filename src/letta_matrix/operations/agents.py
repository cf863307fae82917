"""Agents at their runtimes, and who comes into their rooms: what operators do with them."""

from collections.abc import Mapping
from typing import Annotated, Literal

from mautrix.errors import MatrixRequestError
from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.identifiers import is_ours
from letta_matrix.common.parts import part
from letta_matrix.conversations import admission
from letta_matrix.conversations.admission import Admitted
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.given import Archive, Sync
from letta_matrix.operations.models import check_models, chosen
from letta_matrix.operations.operation import is_admin, operation
from letta_matrix.operations.toolbox.agent_tools import AGENT
from letta_matrix.operations.toolbox.finding import find_agent
from letta_matrix.operations.toolbox.tool import (
    Caller,
    Line,
    Params,
    Result,
    UserRef,
    WriteParams,
)
from letta_matrix.operations.typed import Argument, Kind, Typed
from letta_matrix.runtimes.faults import RuntimeFault, RuntimeUnavailable
from letta_matrix.runtimes.protocol import AgentInfo, AgentRuntime
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus

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


class RemoveAgent(OfAgent):
    confirm: str = Field(max_length=300, description="the agent's name, exactly")


class AgentChange(OfAgent):
    name: AgentName


class SetModel(OfAgent):
    model: str = Field(min_length=1, max_length=200, description="as the runtime names it")


class Guest(OfAgent):
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


class Admission(TypedDict):
    agent_id: str
    room_id: str
    user_id: str
    membership: Annotated[
        Literal["invite", "join"], Field(description="`join` for who was in already")
    ]
    outcome: Annotated[str, Field(description="`invited`, or why that was not needed")]


class Archived(TypedDict):
    agents: list[AgentMeant]


class AgentSync(TypedDict):
    agents: Annotated[int, Field(description="active ones, of all runtimes")]
    troubles: Annotated[
        dict[str, str],
        Field(description='why a runtime could not be listed, "" where it could, by its name'),
    ]


_RENAME = Typed(
    "rename",
    "renames an agent, given by id, user id or name (with spaces: in quotes).",
    (
        Argument("AGENT", required=True, field="agent_id"),
        Argument("NAME", Kind.TEXT, required=True),
    ),
    says="The agent is called {name} now.",
    after="create",
)


def _archived(done: Archived) -> str:
    if not done["agents"]:
        return "No removed agent's room stands in the space."
    names = ", ".join(
        code(one["name"].strip() or one["agent_id"], limit=80) for one in done["agents"]
    )
    return f"Out of the space: {names}. Who is in a room stays there, and can read it."


_ARCHIVE = Typed(
    "archive",
    "takes the room of a removed agent out of the space, or those of all.",
    (Argument("AGENT", Kind.TEXT, field="agent_id"),),
    says=_archived,
)


@part
class AgentOperations:
    """What is done with agents at their runtimes, and with their rooms."""

    _bot_user_id: str
    _directory: AgentDirectory
    _runtimes: Mapping[str, AgentRuntime]
    _admission: admission.Admission
    _sync: Sync
    _archive: Archive

    @operation("agents.create", Scope.ADMIN, AgentMeant, mcp=True)
    async def create_agent(self, caller: Caller, params: CreateAgent) -> Result:
        """Create an agent at a runtime."""
        runtime = self._runtime_for(params.runtime)
        listing = await runtime.list_agents()
        before: list[str] | None = caller.noted(_BEFORE)
        made = None if before is None else _made_since(before, listing, params.name)
        if made is None:
            before = [info.agent_id for info in listing]
            await caller.note(_BEFORE, before)
            made = await _made_now(runtime, params, before)
        await self._sync()
        return _told(made.agent_id, made.name, runtime.name)

    @operation(
        "agents.rename",
        Scope.ADMIN,
        AgentMeant,
        rest="PATCH /agents/{agent_id}",
        shows="agents.get",
        mcp=True,
        typed=_RENAME,
    )
    async def rename_agent(self, caller: Caller, params: AgentChange) -> Result:
        """Give an agent another name, at its runtime and on Matrix."""
        agent = await self._meant(caller, params.agent_id)
        await self._manageable(agent.runtime).rename_agent(agent.agent_id, params.name)
        await self._sync()
        return _told(agent.agent_id, params.name, agent.runtime)

    @operation(
        "agents.set_model", Scope.ADMIN, ModelSet, rest="POST /agents/{agent_id}/model", mcp=True
    )
    async def set_agent_model(self, caller: Caller, params: SetModel) -> Result:
        """Let an agent think with another model from now on."""
        agent = await self._meant(caller, params.agent_id)
        runtime = self._runtime(agent.runtime)
        check_models(runtime.name, runtime.capabilities)
        model = chosen(params.model, await runtime.list_models())
        await runtime.set_model(agent.agent_id, model)
        return {"agent_id": agent.agent_id, "model": model}

    @operation(
        "agents.remove",
        Scope.ADMIN,
        AgentMeant,
        rest="DELETE /agents/{agent_id}",
        status=204,
        destructive=True,
    )
    async def remove_agent(self, caller: Caller, params: RemoveAgent) -> Result:
        """Delete an agent from its runtime with all it remembers, for good.

        Its room stays. The bridge calls it removed once it is missing in its runtime's listings for
        as long as `agents.removal_grace` says.
        """
        agent = await self._meant(caller, params.agent_id)
        # People in rooms are asked before.
        if caller.place is None and params.confirm != agent.name:
            text = f"{agent.agent_id} is called {agent.name!r}: repeat that as `confirm`."
            raise ToolError(text, Fault.CONFLICT)
        await self._manageable(agent.runtime).delete_agent(agent.agent_id)
        await self._sync()
        return _told(agent.agent_id, agent.name, agent.runtime)

    @operation(
        "agents.invite", Scope.ADMIN, Admission, people=True, rest="POST /agents/{agent_id}/invite"
    )
    async def invite_to_agent(self, caller: Caller, params: Guest) -> Result:
        """Invite a person into an agent's own room, also one who had left it."""
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
            "membership": "join" if outcome is Admitted.INSIDE else "invite",
        }

    @operation("agents.archive", Scope.ADMIN, Archived, rest="POST /agents/archive", typed=_ARCHIVE)
    async def archive_agents(self, _: Caller, params: ArchiveAgents) -> Result:
        """Take removed agents' rooms out of the space."""
        every = self._directory.all()
        gone = [one for one in every if one.status is AgentStatus.REMOVED and one.room_id]
        if params.agent_id:
            meant = [_removed(params.agent_id, gone, self._directory.active())]
        else:
            meant = [agent for agent in gone if "space" in agent.applied]
        for agent in meant:
            await self._archive(agent)
        return {"agents": [_told(one.agent_id, one.name, one.runtime) for one in meant]}

    @operation(
        "agents.sync", Scope.ADMIN, AgentSync, read_only=True, rest="POST /agents/sync", mcp=True
    )
    async def sync_agents(self, _caller: Caller, _params: Params) -> Result:
        """List the agents of every runtime now, without waiting for the next regular listing."""
        troubles = await self._sync()
        return {"agents": len(self._directory.active()), "troubles": troubles}

    async def _meant(self, caller: Caller, ref: str) -> Agent:
        """The agent that is meant, which stays the same one through a crash and its own renaming.
        By its id it may be one that was removed."""
        agent = self._directory.get(caller.noted(_AGENT) or ref)
        if agent is None:
            agent = find_agent(ref, caller.agents())
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
