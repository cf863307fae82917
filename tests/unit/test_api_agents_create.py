"""Creating an agent when the runtime's answer, or our own process, is lost on the way."""

import pytest
from tests.stage import Stage

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.conversations.admission import Admission
from letta_matrix.operations.agents import AgentOperations
from letta_matrix.operations.toolbox.tool import tools_in
from letta_matrix.runtimes.faults import (
    AgentGone,
    CredentialsRefused,
    RuntimeFault,
    RuntimeRefused,
    RuntimeUnavailable,
)
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo, Capabilities
from letta_matrix.store.agents import Agent

ADMIN = Principal("token:a", "", frozenset(Scope))


class Forgetful(MemoryRuntime):
    """Makes an agent, and then loses its answer."""

    lost: RuntimeFault = RuntimeUnavailable("the connection was lost")
    makes = True

    async def create_agent(self, name: str, *, model: str = "", description: str = "") -> AgentInfo:
        if self.makes:
            await super().create_agent(name, model=model, description=description)
        raise self.lost


async def create(stage: Stage, key: str, *runtimes: MemoryRuntime) -> str:
    """Create Eve where these are the runtimes; the id of the new agent."""

    async def sync() -> dict[str, str]:
        return {}

    async def forget(_: Agent) -> None:
        return None

    parts, by_name = stage.parts, {runtime.name: runtime for runtime in runtimes}
    admission = Admission(stage.config, parts.homeserver)
    agents = AgentOperations(
        stage.config.bot_user_id, stage.stores.directory, by_name, admission, sync, forget
    )
    parts.toolbox.operations = {one.name: one for one in tools_in(agents)}
    wanted = {"name": "Eve"}
    done = await stage.parts.toolbox.do(
        ADMIN, "agents.create", wanted, door="api", transaction_id=key
    )
    return str(done["agent_id"])


async def test_an_answer_that_was_lost_is_looked_for(stage: Stage) -> None:
    runtime = Forgetful(agents=1)
    made = await create(stage, "k1", runtime)
    assert [info.agent_id for info in await runtime.list_agents() if info.name == "Eve"] == [made]
    assert await create(stage, "k1", runtime) == made
    assert len(await runtime.list_agents()) == 2


async def test_a_namesake_is_not_taken_for_what_an_earlier_try_made(stage: Stage) -> None:
    runtime = Forgetful()
    runtime.makes = False
    runtime.add(AgentInfo("agent-old", "Eve"))
    with pytest.raises(ToolError) as caught:
        await create(stage, "k1", runtime)
    assert caught.value.fault is Fault.UNAVAILABLE
    runtime.makes, runtime.lost = True, RuntimeUnavailable("lost again")
    assert await create(stage, "k1", runtime) != "agent-old"
    assert len(await runtime.list_agents()) == 2


@pytest.mark.parametrize(
    ("lost", "fault"),
    [
        (RuntimeRefused("no such model"), Fault.REFUSED),
        (AgentGone("it is gone"), Fault.NOT_FOUND),
        (CredentialsRefused("the key is wrong"), Fault.UNAVAILABLE),
    ],
)
async def test_what_a_runtime_says_is_passed_on(
    stage: Stage, lost: RuntimeFault, fault: Fault
) -> None:
    runtime = Forgetful()
    runtime.lost, runtime.makes = lost, False
    with pytest.raises(ToolError, match=str(lost)) as caught:
        await create(stage, "", runtime)
    assert caught.value.fault is fault


async def test_where_it_is_made_must_be_clear(stage: Stage) -> None:
    fixed = MemoryRuntime("fixed", capabilities=Capabilities(manage=False))
    one, two = MemoryRuntime("one"), MemoryRuntime("two")
    with pytest.raises(ToolError, match="`one` or `two`"):
        await create(stage, "", fixed, one, two)
    with pytest.raises(ToolError, match="No runtime lets"):
        await create(stage, "", fixed)
    made = await create(stage, "", fixed, one)
    assert [info.agent_id for info in await one.list_agents()] == [made]
