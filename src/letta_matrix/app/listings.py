"""What runtimes list again and again: who there is, and whether agents have spoken unasked."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from letta_matrix.agents.discovery import Discovery
from letta_matrix.app.stores import Stores
from letta_matrix.common.parts import part
from letta_matrix.config import Config, Runtime
from letta_matrix.conversations.speech import SpeechWatch
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.runtimes.faults import RuntimeFault
from letta_matrix.runtimes.protocol import AgentInfo, AgentRuntime
from letta_matrix.store.agents import Agent
from letta_matrix.store.turns import Turn


@part
class Listings:
    """One discovery for each runtime, whose changed agents `changed` gets, and a watch for each
    that tells what agents say unasked; `start` gets the turns of that."""

    _config: Config
    _stores: Stores
    _runtimes: Mapping[str, AgentRuntime]
    _homeserver: Homeserver
    _changed: Callable[[list[Agent]], Awaitable[None]]
    _start: Callable[[list[Turn]], None]

    def __post_init__(self) -> None:
        self.watches = {entry.name: self._watch(entry) for entry in self._config.runtimes}
        self.discoveries = [
            Discovery(
                runtime,
                self._stores.directory,
                self._config.agents,
                self._config.homeserver.domain,
                self._changed,
                self._listed(name),
            )
            for name, runtime in self._runtimes.items()
        ]

    @property
    def complete(self) -> bool:
        """Whether it is known who there is. A runtime that is away keeps nobody waiting who lives
        elsewhere."""
        found = self.discoveries
        listed = not found or any(one.listed for one in found)
        return listed and all(one.settled for one in found)

    def hangs(self, runtime: str) -> bool:
        """Whether a runtime takes requests and answers none, as its listings show."""
        return any(one.hangs for one in self.discoveries if one.name == runtime)

    async def sync(self) -> dict[str, str]:
        """List every runtime's agents now; each runtime's trouble, "" for none. Raises
        StoreUnavailable."""

        async def fault_of(discovery: Discovery) -> str:
            try:
                await discovery.poll()
            except RuntimeFault as fault:
                return str(fault) or type(fault).__name__
            return ""

        faults = await asyncio.gather(*map(fault_of, self.discoveries))
        return dict(zip(self._runtimes, faults, strict=True))

    def _watch(self, settings: Runtime) -> SpeechWatch | None:
        runtime = self._runtimes.get(settings.name)
        if runtime is None or not settings.speech or not runtime.capabilities.speech:
            return None
        stores = self._stores
        return SpeechWatch(
            runtime,
            settings.speech_interval,
            stores.directory,
            stores.speech,
            stores.turns,
            stores.outbox,
            stores.portals,
            self._homeserver,
            self._start,
        )

    def _listed(self, name: str) -> Callable[[list[AgentInfo]], Awaitable[None]]:
        watch = self.watches.get(name)

        async def listed(listing: list[AgentInfo]) -> None:
            if watch is not None:
                await watch.listed(listing)

        return listed
