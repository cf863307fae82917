"""Which agents there are now, at all runtimes, for a command that no bridge runs beside."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack

from letta_matrix.agents.migration.found import Living
from letta_matrix.common import clock
from letta_matrix.runtimes.faults import RuntimeFault, RuntimeUnavailable
from letta_matrix.runtimes.protocol import AgentInfo, AgentRuntime

_PATIENCE = 20.0
_PAUSE = 0.2


class RuntimeSilent(Exception):
    """A runtime does not say which agents it has; one line for an operator."""


async def living_in(runtimes: Iterable[AgentRuntime]) -> dict[str, Living]:
    """Every agent by its id; the runtimes are started and closed. Raises RuntimeSilent: without
    one listing nobody knows who is gone."""
    living: dict[str, Living] = {}
    async with AsyncExitStack() as ends:
        for runtime in runtimes:
            await runtime.start()
            ends.push_async_callback(runtime.close)
            for info in await _agents_of(runtime):
                living.setdefault(info.agent_id, Living(runtime.name, info))
    return living


async def _agents_of(runtime: AgentRuntime) -> list[AgentInfo]:
    deadline = clock.now() + _PATIENCE
    while True:
        try:
            return await runtime.list_agents()
        except RuntimeFault as error:
            if not isinstance(error, RuntimeUnavailable) or clock.now() > deadline:
                raise RuntimeSilent(
                    f"the agents of the runtime {runtime.name!r} cannot be listed: {error}. "
                    "Nothing was changed; see that it runs, and import again"
                ) from None
        await asyncio.sleep(_PAUSE)
