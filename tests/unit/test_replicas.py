"""How a replica comes to act, and makes way: the steps alone, with a seat that the test gives."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.builders import config_for
from tests.servers import free_port
from tests.waiting import Clock, eventually, settled

from letta_matrix.app.replicas import Replicas
from letta_matrix.store.database import StoreError
from letta_matrix.store.leases import Replica


class Unlooked:
    """A way that nobody has looked at."""

    reaches: bool | None = None
    forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1


class FakeSeat:
    """A seat without a database: who has it is what the test says."""

    def __init__(self) -> None:
        self.won, self.lost, self.outdone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.way = Unlooked()
        self.state, self.wants, self.holds = "", True, False
        self.active: Replica | None = None
        self.trouble = None
        self.told: list[str] = []

    async def open(self) -> None:
        self.told.append("opened")

    async def run(self) -> None:
        await asyncio.Event().wait()

    def stand_by(self) -> None:
        self.holds = False
        self.won.clear()
        self.lost.clear()
        self.outdone.clear()

    async def let_go(self, *, for_good: bool = True) -> None:
        self.told.append("gone" if for_good else "let go")
        self.stand_by()

    async def close(self) -> None:
        self.told.append("closed")

    def give(self) -> None:
        self.holds = True
        self.won.set()


class FakeBridge:
    def __init__(self, told: list[str], fault: Exception | None) -> None:
        self._told, self._fault = told, fault
        self.unsure, self.begins, self.ends = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.begins.set()
        self.ends.set()

    async def start(self) -> None:
        self._told.append("start")
        await self.begins.wait()
        if self._fault is not None:
            raise self._fault

    async def drain(self, within: float) -> None:
        self._told.append(f"drain {within:.0f}")

    async def close(self) -> None:
        self._told.append("close")
        try:
            await self.ends.wait()
        except asyncio.CancelledError:
            # What is left to be closed then takes its time, too.
            await settled()
            self._told.append("cut off")
            raise


class Stage:
    def __init__(self, directory: Path) -> None:
        names = ("appservice", "api", "mcp")
        ports: dict[str, Any] = {name: {"port": free_port()} for name in names}
        ports["mcp"]["websocket_port"] = free_port()
        ports["appservice"] |= {"as_token": "as-secret", "hs_token": "hs-secret"}
        self.config = config_for(directory, **ports)
        self.seat, self.stop = FakeSeat(), asyncio.Event()
        self.fault: Exception | None = None
        self.bridges: list[FakeBridge] = []
        self.begins = True
        replicas = Replicas(self.config, self.seat, self._made)  # pyright: ignore[reportArgumentType]
        self.running = asyncio.create_task(replicas.run(self.stop))

    def _made(self, _seat: object) -> FakeBridge:
        self.bridges.append(FakeBridge(self.told, self.fault))
        if not self.begins:
            self.bridges[-1].begins.clear()
        return self.bridges[-1]

    @property
    def told(self) -> list[str]:
        return self.seat.told

    async def until(self, *told: str) -> None:
        await eventually(lambda: self.told[-len(told) :] == list(told), what=f"{told}: {self.told}")

    async def is_listening(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.config.api.port)
        except OSError:
            return False
        writer.close()
        return True


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncGenerator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.stop.set()
    await stage.running


async def test_it_listens_while_another_acts(stage: Stage) -> None:
    await eventually(stage.is_listening, what="it listens")
    assert stage.told == ["opened"]


async def test_it_acts_once_the_seat_is_its_own(stage: Stage) -> None:
    await eventually(stage.is_listening, what="it listens")
    stage.seat.give()
    await stage.until("start")
    await eventually(lambda: stage.seat.state == "active", what="it is said to act")
    # The bridge's own ports are free for it.
    assert not await stage.is_listening()


async def test_the_loser_closes_and_listens_again(stage: Stage) -> None:
    stage.seat.give()
    await stage.until("start")
    stage.seat.holds = False
    stage.seat.lost.set()
    await stage.until("start", "close", "let go")
    await eventually(stage.is_listening, what="it listens")
    stage.seat.give()
    await stage.until("start", "close", "let go", "start")


async def test_it_listens_again_only_once_what_does_not_end_is_cut_off(
    stage: Stage, clock: Clock
) -> None:
    stage.seat.give()
    await stage.until("start")
    stage.bridges[0].ends.clear()
    stage.seat.lost.set()
    await stage.until("start", "close")
    clock.advance(6)
    await stage.until("start", "close", "cut off", "let go")
    await eventually(stage.is_listening, what="it listens")


async def test_told_to_end_it_finishes_and_only_then_lets_go(stage: Stage) -> None:
    stage.seat.give()
    await stage.until("start")
    stage.stop.set()
    await stage.running
    assert stage.told == ["opened", "start", "drain 20", "close", "gone", "closed"]


async def test_a_loser_that_is_told_to_end_finishes_nothing(stage: Stage) -> None:
    stage.seat.give()
    await stage.until("start")
    stage.seat.holds = False
    stage.stop.set()
    await stage.running
    assert stage.told == ["opened", "start", "close", "gone", "closed"]


async def test_one_that_cannot_act_leaves_it_to_others(stage: Stage) -> None:
    stage.fault = StoreError("the schema is newer")
    stage.seat.give()
    await stage.until("start", "close", "let go")
    assert not stage.seat.holds
    # Else another that is cut off from the homeserver would make way again at once.
    assert stage.seat.way.forgotten == 1


@pytest.mark.parametrize("why", ["lost", "stop"])
async def test_one_that_does_not_begin_is_not_waited_for(stage: Stage, why: str) -> None:
    stage.begins = False
    stage.seat.give()
    await stage.until("start")
    (stage.stop if why == "stop" else stage.seat.lost).set()
    await stage.until("start", "close", *(["gone", "closed"] if why == "stop" else ["let go"]))


async def test_where_nobody_knows_what_is_stored_all_begins_anew(stage: Stage) -> None:
    stage.seat.give()
    await stage.until("start")
    stage.bridges[0].unsure.set()
    await stage.until("start", "close", "let go")
    stage.seat.give()
    await stage.until("let go", "start")


async def test_one_that_is_outdone_finishes_and_only_then_makes_way(stage: Stage) -> None:
    stage.seat.give()
    await stage.until("start")
    stage.seat.outdone.set()
    await stage.until("start", "drain 20", "close", "let go")
    await eventually(stage.is_listening, what="it listens")
    # And may be the next one.
    stage.seat.give()
    await stage.until("let go", "start")
    await eventually(lambda: stage.seat.state == "active", what="it is said to act")
    assert stage.told[-1] == "start"


async def test_a_drain_ends_when_another_has_taken_over(stage: Stage) -> None:
    async def drain(_within: float) -> None:
        await asyncio.Event().wait()

    stage.seat.give()
    await stage.until("start")
    stage.bridges[0].drain = drain  # pyright: ignore[reportAttributeAccessIssue]
    stage.stop.set()
    await eventually(lambda: stage.seat.state == "draining", what="it drains")
    stage.seat.lost.set()
    await stage.running
    assert stage.told[-3:] == ["close", "gone", "closed"]
