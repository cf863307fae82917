"""Which adapter speaks to which kind of runtime."""

from letta_matrix.common.sureness import Sure
from letta_matrix.config import (
    AppServerRuntime,
    Config,
    LettaApiRuntime,
    OpenAICompatibleRuntime,
    Runtime,
)
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentRuntime


def make_runtime(
    settings: Runtime, config: Config, epoch: int = 0, sure: Sure | None = None
) -> AgentRuntime:
    """The adapter for a runtime's settings; what it needs is imported only now. `epoch` tells
    replicas apart that take over from each other: it grows with each, and is 0 without. They are
    `sure` (see there) before each request that changes something."""
    match settings:
        case AppServerRuntime():
            from letta_matrix.runtimes.app_server import AppServer
            from letta_matrix.runtimes.app_server.keepers import keeper_of

            return AppServer(settings, keeper_of(settings, config, sure), epoch)
        case LettaApiRuntime():
            from letta_matrix.runtimes.letta_api import LettaApi

            return LettaApi(settings, sure)
        case OpenAICompatibleRuntime():
            from letta_matrix.runtimes.openai_compatible import OpenAICompatible

            return OpenAICompatible(settings, sure)
        case _:
            return MemoryRuntime(settings.name, settings.agents)
