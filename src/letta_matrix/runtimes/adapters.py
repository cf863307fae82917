"""Which adapter speaks to which kind of runtime."""

from letta_matrix.config import (
    AppServerRuntime,
    Config,
    LettaApiRuntime,
    OpenAICompatibleRuntime,
    Runtime,
)
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentRuntime


def make_runtime(settings: Runtime, config: Config) -> AgentRuntime:
    """The adapter for a runtime's settings; what it needs is imported only now."""
    match settings:
        case AppServerRuntime():
            from letta_matrix.runtimes.app_server import AppServer

            pid_file = None if settings.pid_file is None else config.path(settings.pid_file)
            return AppServer(settings, config.path(settings.keeper_socket), pid_file)
        case LettaApiRuntime():
            from letta_matrix.runtimes.letta_api import LettaApi

            return LettaApi(settings)
        case OpenAICompatibleRuntime():
            from letta_matrix.runtimes.openai_compatible import OpenAICompatible

            return OpenAICompatible(settings)
        case _:
            return MemoryRuntime(settings.name, settings.agents)
