"""Finds agents by polling their runtimes, and says what changed."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from letta_matrix.common import clock
from letta_matrix.common.identifiers import user_id
from letta_matrix.common.measures import REQUEST_BOUNDS, Calls
from letta_matrix.common.parts import part
from letta_matrix.config import Agents as AgentsConfig
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.runtimes.faults import RuntimeFault, fault_of
from letta_matrix.runtimes.protocol import AgentInfo, AgentRuntime
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.database import StoreUnavailable

log = structlog.get_logger()

_SHARE = 0.04
"""The part of the time a listing may take; mostly waiting: our CPU stays under half of it."""

_LONGEST_INTERVAL = 30.0

_PATIENCE = 2.0
"""Seconds a fault may last unmentioned: at a start, servers come up one after the other."""

_SILENCE = 10.0
"""Seconds after which a listing that is still waited for counts as failing."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a listing says against what is known of one runtime."""

    new: list[AgentInfo] = field(default_factory=list[AgentInfo])
    changed: list[tuple[Agent, AgentInfo]] = field(default_factory=list[tuple[Agent, AgentInfo]])
    missing: list[Agent] = field(default_factory=list[Agent])

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.missing)


def compare(listing: Iterable[AgentInfo], known: Mapping[str, Agent]) -> Changes:
    """Diff a complete listing with the known agents of the same runtime, by agent id."""
    listed = {info.agent_id: info for info in listing}
    changes = Changes()
    for agent_id, info in listed.items():
        agent = known.get(agent_id)
        if agent is None:
            changes.new.append(_storable(info))
        elif _differs(agent, info) and _differs(agent, clean := _storable(info)):
            changes.changed.append((agent, clean))
    for agent_id, agent in known.items():
        if agent_id not in listed and agent.status is AgentStatus.ACTIVE:
            changes.missing.append(agent)
    return changes


def _differs(agent: Agent, info: AgentInfo) -> bool:
    shown = (info.name, info.description, AgentStatus.ACTIVE)
    return (agent.name, agent.description, agent.status) != shown


def _storable(info: AgentInfo) -> AgentInfo:
    return replace(info, name=clean_text(info.name), description=clean_text(info.description))


def next_interval(shortest: float, recent: Iterable[float]) -> float:
    """Seconds until the next listing, given how long recent ones took.

    The quickest one counts: it shows what a listing costs, the others also what else went on.
    """
    return min(max(shortest, min(recent) / _SHARE), max(shortest, _LONGEST_INTERVAL))


@part
class Discovery:
    """Polls one runtime and brings the directory up to date; `on_change` gets changed agents,
    `on_listing` every listing, which `calls` counts."""

    _runtime: AgentRuntime
    _directory: AgentDirectory
    _config: AgentsConfig
    _domain: str
    _on_change: Callable[[list[Agent]], Awaitable[None]]
    _on_listing: Callable[[list[AgentInfo]], Awaitable[None]]

    def __post_init__(self) -> None:
        self._polling = asyncio.Lock()
        self.calls = Calls(fault_of, *REQUEST_BOUNDS)
        self._missing: dict[str, tuple[int, float]] = {}
        self._refused: set[str] = set()
        self._fault: str | None = None
        self._asked_at: float | None = None
        self._hung = False
        self._recent: deque[float] = deque([0.0], maxlen=8)
        self._failing_since: float | None = None
        self._warned: str | None = None
        self.listed = False

    @property
    def name(self) -> str:
        """The runtime's."""
        return self._runtime.name

    @property
    def settled(self) -> bool:
        """Whether nobody need wait for it: it has listed its agents, or fails for a while."""
        return self.listed or self._warned is not None

    @property
    def trouble(self) -> str | None:
        """Why the last listing failed, or that it lasts; None after one that worked."""
        if self._asked_at is None or self._fault is not None:
            return self._fault
        if not self._is_late:
            return None
        seconds = f"{self._patience:.0f} s"
        return f"the runtime {self.name!r} has not listed its agents for {seconds}: it hangs"

    @property
    def hangs(self) -> bool:
        """Whether it is asked and does not answer: for so long, or after it was given up so."""
        return self._asked_at is not None and (self._hung or self._is_late)

    @property
    def _is_late(self) -> bool:
        return self._asked_at is not None and clock.now() - self._asked_at > self._patience

    @property
    def _patience(self) -> float:
        # Some servers need as long for all of their agents, each time.
        return max(_SILENCE, 2 * max(self._recent))

    async def run(self) -> None:
        """Poll for ever."""
        while True:
            started = time.perf_counter()
            if await self._attempt():
                self._recent.append(time.perf_counter() - started)
            await asyncio.sleep(next_interval(self._config.poll_interval, self._recent))

    async def poll(self) -> None:
        """List once and act on the differences. Raises RuntimeFault or StoreUnavailable."""
        async with self._polling:
            await self._poll()

    async def _poll(self) -> None:
        self._asked_at = clock.now()
        try:
            with self.calls.timed(self._runtime.name):
                listing = await self._runtime.list_agents()
            self._hung = False
        except RuntimeFault:
            self._hung = self._is_late
            raise
        finally:
            self._asked_at = None
        known = {
            agent.agent_id: agent
            for agent in self._directory.all()
            if agent.runtime == self._runtime.name
        }
        changes = compare(listing, known)
        present = known.keys() - {agent.agent_id for agent in changes.missing}
        for agent_id in self._missing.keys() & present:
            del self._missing[agent_id]
        if changes:
            await self._apply(changes)
        await self._on_listing(listing)
        self.listed = True

    async def _attempt(self) -> bool:
        try:
            await self.poll()
        except (RuntimeFault, StoreUnavailable) as error:
            self._failed(str(error))
            return False
        if self._warned is not None:
            log.info("agents can be listed again", runtime=self._runtime.name)
        self._fault = self._failing_since = self._warned = None
        return True

    def _failed(self, reason: str) -> None:
        self._fault, now = reason, clock.now()
        if self._failing_since is None:
            self._failing_since = now
        # Told once: the same reason every half second would drown the log.
        if now - self._failing_since >= _PATIENCE and reason != self._warned:
            self._warned = reason
            log.warning("agents cannot be listed", runtime=self._runtime.name, reason=reason)

    async def _apply(self, changes: Changes) -> None:
        await self._add(changes.new)
        listed = {agent.agent_id: info for agent, info in changes.changed}
        removed = {agent.agent_id for agent in changes.missing if self._is_removed(agent)}

        def edited(agent: Agent) -> Agent:
            info = listed.get(agent.agent_id)
            if info is None:
                return replace(agent, status=AgentStatus.REMOVED)
            active = AgentStatus.ACTIVE
            return replace(agent, name=info.name, description=info.description, status=active)

        if not listed and not removed:
            return
        changed = await self._directory.change([*listed, *removed], edited)
        for agent in changed:
            event = "agent removed" if agent.agent_id in removed else "agent changed"
            log.info(event, agent=agent.agent_id, name=agent.name)
        await self._on_change(changed)

    async def _add(self, found: list[AgentInfo]) -> None:
        reserved: dict[str, Agent] = {}
        for info in found:
            if (agent := self._reserve(info, reserved)) is not None:
                reserved[agent.user_id] = agent
        if not reserved:
            return
        new = list(reserved.values())
        await self._directory.reserve(new)
        for agent in new:
            log.info("agent found", agent=agent.agent_id, name=agent.name)
        await self._on_change(new)

    def _reserve(self, info: AgentInfo, reserved: Mapping[str, Agent]) -> Agent | None:
        """The agent's row, or None with the reason logged once where it cannot have one."""
        reason = ""
        try:
            ghost = user_id(info.agent_id, self._domain)
        except ValueError as error:
            ghost, reason = "", str(error)
        if clean_text(info.agent_id) != info.agent_id:
            reason = "its id holds characters that cannot be stored"
        other = (
            self._directory.get(info.agent_id)
            or self._directory.by_user(ghost)
            or reserved.get(ghost)
        )
        if other is not None:
            reason = f"its user id belongs to {other.agent_id} of the runtime {other.runtime!r}"
        if reason:
            self._refuse(info, reason)
            return None
        return Agent(
            agent_id=info.agent_id,
            runtime=self._runtime.name,
            name=info.name,
            description=info.description,
            user_id=ghost,
        )

    def _refuse(self, info: AgentInfo, reason: str) -> None:
        if info.agent_id not in self._refused:
            self._refused.add(info.agent_id)
            log.warning("an agent is left out", agent=info.agent_id, reason=reason)

    def _is_removed(self, agent: Agent) -> bool:
        now = clock.now()
        count, since = self._missing.get(agent.agent_id, (0, now))
        self._missing[agent.agent_id] = (count + 1, since)
        return (
            count + 1 >= self._config.removal_listings and now - since >= self._config.removal_grace
        )
