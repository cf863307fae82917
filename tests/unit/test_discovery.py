"""What a listing means: new, renamed, gone, back, and when it means nothing."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.builders import agent, config_for
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.agents.discovery import _PATIENCE, _SILENCE, Discovery, compare, next_interval
from letta_matrix.common.waiting import ended
from letta_matrix.runtimes.faults import RuntimeUnavailable
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.database import Database, StoreUnavailable


class Finder:
    """A discovery with its runtime and what it told."""

    def __init__(self, directory: AgentDirectory, **settings: Any) -> None:
        agents = {"removal_listings": 3, "removal_grace": 0, "poll_interval": 0.01, **settings}
        self.runtime = MemoryRuntime()
        self.directory = directory
        self.told: list[list[str]] = []
        self.listings: list[list[tuple[str, str]]] = []
        self.known_then: list[str] = []
        config = config_for(Path(), agents=agents).agents
        self.discovery = Discovery(
            self.runtime, directory, config, "test", self._on_change, self._on_listing
        )

    async def _on_change(self, agents: list[Agent]) -> None:
        self.told.append([one.agent_id for one in agents])

    async def _on_listing(self, listing: list[AgentInfo]) -> None:
        self.listings.append([(one.agent_id, one.last_run) for one in listing])
        self.known_then = [one.agent_id for one in self.directory.all()]

    async def poll(self, times: int = 1) -> None:
        for _ in range(times):
            await self.discovery.poll()

    def status(self, agent_id: str) -> AgentStatus:
        found = self.directory.get(agent_id)
        assert found is not None
        return found.status


@pytest.fixture
def finder(directory: AgentDirectory) -> Finder:
    return Finder(directory)


def info(number: int, name: str = "") -> AgentInfo:
    return AgentInfo(f"agent-{number}", name or f"Agent {number}")


def known(*agents: Agent) -> dict[str, Agent]:
    return {one.agent_id: one for one in agents}


def test_a_listing_that_says_nothing_new() -> None:
    changes = compare([info(1), info(1)], known(agent(1)))
    assert not changes


def test_a_listing_is_compared_by_id() -> None:
    removed = agent(4, status=AgentStatus.REMOVED)
    gone_already = agent(5, status=AgentStatus.REMOVED)
    listing = [info(2, "Renamed"), info(3), info(4)]
    changes = compare(listing, known(agent(1), agent(2), removed, gone_already))
    assert [one.agent_id for one in changes.new] == ["agent-3"]
    assert [one.agent_id for one, _ in changes.changed] == ["agent-2", "agent-4"]
    assert [one.agent_id for one in changes.missing] == ["agent-1"]


@pytest.mark.parametrize(
    ("recent", "interval"),
    [
        ([0.0], 0.5),
        ([0.01, 0.012, 0.011], 0.5),
        ([0.04, 0.04, 0.9], 1.0),
        ([0.4], 10.0),
        ([60.0], 30.0),
    ],
)
def test_costly_listings_come_less_often(recent: Iterable[float], interval: float) -> None:
    assert next_interval(0.5, recent) == pytest.approx(interval)


def test_an_operators_long_interval_is_kept() -> None:
    assert next_interval(120.0, [9.0]) == pytest.approx(120.0)


async def test_new_agents_get_a_row_and_are_told_once(finder: Finder) -> None:
    finder.runtime.add(info(1))
    finder.runtime.add(info(2))
    await finder.poll(3)
    assert finder.told == [["agent-1", "agent-2"]]
    found = finder.directory.get("agent-1")
    assert found is not None
    assert (found.user_id, found.runtime, found.room_id) == ("@agent_1:test", "memory", None)
    assert finder.discovery.listed


async def test_every_listing_is_told_after_what_changed(finder: Finder) -> None:
    finder.runtime.add(info(1))
    await finder.poll()
    assert finder.known_then == ["agent-1"]
    await finder.poll()
    finder.runtime.say("agent-1", "hello")
    await finder.poll()
    first, second, third = finder.listings
    assert first == second == [("agent-1", "")]
    assert third != second
    finder.runtime.available = False
    await finder.discovery._attempt()
    assert len(finder.listings) == 3


async def test_what_fails_on_a_listing_is_tried_with_the_next(
    finder: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_listing: list[AgentInfo]) -> None:
        raise StoreUnavailable("the database cannot be used now: disk full")

    finder.runtime.add(info(1))
    with monkeypatch.context() as patched:
        patched.setattr(finder.discovery, "_on_listing", full)
        assert not await finder.discovery._attempt()
    assert not finder.discovery.listed
    assert await finder.discovery._attempt()
    assert finder.listings == [[("agent-1", "")]]


async def test_polls_at_once_come_one_after_the_other(
    finder: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = most = 0
    list_agents = finder.runtime.list_agents

    async def slow() -> list[AgentInfo]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await settled()
        inside -= 1
        return await list_agents()

    monkeypatch.setattr(finder.runtime, "list_agents", slow)
    finder.runtime.add(info(1))
    await asyncio.gather(*(finder.poll() for _ in range(3)))
    assert most == 1
    assert finder.told == [["agent-1"]]


async def test_a_rename_keeps_the_identity(finder: Finder) -> None:
    finder.runtime.add(info(1))
    await finder.poll()
    await finder.runtime.rename_agent("agent-1", "Renamed")
    await finder.poll(2)
    assert finder.told == [["agent-1"], ["agent-1"]]
    (found,) = finder.directory.all()
    assert (found.name, found.user_id) == ("Renamed", "@agent_1:test")


async def test_an_agent_is_removed_after_several_listings(finder: Finder) -> None:
    finder.runtime.add(info(1))
    await finder.poll()
    finder.runtime.remove("agent-1")
    await finder.poll(2)
    assert finder.status("agent-1") is AgentStatus.ACTIVE
    await finder.poll(3)
    assert finder.status("agent-1") is AgentStatus.REMOVED
    assert finder.told == [["agent-1"], ["agent-1"]]


async def test_an_agent_is_not_removed_before_the_grace_is_over(
    directory: AgentDirectory, clock: Clock
) -> None:
    finder = Finder(directory, removal_grace=60)
    clock.stop()
    finder.runtime.add(info(1))
    await finder.poll()
    finder.runtime.remove("agent-1")
    await finder.poll(50)
    clock.advance(59)
    await finder.poll()
    assert finder.status("agent-1") is AgentStatus.ACTIVE
    clock.advance(2)
    await finder.poll()
    assert finder.status("agent-1") is AgentStatus.REMOVED


async def test_a_moment_of_absence_counts_for_nothing(finder: Finder) -> None:
    finder.runtime.add(info(1))
    await finder.poll()
    for _ in range(4):
        finder.runtime.remove("agent-1")
        await finder.poll(2)
        finder.runtime.add(info(1))
        await finder.poll()
    assert finder.status("agent-1") is AgentStatus.ACTIVE
    assert finder.told == [["agent-1"]]


async def test_an_agent_comes_back(finder: Finder) -> None:
    finder.runtime.add(info(1))
    await finder.poll()
    finder.runtime.remove("agent-1")
    await finder.poll(3)
    finder.runtime.add(info(1))
    await finder.poll()
    assert finder.status("agent-1") is AgentStatus.ACTIVE
    finder.runtime.remove("agent-1")
    await finder.poll(2)
    assert finder.status("agent-1") is AgentStatus.ACTIVE


async def test_a_failed_listing_removes_nobody_and_is_said_once_if_it_lasts(
    finder: Finder, clock: Clock
) -> None:
    clock.stop()
    finder.runtime.add(info(1))
    await finder.poll()
    finder.runtime.available = False
    with capture_logs() as logs:
        for seconds, lines in ((0.0, 0), (_PATIENCE - 0.01, 0), (0.02, 1)):
            clock.advance(seconds)
            for _ in range(10):
                await finder.discovery._attempt()
            assert len(logs) == lines
    assert finder.status("agent-1") is AgentStatus.ACTIVE
    assert finder.discovery.trouble == "the in-memory runtime is switched off"
    finder.runtime.available = True
    await finder.discovery._attempt()
    assert finder.discovery.trouble is None


async def test_a_runtime_that_hangs_is_noticed_before_it_is_given_up(
    finder: Finder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, list_agents = asyncio.Event(), finder.runtime.list_agents

    async def hanging() -> list[AgentInfo]:
        await answers.wait()
        return await list_agents()

    await finder.poll()
    clock.stop()
    monkeypatch.setattr(finder.runtime, "list_agents", hanging)
    poll = asyncio.create_task(finder.poll())
    await settled(poll)
    clock.advance(_SILENCE)
    assert finder.discovery.trouble is None
    clock.advance(1)
    assert finder.discovery.trouble == (
        "the runtime 'memory' has not listed its agents for 10 s: it hangs"
    )
    assert finder.discovery.hangs
    answers.set()
    await within(poll)
    assert finder.discovery.trouble is None
    assert not finder.discovery.hangs


async def test_one_that_was_given_up_for_hanging_hangs_when_it_is_asked_again(
    finder: Finder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def given_up() -> list[AgentInfo]:
        clock.advance(_SILENCE + 20)
        raise RuntimeUnavailable("it did not answer within 30 s")

    async def hanging() -> list[AgentInfo]:
        await asyncio.Event().wait()
        return []

    clock.stop()
    monkeypatch.setattr(finder.runtime, "list_agents", given_up)
    await finder.discovery._attempt()
    assert not finder.discovery.hangs
    monkeypatch.setattr(finder.runtime, "list_agents", hanging)
    poll = asyncio.create_task(finder.poll())
    await settled(poll)
    assert finder.discovery.hangs
    await ended(poll)


async def test_one_that_has_answered_late_does_not_hang_when_it_is_asked_again(
    finder: Finder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_agents = finder.runtime.list_agents

    async def late() -> list[AgentInfo]:
        clock.advance(_SILENCE + 3)
        return await list_agents()

    async def under_way() -> list[AgentInfo]:
        await asyncio.Event().wait()
        return []

    clock.stop()
    monkeypatch.setattr(finder.runtime, "list_agents", late)
    assert await finder.discovery._attempt()
    monkeypatch.setattr(finder.runtime, "list_agents", under_way)
    poll = asyncio.create_task(finder.poll())
    await settled(poll)
    assert not finder.discovery.hangs
    await ended(poll)


async def test_other_runtimes_agents_are_none_of_its_business(finder: Finder) -> None:
    await finder.directory.reserve([agent(1, runtime="other")])
    await finder.poll(5)
    assert finder.status("agent-1") is AgentStatus.ACTIVE
    finder.runtime.add(info(1, "Stolen"))
    with capture_logs() as logs:
        await finder.poll(3)
    (found,) = finder.directory.all()
    assert (found.runtime, found.name) == ("other", "Agent 1")
    assert [line["event"] for line in logs] == ["an agent is left out"]


async def test_agents_that_cannot_be_are_left_out_and_the_rest_goes_on(finder: Finder) -> None:
    finder.runtime.add(AgentInfo("", "Without an id"))
    finder.runtime.add(AgentInfo("agent-\ud800", "With half a character"))
    finder.runtime.add(AgentInfo("x", "Short"))
    finder.runtime.add(AgentInfo("agent-x", "Shares the user id"))
    finder.runtime.add(info(2))
    await finder.poll(2)
    assert [one.agent_id for one in finder.directory.all()] == ["x", "agent-2"]


@pytest.mark.parametrize("text", ["half \ud83d of it", "\x00", "\x1b[31mred", "x" * 100_000, ""])
async def test_odd_names_and_descriptions_stop_nobody(finder: Finder, text: str) -> None:
    finder.runtime.add(AgentInfo("agent-1", text, text))
    finder.runtime.add(info(2))
    await finder.poll(2)
    assert finder.told == [["agent-1", "agent-2"]]


async def test_two_new_agents_with_one_user_id_in_one_listing(finder: Finder) -> None:
    finder.runtime.add(AgentInfo("agent-x", "First"))
    finder.runtime.add(AgentInfo("x", "Second"))
    await finder.poll(2)
    assert [one.name for one in finder.directory.all()] == ["First"]


async def test_what_could_not_be_stored_is_found_again(
    finder: Finder, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreUnavailable("the database cannot be used now: disk full")

    finder.runtime.add(info(1))
    await finder.poll()
    await finder.runtime.rename_agent("agent-1", "Renamed")
    finder.runtime.add(info(2))
    with monkeypatch.context() as patched:
        patched.setattr(database, "execute", full)
        assert not await finder.discovery._attempt()
    assert finder.discovery.trouble == "the database cannot be used now: disk full"
    assert [one.name for one in finder.directory.all()] == ["Agent 1"]
    await finder.poll()
    assert finder.told == [["agent-1"], ["agent-2"], ["agent-1"]]
    assert [one.name for one in finder.directory.all()] == ["Renamed", "Agent 2"]


async def test_it_polls_for_ever(finder: Finder) -> None:
    task = asyncio.create_task(finder.discovery.run())
    finder.runtime.available = False
    await eventually(lambda: finder.discovery.trouble)
    finder.runtime.available = True
    finder.runtime.add(info(1))
    await eventually(lambda: finder.told)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
