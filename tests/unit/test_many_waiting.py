"""However many turns wait, what happens looks at those that it is about: counted, not timed."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event
from tests.builders import edit, message, redaction
from tests.stage import Stage
from tests.waiting import eventually

from letta_matrix.access.principal import Principal, Scope
from letta_matrix.store.places import Place
from letta_matrix.store.turns import Outcome, Turn

ADMIN = Principal("token:1", "", frozenset(Scope))
MANY = 200
FEW = 30
"""More than are ever asked together, or are on a page."""


class Looks:
    """Which turns are looked at: all that goes through them reads their ids, or has them read
    from the store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._slot: Any = Turn.__dict__["turn_id"]
        self._seen = set[str]()
        monkeypatch.setattr(Turn, "turn_id", self)

    def __get__(self, turn: Turn, kind: type[Turn]) -> str:
        turn_id = str(self._slot.__get__(turn, kind))
        self._seen.add(turn_id)
        return turn_id

    def __set__(self, turn: Turn, turn_id: str) -> None:
        self._seen.add(turn_id)
        self._slot.__set__(turn, turn_id)

    def since(self) -> int:
        """How many different ones since the last time."""
        seen = len(self._seen)
        self._seen.clear()
        return seen


@pytest.fixture
async def crowded(stage: Stage) -> list[dict[str, Any]]:
    """Messages that wait behind one that is worked on."""
    await stage.again(person_waiting=0, person_per_minute=0)
    waiting = [message("hang") for _ in range(MANY)]
    await stage.admit(message("hang"), *waiting)
    await eventually(lambda: stage.runtime.asked)
    return waiting


@pytest.fixture
def looks(crowded: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


async def test_an_edit_looks_at_its_turn(
    stage: Stage, crowded: list[dict[str, Any]], looks: Looks
) -> None:
    await stage.admit(edit(crowded[-1]["event_id"], "two"))
    assert looks.since() <= FEW
    assert [turn.prompt for turn in stage.dispatcher.queues.unfinished()][-2:] == ["hang", "two"]


async def test_a_redaction_looks_at_its_turn(
    stage: Stage, crowded: list[dict[str, Any]], looks: Looks
) -> None:
    *_, last = stage.dispatcher.queues.unfinished()
    await stage.admit(redaction(crowded[-1]["event_id"]))
    await eventually(lambda: last.outcome == Outcome.WITHDRAWN)
    assert looks.since() <= FEW


@pytest.mark.usefixtures("crowded")
async def test_an_end_looks_at_what_comes_next(stage: Stage, looks: Looks) -> None:
    queues = stage.dispatcher.queues
    head, _, *_ = queues.unfinished()
    assert await stage.runner.cancel(head)
    await queues.over(head.turn_id)
    await eventually(lambda: len(stage.runtime.asked) == 2)
    assert looks.since() <= FEW
    assert (queues.waiting, queues.find(head.turn_id)) == (MANY, None)
    await queues.over(head.turn_id)


@pytest.mark.usefixtures("crowded")
async def test_a_page_looks_at_its_turns(stage: Stage, looks: Looks) -> None:
    async def page(**wanted: object) -> Any:
        return await stage.parts.toolbox.do(ADMIN, "turns.list", {"limit": 5, **wanted}, door="api")

    first = await page()
    second = await page(after=first["next"])
    assert looks.since() <= FEW
    told = [one["turn_id"] for page in (first, second) for one in page["turns"]]
    assert told == [one.turn_id for one in stage.dispatcher.queues.unfinished()][:10]


@pytest.fixture
def asked(stage: Stage) -> Iterator[list[tuple[str, Any]]]:
    """What the database is asked from now on: the query, and its parameters."""
    asked: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, query: str, values: Any, *___: Any) -> None:
        if query.startswith("SELECT"):
            asked.append((query, values))

    event.listen(Engine, "before_cursor_execute", note)
    yield asked
    event.remove(Engine, "before_cursor_execute", note)


async def plans_of(stage: Stage, asked: list[tuple[str, Any]]) -> list[str]:
    """How SQLite looks for what it was asked."""
    return [
        await stage.stores.database.read(partial(_plan, query, values))
        for query, values in [*asked]
    ]


async def test_those_that_wait_are_not_found_among_those_that_are_over(
    stage: Stage, asked: list[tuple[str, Any]]
) -> None:
    """SQLite looks into the index of just these only where no parameter says which they are, and
    no other index seems shorter."""
    await stage.stores.turns.unfinished()
    await stage.stores.turns.unfinished(agent_id="agent-1")
    await stage.stores.turns.unfinished(room_id="!1:test")
    await stage.stores.turns.waiting(5, behind=3)
    plans = await plans_of(stage, asked)
    assert len(plans) == 4
    assert all("turns_open" in plan for plan in plans), plans


async def test_what_an_agent_works_on_is_not_found_by_sorting_all_it_ever_did(
    stage: Stage, asked: list[tuple[str, Any]]
) -> None:
    """Each call of a tool asks for it."""
    await stage.stores.turns.open_at(Place("agent-1", "!1:test"))
    waiting, last = await plans_of(stage, asked)
    assert "turns_open" in waiting
    assert "TEMP B-TREE" not in waiting + last


async def test_what_people_refer_to_is_not_looked_for_among_all_that_was_ever_asked(
    stage: Stage, asked: list[tuple[str, Any]]
) -> None:
    """Each reaction and each reply asks for it."""
    await stage.stores.approvals.asked_in("$event")
    (plan,) = await plans_of(stage, asked)
    assert "SCAN" not in plan


def _plan(query: str, values: Any, connection: Connection) -> str:
    steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values).mappings()
    return " ".join(str(step["detail"]) for step in steps)
