"""What runtimes can do, tell and refuse, for doors."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.common.parts import part
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.runtimes import faults
from letta_matrix.runtimes.protocol import AgentRuntime, Capabilities
from letta_matrix.store.agents import Agent

SAID = "said by a runtime"
"""The `detail` of a refusal that is a runtime's own words."""


@part
class RuntimesTold:
    """The runtimes by their `names`, as they are configured. All but these raise ToolError."""

    _runtimes: Mapping[str, AgentRuntime]

    @property
    def names(self) -> Sequence[str]:
        return list(self._runtimes)

    def abilities(self, agent: Agent) -> Capabilities:
        """What the runtime of an agent can do."""
        return self._of(agent).capabilities

    async def models(self, agent: Agent) -> list[str]:
        """The models that an agent can be switched to."""
        with telling_faults():
            return await self._of(agent).list_models()

    async def model(self, agent: Agent) -> str:
        """An agent's model, "" if its runtime does not tell."""
        with telling_faults():
            listing = await self._of(agent).list_agents()
        return next((info.model for info in listing if info.agent_id == agent.agent_id), "")

    def _of(self, agent: Agent) -> AgentRuntime:
        runtime = self._runtimes.get(agent.runtime)
        if runtime is None:
            text = f"The runtime {code(agent.runtime)} is no longer configured: its agents answer "
            raise ToolError(text + "again once `runtimes` has it.", Fault.CONFLICT)
        return runtime


@contextmanager
def telling_faults() -> Generator[None]:
    """While the block runs a runtime's faults are told in its words. Raises ToolError."""
    try:
        yield
    except faults.RuntimeFault as error:
        raise ToolError(
            str(error) or type(error).__name__,
            _kind(error),
            retry_after=getattr(error, "retry_after", 0.0),
            detail=SAID,
        ) from error


def _kind(error: faults.RuntimeFault) -> Fault:
    if isinstance(error, faults.RuntimeUnavailable | faults.CredentialsRefused):
        return Fault.UNAVAILABLE
    return Fault.NOT_FOUND if isinstance(error, faults.AgentGone) else Fault.REFUSED
