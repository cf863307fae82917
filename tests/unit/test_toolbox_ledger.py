"""The ledger: each transaction once, whatever fails or goes away on the way."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.waiting import Clock, eventually, settled

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.operations.toolbox import ledger as ledger_module
from letta_matrix.operations.toolbox.ledger import CANCELLED, Ledger
from letta_matrix.operations.toolbox.notes import Notes
from letta_matrix.operations.toolbox.tool import Result
from letta_matrix.store.audit import AuditEntry, AuditStore, fingerprint
from letta_matrix.store.database import Database, StoreUnavailable

SENT = {"room_id": "!1:test", "event_id": "$1"}


def entry(transaction_id: str | None = "t1", arguments: str = "a", **fields: Any) -> AuditEntry:
    values: dict[str, Any] = {
        "principal": "token:1",
        "user_id": "@letta:test",
        "door": "api",
        "tool": "say",
        "fingerprint": fingerprint({"x": arguments}),
        "transaction_id": transaction_id,
        "at": 1.0,
    }
    return AuditEntry(**values | fields)


class Job:
    """Work that counts its runs, and does what it is told to, one thing for each run."""

    def __init__(self, *outcomes: Result | Exception) -> None:
        self.outcomes = list(outcomes)
        self.again: list[bool] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def __call__(self, again: bool) -> Result:
        self.again.append(again)
        self.begun.set()
        await self.gate.wait()
        outcome = self.outcomes.pop(0) if self.outcomes else SENT
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
async def store(database: Database) -> AuditStore:
    return AuditStore(database)


@pytest.fixture
async def ledger(store: AuditStore) -> AsyncGenerator[Ledger]:
    made = Ledger(store)
    yield made
    await made.close()


async def noted(ledger: Ledger, store: AuditStore) -> list[tuple[str | None, str | None]]:
    """The outcomes and events of all calls, oldest first, once all have ended."""
    while ledger._running:
        await asyncio.wait(ledger._running)
    return [(one.outcome, one.event_id) for one in reversed(await store.newest(99))]


def failing(times: int, then: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A method of a store that is away for the first `times` calls."""
    left = [times]

    async def method(*arguments: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise StoreUnavailable("the disk is full")
        return await then(*arguments, **options)

    return method


async def test_a_transaction_is_done_once_and_tells_its_result_again(
    ledger: Ledger, store: AuditStore
) -> None:
    job = Job()
    assert [await ledger.run(entry(), job) for _ in range(3)] == [SENT] * 3
    assert job.again == [False]
    await ledger.run(entry(principal="token:2"), job)
    assert job.again == [False, False], "the ids of one token are not those of another"
    assert await noted(ledger, store) == [("ok", "$1")] * 2


async def test_calls_without_a_transaction_are_all_done(ledger: Ledger, store: AuditStore) -> None:
    job = Job()
    await asyncio.gather(*(ledger.run(entry(None), job) for _ in range(3)))
    assert job.again == [False] * 3
    assert await noted(ledger, store) == [("ok", "$1")] * 3


async def test_identical_calls_at_once_are_one(ledger: Ledger, store: AuditStore) -> None:
    job = Job()
    job.gate.clear()
    calls = [asyncio.create_task(ledger.run(entry(), job)) for _ in range(20)]
    await job.begun.wait()
    job.gate.set()
    assert await asyncio.gather(*calls) == [SENT] * 20
    assert job.again == [False]
    assert await noted(ledger, store) == [("ok", "$1")]


@pytest.mark.parametrize("other", [entry(arguments="b"), entry(tool="shout")])
async def test_a_transaction_is_not_used_for_something_else(
    ledger: Ledger, other: AuditEntry
) -> None:
    job = Job()
    job.gate.clear()
    first = asyncio.create_task(ledger.run(entry(), job))
    await job.begun.wait()
    second = asyncio.create_task(ledger.run(other, job))
    job.gate.set()
    assert await first == SENT
    with pytest.raises(ToolError, match="`transaction_id` 't1' was used for another") as caught:
        await second
    assert caught.value.fault is Fault.CONFLICT
    assert job.again == [False]


async def test_what_failed_is_tried_again_with_a_look_at_what_the_first_try_did(
    ledger: Ledger, store: AuditStore
) -> None:
    job = Job(ToolError("no", Fault.TIMEOUT))
    with pytest.raises(ToolError):
        await ledger.run(entry(), job)
    assert await noted(ledger, store) == [("timeout", None)]
    assert await ledger.run(entry(), job) == SENT
    assert job.again == [False, True]
    assert await noted(ledger, store) == [("ok", "$1")]


async def test_a_process_killed_in_between_leaves_what_the_next_one_resumes(
    store: AuditStore,
) -> None:
    await store.begin(entry())
    job = Job()
    assert await Ledger(store).run(entry(), job) == SENT
    assert job.again == [True]


async def test_without_its_store_a_transaction_does_not_begin(
    ledger: Ledger, store: AuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "begin", failing(1, store.begin))
    job = Job()
    with pytest.raises(StoreUnavailable):
        await ledger.run(entry(), job)
    assert job.again == []
    assert await ledger.run(entry(), job) == SENT
    assert job.again == [False]


async def test_what_was_done_is_told_though_it_cannot_be_noted(
    ledger: Ledger, store: AuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "end", failing(1, store.end))
    job = Job()
    with capture_logs() as logs:
        assert await ledger.run(entry(), job) == SENT
        assert await ledger.run(entry(), job) == SENT
    assert job.again == [False, True]
    assert [log["event"] for log in logs] == ["a call is missing in the audit log"]
    assert await noted(ledger, store) == [("ok", "$1")]


@pytest.mark.parametrize(("failures", "found"), [(1, [("ok", "$1")]), (2, [])])
async def test_a_call_that_could_not_be_noted_at_its_beginning_is_noted_at_its_end(
    ledger: Ledger,
    store: AuditStore,
    monkeypatch: pytest.MonkeyPatch,
    failures: int,
    found: list[tuple[str, str]],
) -> None:
    monkeypatch.setattr(store, "begin", failing(failures, store.begin))
    with capture_logs() as logs:
        assert await ledger.run(entry(None), Job()) == SENT
        assert await noted(ledger, store) == found
    assert len(logs) == failures - 1


@pytest.mark.parametrize("transaction_id", [None, "t1"])
async def test_a_write_is_finished_though_its_caller_goes_away(
    ledger: Ledger, store: AuditStore, transaction_id: str | None
) -> None:
    job = Job()
    job.gate.clear()
    call = asyncio.create_task(ledger.run(entry(transaction_id), job))
    await job.begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    retry = asyncio.create_task(ledger.run(entry(transaction_id), job))
    job.gate.set()
    assert await retry == SENT
    assert len(job.again) == (1 if transaction_id else 2)
    assert set(await noted(ledger, store)) == {("ok", "$1")}


async def test_a_failure_nobody_waits_for_any_more_is_noted_all_the_same(
    ledger: Ledger, store: AuditStore
) -> None:
    job = Job(ToolError("no", Fault.FORBIDDEN))
    job.gate.clear()
    call = asyncio.create_task(ledger.run(entry(), job))
    await job.begun.wait()
    call.cancel()
    job.gate.set()
    assert await noted(ledger, store) == [("forbidden", None)]


@pytest.mark.parametrize("transaction_id", [None, "t1"])
async def test_waiting_for_somebody_ends_with_the_caller_and_is_taken_up_again(
    ledger: Ledger, store: AuditStore, transaction_id: str | None
) -> None:
    job = Job()
    job.gate.clear()
    call = asyncio.create_task(ledger.run(entry(transaction_id), job, waits=True))
    await job.begun.wait()
    call.cancel()
    assert await noted(ledger, store) == [(CANCELLED, None)]
    job.gate.set()
    assert await ledger.run(entry(transaction_id), job, waits=True) == SENT
    assert job.again == [False, transaction_id is not None]


async def test_a_defect_is_told_as_one_and_noted(ledger: Ledger, store: AuditStore) -> None:
    with capture_logs() as logs, pytest.raises(ToolError) as caught:
        await ledger.run(entry(), Job(RuntimeError("secret detail")))
    assert caught.value.fault is Fault.FAILED
    assert "secret" not in str(caught.value)
    assert [log["event"] for log in logs] == ["a call failed"]
    assert await noted(ledger, store) == [("failed", None)]


async def test_the_mirror_hears_of_each_call_that_ended_once(
    ledger: Ledger, store: AuditStore
) -> None:
    heard: list[AuditEntry] = []
    ledger.mirror = heard.append
    job = Job(SENT, ToolError("no", Fault.REFUSED))
    await ledger.run(entry(), job)
    await ledger.run(entry(), job)
    with pytest.raises(ToolError):
        await ledger.run(entry(None), job)
    await noted(ledger, store)
    assert [(one.outcome, one.room_id, one.seq) for one in heard] == [
        ("ok", "!1:test", 1),
        ("refused", None, 2),
    ]


async def test_a_mirror_that_breaks_breaks_no_call(ledger: Ledger, store: AuditStore) -> None:
    def broken(_: AuditEntry) -> None:
        raise RuntimeError("on purpose")

    ledger.mirror = broken
    with capture_logs() as logs:
        assert await ledger.run(entry(), Job()) == SENT
        assert await noted(ledger, store) == [("ok", "$1")]
    assert [log["event"] for log in logs] == ["a call failed"]


async def test_closing_waits_for_what_ends_soon_and_cuts_the_rest_short(
    ledger: Ledger, store: AuditStore, clock: Clock
) -> None:
    soon, never = Job(), Job()
    soon.gate.clear()
    never.gate.clear()
    calls = [asyncio.create_task(ledger.run(entry("soon"), soon))]
    # It is noted first.
    await soon.begun.wait()
    calls.append(asyncio.create_task(ledger.run(entry("never"), never)))
    await never.begun.wait()
    clock.stop()
    closing = asyncio.create_task(ledger.close())
    await settled(closing)
    clock.advance(ledger_module._GRACE - 0.1)
    soon.gate.set()
    await eventually(calls[0].done)
    await settled(closing)
    await clock.until(closing.done, step=ledger_module._GRACE)
    clock.go()
    assert await noted(ledger, store) == [("ok", "$1"), (CANCELLED, None)]
    first, second = await asyncio.gather(*calls, return_exceptions=True)
    assert first == SENT
    assert isinstance(second, ToolError)
    assert second.fault is Fault.UNAVAILABLE
    with pytest.raises(ToolError, match="stopping"):
        await ledger.run(entry("late"), Job())


async def test_nothing_is_kept_of_calls_that_are_over(ledger: Ledger, store: AuditStore) -> None:
    for number in range(50):
        await ledger.run(entry(f"t{number}"), Job())
    await noted(ledger, store)
    gc.collect()
    assert len(ledger._doors) == len(ledger._running) == 0


@pytest.mark.parametrize("transaction_id", [None, "t1"])
async def test_closing_ends_what_waits_for_somebody_at_once(
    ledger: Ledger, store: AuditStore, clock: Clock, transaction_id: str | None
) -> None:
    job = Job()
    job.gate.clear()
    call = asyncio.create_task(ledger.run(entry(transaction_id), job, waits=True))
    await job.begun.wait()
    clock.stop()
    closing = asyncio.create_task(ledger.close())
    await settled(closing)
    clock.advance(ledger_module._ASIDE)
    await eventually(call.done)
    await closing
    clock.go()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await noted(ledger, store) == [(CANCELLED, None)]


async def test_closing_does_not_wait_long_for_calls_that_clean_up(
    ledger: Ledger, store: AuditStore, clock: Clock
) -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    async def leave_slowly(again: bool) -> Result:
        try:
            begun.set()
            await never.wait()
        finally:
            await never.wait()
        return SENT

    call = asyncio.create_task(ledger.run(entry(), leave_slowly))
    await begun.wait()
    closing = asyncio.create_task(ledger.close())
    await clock.until(closing.done, step=ledger_module._GRACE)
    with pytest.raises(ToolError, match="stopping"):
        await call
    assert await noted(ledger, store) == [(CANCELLED, None)]


@pytest.mark.parametrize("is_killed", [True, False])
async def test_what_a_name_meant_is_known_when_the_call_comes_again(
    store: AuditStore, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    first, second = Notes(store), Notes(store)

    async def fail(_: bool) -> Result:
        await first.keep("Old", "!1:test")
        raise ToolError("no", Fault.TIMEOUT)

    before = Ledger(store)
    with monkeypatch.context() as patch:
        if is_killed:
            patch.setattr(store, "end", failing(1, store.end))
        with pytest.raises(ToolError):
            await before.run(entry(), fail, notes=first)
        await before.close()
    assert await Ledger(store).run(entry(), Job(), notes=second) == SENT
    assert (second.get("Old"), second.get("New")) == ("!1:test", None)
    await noted(before, store)


async def test_names_in_calls_of_no_transaction_are_not_kept(
    ledger: Ledger, store: AuditStore
) -> None:
    named = Notes(store)

    async def work(_: bool) -> Result:
        await named.keep("Old", "!1:test")
        raise ToolError("no", Fault.TIMEOUT)

    with pytest.raises(ToolError):
        await ledger.run(entry(None), work, notes=named)
    await noted(ledger, store)
    assert [one.result for one in await store.newest(9)] == [None]
