"""Creating an agent when the runtime's answer, or our own process, is lost on the way."""

from types import SimpleNamespace
from typing import Any

import pytest
from tests.stage import Stage

from letta_matrix.api.agent_changes import create
from letta_matrix.api.problems import Problem
from letta_matrix.runtimes.faults import (
    AgentGone,
    CredentialsRefused,
    RuntimeFault,
    RuntimeRefused,
    RuntimeUnavailable,
)
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo, Capabilities
from letta_matrix.toolbox.faults import Fault, ToolError
from letta_matrix.toolbox.principal import Principal

ADMIN = Principal("token:a", "")


class Forgetful(MemoryRuntime):
    """Makes an agent, and then loses its answer."""

    lost: RuntimeFault = RuntimeUnavailable("the connection was lost")
    makes = True

    async def create_agent(self, name: str, *, model: str = "", description: str = "") -> AgentInfo:
        if self.makes:
            await super().create_agent(name, model=model, description=description)
        raise self.lost


def services(stage: Stage, *runtimes: MemoryRuntime) -> Any:
    return SimpleNamespace(
        config=stage.config,
        toolbox=stage.parts.toolbox,
        runtimes={runtime.name: runtime for runtime in runtimes},
    )


async def test_an_answer_that_was_lost_is_looked_for(stage: Stage) -> None:
    runtime = Forgetful(agents=1)
    api = services(stage, runtime)
    made = await create(api, ADMIN, "Eve", "", "", "", "k1")
    assert [info.agent_id for info in await runtime.list_agents() if info.name == "Eve"] == [made]
    assert await create(api, ADMIN, "Eve", "", "", "", "k1") == made
    assert len(await runtime.list_agents()) == 2


async def test_a_namesake_is_not_taken_for_what_an_earlier_try_made(stage: Stage) -> None:
    runtime = Forgetful()
    runtime.makes = False
    runtime.add(AgentInfo("agent-old", "Eve"))
    api = services(stage, runtime)
    with pytest.raises(ToolError) as caught:
        await create(api, ADMIN, "Eve", "", "", "", "k1")
    assert caught.value.fault is Fault.UNAVAILABLE
    with pytest.raises(ToolError, match="agent-old") as caught:
        await create(api, ADMIN, "Eve", "", "", "", "k1")
    assert caught.value.fault is Fault.CONFLICT
    assert len(await runtime.list_agents()) == 1


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
        await create(services(stage, runtime), ADMIN, "Eve", "", "", "", "")
    assert caught.value.fault is fault


async def test_where_it_is_made_must_be_clear(stage: Stage) -> None:
    fixed = MemoryRuntime("fixed", capabilities=Capabilities(manage=False))
    one, two = MemoryRuntime("one"), MemoryRuntime("two")
    with pytest.raises(Problem, match="one, two"):
        await create(services(stage, fixed, one, two), ADMIN, "Eve", "", "", "", "")
    with pytest.raises(Problem, match="No runtime lets"):
        await create(services(stage, fixed), ADMIN, "Eve", "", "", "", "")
    made = await create(services(stage, fixed, one), ADMIN, "Eve", "", "", "", "")
    assert [info.agent_id for info in await one.list_agents()] == [made]
