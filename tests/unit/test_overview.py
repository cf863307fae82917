"""How all stands, as the dashboard is told it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import pytest
from sqlalchemy import text as sql
from sqlalchemy.dialects import sqlite
from tests.builders import asked_approval, message
from tests.stage import Stage
from tests.unit.api_stage import HEALTH, api_on, problem
from tests.waiting import Clock, within

from letta_matrix.access.principal import TOOL_SCOPES, Principal, Scope
from letta_matrix.access.refusals import Unauthorized
from letta_matrix.conversations.turn_queues import TurnQueues
from letta_matrix.doors.rest import overview
from letta_matrix.doors.rest.presence import Presence
from letta_matrix.doors.rest.services import Services
from letta_matrix.store import turn_history
from letta_matrix.store.outbox import OutboxEntry, OutboxKind
from letta_matrix.store.turns import Outcome, Turn

Json = dict[str, Any]


ADMIN = Principal("token:1", "", frozenset(Scope))


async def done(stage: Stage, name: str, holder: Principal = ADMIN, **wanted: object) -> Json:
    return dict(await stage.parts.toolbox.do(holder, name, wanted, door="api"))


async def shown(stage: Stage, holder: Principal = ADMIN) -> Json:
    return await done(stage, "overview.get", holder)


async def test_a_turn_has_its_times_in_their_order(stage: Stage) -> None:
    before = time.time()
    turn = await stage.run("hello")
    (told,) = (await shown(stage))["turns"]
    assert (told["turn_id"], told["outcome"]) == (turn.turn_id, "answered")
    times = [told[name] for name in ("arrived_at", "given_at", "finished_at")]
    times = [before, *times, time.time()]
    assert times == sorted(times)
    alone = await done(stage, "turns.get", turn_id=turn.turn_id)
    assert {name: alone[name] for name in told} == told


async def test_the_first_words_of_a_turn_are_timed_once(stage: Stage) -> None:
    turn, outbox = await stage.turn(), stage.stores.outbox
    kinds = (OutboxKind.TRACE, OutboxKind.MESSAGE, OutboxKind.MESSAGE)
    entries = [
        OutboxEntry(
            f"x{number}", turn.turn_id, number, kind, max(number - 1, 0), "!1:test", "@a:test", {}
        )
        for number, kind in enumerate(kinds)
    ]
    await outbox.freeze(entries)

    async def spoke_at() -> float | None:
        (told,) = (await shown(stage))["turns"]
        return told["spoke_at"]

    await outbox.confirm(entries[0], "$0")
    assert await spoke_at() is None
    await outbox.confirm(entries[1], "$1")
    first = await spoke_at()
    assert first is not None
    await outbox.confirm(entries[1], "$1")
    await outbox.confirm(entries[2], "$2")
    assert await spoke_at() == first


async def test_agents_stand_with_their_last_turn_and_what_waits(stage: Stage) -> None:
    await stage.run("first")
    last = await stage.run("second", message("second"))
    agents = {one["agent_id"]: one for one in (await shown(stage))["agents"]}
    assert agents["agent-1"]["last_turn"]["turn_id"] == last.turn_id
    assert agents["agent-2"]["last_turn"] is None
    assert {(one["running"], one["waiting"], one["trouble"]) for one in agents.values()} == {
        (0, 0, "")
    }


async def test_an_agent_at_work_is_counted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [await stage.turn(), await stage.turn("two", message("two"))]
    await stage.stores.turns.run(turns[0], {})

    def unfinished(_: TurnQueues) -> list[Turn]:
        return turns

    monkeypatch.setattr(TurnQueues, "unfinished", unfinished)
    agent = (await shown(stage))["agents"][0]
    assert (agent["running"], agent["waiting"]) == (1, 1)
    assert agent["last_turn"]["status"] == "queued"


async def test_a_failure_says_why(stage: Stage) -> None:
    failed = await stage.run("fail")
    assert await stage.outcome(failed) is Outcome.FAILED
    (told,) = (await shown(stage))["failures"]
    assert told["turn_id"] == failed.turn_id
    assert told["notices"]
    alone = await done(stage, "turns.get", turn_id=failed.turn_id)
    assert alone["notices"] == told["notices"]


async def test_all_who_look_share_one_look_until_something_is_written(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.run("fail")
    looks = list[object]()
    look = turn_history._lately

    def counted(*given: Any) -> turn_history.Lately:
        looks.append(given)
        return look(*given)

    monkeypatch.setattr(turn_history, "_lately", counted)
    first, *others = await asyncio.gather(*(shown(stage) for _ in range(3)))
    assert (len(looks), others) == (1, [first, first])
    turn = await stage.turn("two", message("two"))
    assert (await shown(stage))["turns"][0]["turn_id"] == turn.turn_id
    assert len(looks) == 2


async def test_no_look_goes_through_all_turns(stage: Stage) -> None:
    query = turn_history.last_of(["agent-1", "agent-2"])
    dialect = sqlite.dialect()
    whole = query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    explain = sql(f"EXPLAIN QUERY PLAN {whole}".replace(":", r"\:"))
    steps = await stage.stores.database.read(lambda db: list(db.execute(explain).mappings()))
    looks = [step["detail"] for step in steps if " turns" in step["detail"]]
    assert len(looks) == 3, looks
    assert all(look.startswith("SEARCH") for look in looks), looks
    assert sum("turns_by_agent (agent_id=? AND kind=?)" in look for look in looks) == 2, looks


async def test_approvals_wait_and_runtimes_say_whether_they_make_agents(stage: Stage) -> None:
    stores = stage.stores
    turn = await stage.turn()
    await stores.database.execute(stores.approvals.insert(asked_approval(turn, "k1")))
    told = await shown(stage)
    (approval,) = told["approvals"]
    assert (approval["key"], approval["shown"]) == ("k1", [{"name": "command", "text": "ls"}])
    assert told["runtimes"] == [{"name": "memory", "creates": True}]


async def test_a_token_for_some_rooms_sees_those(stage: Stage) -> None:
    await stage.run("hello")
    told = await shown(stage, replace(ADMIN, rooms=frozenset({"!2:test"})))
    assert [one["agent_id"] for one in told["agents"]] == ["agent-2"]
    assert told["turns"] == []


async def test_the_pace_counts_and_halves(stage: Stage) -> None:
    for text in ("one", "two", "fail"):
        await stage.run(text, message(text))
    pace = await done(stage, "overview.pace", seconds=60)
    assert (pace["answered"], pace["failed"], len(pace["spans"])) == (2, 1, 60)
    assert sum(span["answered"] + span["failed"] for span in pace["spans"]) == 3
    assert 0 <= pace["first_words"] <= pace["whole"]
    assert pace["spans"][0]["whole"] is None


async def test_the_pace_says_where_it_does_not_count_all(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [await stage.run(each, message(each)) for each in ("one", "two", "three")]
    pace = await done(stage, "overview.pace", seconds=60)
    assert (pace["answered"], pace["since"]) == (3, pace["spans"][0]["since"])
    monkeypatch.setattr(turn_history, "_MOST", 1)
    pace = await done(stage, "overview.pace", seconds=60)
    left_out = await stage.stores.turns.get(turns[1].turn_id)
    assert left_out is not None
    assert (pace["answered"], pace["since"]) == (1, left_out.finished_at)


async def test_that_is_for_admins(stage: Stage, subtests: pytest.Subtests) -> None:
    async with api_on(stage) as api:
        user = await api.token(TOOL_SCOPES)
        for path in ("", "/pace", "/events"):
            with subtests.test(path=path):
                answer = await api.call("GET", f"/api/v1/overview{path}", user)
                assert problem(answer) == (403, "forbidden")
        there = await api.call("GET", "/api/v1/overview")
        assert [one["agent_id"] for one in there.json()["agents"]] == ["agent-1", "agent-2"]


class Caller:
    """Somebody who reads the events, until their token is revoked."""

    revoked = False

    async def confirm(self) -> None:
        if self.revoked:
            raise Unauthorized("The token was revoked.")


def followed(stage: Stage, caller: Caller) -> AsyncGenerator[bytes]:
    class Parts:
        toolbox = stage.parts.toolbox
        stopping = asyncio.Event()

        def health(self) -> Mapping[str, object]:
            return HEALTH

    return overview._events(cast("Presence", caller), cast("Services", Parts()), ADMIN)


async def read(events: AsyncGenerator[bytes], *names: str) -> set[str]:
    """Reads until all of these were told; the names of all that were."""
    seen = set[str]()
    while not seen.issuperset(names):
        block = await anext(events)
        seen.add(block.split(b"\n")[0].removeprefix(b"event: ").decode())
    return seen


async def test_what_changes_is_told_again(stage: Stage, clock: Clock) -> None:
    clock.stop()
    caller = Caller()
    async with aclosing(followed(stage, caller)) as events:
        begin = {"health", "agents", "runtimes", "turns", "failures", "approvals"}
        assert await within(read(events, *begin)) == begin
        await stage.turn()
        changed = await clock.through(read(events, "agents", "turns"))
        assert changed - {"health"} == {"agents", "turns"}
        assert await clock.through(read(events, "health")) == {"health"}
        caller.revoked = True
        assert "error" in await clock.through(read(events, "error"))


def test_of_agents_those_that_changed_are_told() -> None:
    news, quiet = overview.News(), {"agent_id": "b", "running": 0}
    first = {"agents": [{"agent_id": "a", "running": 0}, quiet]}
    assert news.of(first, 0) == [("agents", first["agents"])]
    assert news.of(first, 1) == []
    busy = {"agent_id": "a", "running": 1}
    assert news.of({"agents": [busy, quiet]}, 2) == [("agents", [busy])]


@pytest.mark.parametrize("agent_id", ["agents", "health", "turns"])
def test_an_agent_may_be_called_like_a_part(agent_id: str) -> None:
    news = overview.News()
    whole = {"health": {"status": "ok"}, "agents": [{"agent_id": agent_id}], "turns": []}
    assert dict(news.of(whole, 0)) == whole
    assert news.of(whole, 1) == []


def test_figures_alone_are_told_with_the_next_beat() -> None:
    news = overview.News()
    told = [
        bool(news.of({"health": {"status": "ok", "uptime_seconds": now}}, now)) for now in range(12)
    ]
    assert [now for now, was_told in enumerate(told) if was_told] == [0, 5, 10]
    assert news.of({"health": {"status": "degraded", "uptime_seconds": 12}}, 12)


def test_nobody_is_told_of_agents_where_there_are_none() -> None:
    news = overview.News()
    assert news.of({"agents": []}, 0) == [("agents", [])]
    assert news.of({"agents": []}, 1) == []
