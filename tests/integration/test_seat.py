"""Which replica acts, by leases in a real PostgreSQL."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from sqlalchemy import URL, Connection, delete, select, text, update
from structlog.testing import capture_logs
from tests.builders import agent, config_for
from tests.waiting import eventually, settled, within

from letta_matrix.app import seat as seat_module
from letta_matrix.app.seat import RUNNING, STANDBY, Seat
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import HEAD, Database, StoreUnavailable
from letta_matrix.store.faults import LeaseLost
from letta_matrix.store.fence import Fence
from letta_matrix.store.leases import Replica, now
from letta_matrix.store.meta import Meta
from letta_matrix.store.schema import leases, replicas

NewSeat = Callable[..., Seat]
_BEFORE = text("UPDATE alembic_version SET version_num = '0009'")
_NEWEST = text(f"UPDATE alembic_version SET version_num = '{HEAD}'")


@pytest.fixture
async def new_seat(postgres_url: URL, tmp_path: Path) -> AsyncGenerator[NewSeat]:
    """Makes the seats of replicas; a lease that nobody renews lasts for the whole test."""
    made: list[Seat] = []

    def make(domain: str = "test", speed: str = "1s", **how: bool) -> Seat:
        settings = {
            "url": f"postgresql://bridge@127.0.0.1:{postgres_url.port}/{postgres_url.database}",
            "password": postgres_url.password,
        }
        replica = {"lease": "10m", "address": f"bridge-{len(made) + 1}"}
        home = {"url": "http://127.0.0.1:9", "domain": domain}
        sections = {"homeserver": home, "database": settings, "replica": replica}
        config = config_for(tmp_path, **sections, conversations={"edit_interval": speed})
        made.append(Seat(config, **how))
        return made[-1]

    yield make
    for seat in made:
        await seat.close()


@pytest.fixture
async def database(postgres_url: URL) -> AsyncGenerator[Database]:
    database = Database(postgres_url)
    yield database
    await database.close()


def replicas_in(told: dict[str, object]) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", told["replicas"])


async def lapse(database: Database) -> None:
    """The lease ends, as if its time were up."""
    await database.execute(update(leases).values(until=now() - 1))


async def test_who_is_first_acts_and_the_others_know_it(new_seat: NewSeat) -> None:
    first, second = new_seat(), new_seat()
    await first.open()
    await second.open()
    await first.look()
    assert (first.holds, second.holds) == (True, False)
    assert first.active is None, "nobody is led to themselves"
    assert second.active is not None
    assert second.active.replica_id == first.replica_id
    assert second.active.host == "bridge-1"
    assert [one.replica_id for one in first.replicas] == sorted(
        (first.replica_id, second.replica_id)
    )


async def test_a_look_under_way_does_not_bring_back_what_is_let_go(
    new_seat: NewSeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit that nobody knows of may be of the epoch before; none may follow in it."""
    seat = new_seat()
    await seat.open()
    await seat.look()
    before, goes_on, kept = seat.epoch, asyncio.Event(), vars(seat)["_leases"]
    look_at_all = kept.all

    async def later() -> list[Replica]:
        await goes_on.wait()
        return await look_at_all()

    monkeypatch.setattr(kept, "all", later)
    looking = asyncio.create_task(seat.look())
    await settled(looking)
    seat.stand_by()
    await seat.let_go(for_good=False)
    seat.wants = True
    goes_on.set()
    await within(looking)
    assert not seat.holds
    assert not seat.won.is_set()
    await seat.look()
    assert seat.epoch == before + 1


async def test_of_many_at_once_one_acts(new_seat: NewSeat) -> None:
    seats = [new_seat() for _ in range(5)]
    await asyncio.gather(*(seat.open() for seat in seats))
    assert sum(seat.holds for seat in seats) == 1


async def test_a_lease_that_has_ended_is_taken_with_a_new_epoch(
    new_seat: NewSeat, database: Database
) -> None:
    first, second = new_seat(), new_seat()
    await first.open()
    await second.open()
    await lapse(database)
    await second.look()
    assert second.holds
    assert second.epoch == first.epoch + 1
    await first.look()
    assert first.lost.is_set()
    assert not first.holds


async def test_a_lease_that_has_ended_and_was_not_taken_goes_on(
    new_seat: NewSeat, database: Database
) -> None:
    seat = new_seat()
    await seat.open()
    await lapse(database)
    await seat.look()
    assert seat.holds
    assert seat.epoch == 1
    assert not seat.lost.is_set()


async def test_who_has_lost_it_knows_at_once_who_acts(
    new_seat: NewSeat, database: Database
) -> None:
    first, second = await two(new_seat)
    await lapse(database)
    await second.look()
    await first.look()
    first.stand_by()
    assert first.active is not None
    assert first.active.replica_id == second.replica_id
    assert first.told()["epoch"] == second.epoch
    await lapse(database)
    await first.look()
    first.stand_by()
    assert (first.active, first.told()["epoch"]) == (None, 0)


@pytest.mark.parametrize(
    ("seconds", "left", "states"),
    [(300, range(200, 301), {"active", "standby"}), (601, range(1), {"silent"})],
)
async def test_what_is_known_grows_old(
    new_seat: NewSeat,
    monkeypatch: pytest.MonkeyPatch,
    seconds: int,
    left: range,
    states: set[str],
) -> None:
    acts, other = await two(new_seat)
    await acts.look()
    await other.look()
    later = seat_module.since_boot() + seconds
    monkeypatch.setattr(seat_module, "since_boot", lambda: later)
    told = other.told()
    assert int(cast("float", told["lease_seconds_left"])) in left
    assert {one["state"] for one in replicas_in(told)} == states
    assert all(one["seen_seconds_ago"] >= seconds for one in replicas_in(told))


async def test_whose_lease_has_ended_is_not_shown_to_act(
    new_seat: NewSeat, database: Database
) -> None:
    acts, other = await two(new_seat)
    await acts.look()
    await lapse(database)
    other.wants = False
    await other.look()
    states = {one["replica"]: one["state"] for one in replicas_in(other.told())}
    assert states == {acts.replica_id: "silent", other.replica_id: "standby"}


async def test_what_acted_before_another_did_is_over_though_the_seat_is_taken_again(
    new_seat: NewSeat, database: Database
) -> None:
    first, second = new_seat(), new_seat()
    await first.open()
    await second.open()
    for seat in (second, first):
        await lapse(database)
        await seat.look()
    assert first.lost.is_set()
    assert not first.holds
    first.stand_by()
    await first.look()
    assert first.holds
    assert first.epoch > 3


async def test_who_lets_go_is_followed_at_once(new_seat: NewSeat) -> None:
    first, second = new_seat(), new_seat()
    await first.open()
    await second.open()
    await first.let_go()
    await second.look()
    assert second.holds
    assert [one.replica_id for one in second.replicas] == [second.replica_id]


async def test_nothing_is_written_by_who_held_it_before(
    new_seat: NewSeat, database: Database, postgres_url: URL
) -> None:
    first, second = new_seat(), new_seat()
    await first.open()
    fenced = Database(postgres_url, first.fence())
    try:
        await Meta(fenced).set("who", "first")
        await second.open()
        await lapse(database)
        await second.look()
        with pytest.raises(LeaseLost):
            await Meta(fenced).set("who", "first, late")
        assert await Meta(fenced).get("who") == "first"
    finally:
        await fenced.close()


async def test_nobody_takes_over_in_the_midst_of_a_transaction(
    new_seat: NewSeat, database: Database, postgres_url: URL
) -> None:
    """And a renewal does not wait for one."""
    first, second = new_seat(), new_seat()
    await first.open()
    await second.open()
    begun, goes_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    fenced = Database(postgres_url, first.fence())

    def slow(db: Connection) -> float:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result()
        return float(db.execute(select(now())).scalar_one())

    writing = asyncio.create_task(fenced.write(slow))
    await begun.wait()
    await first.look()
    assert first.holds
    await lapse(database)
    taking = asyncio.create_task(second.look())
    waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    while not await database.read(lambda db: db.execute(waits).scalar()):
        assert not taking.done()
    goes_on.set()
    ended_at = await writing
    await taking
    assert second.holds
    # It has all of its time: what was waited for is not of it.
    assert await database.value(select(leases.c.until >= ended_at + 600))
    await fenced.close()


async def test_who_stops_in_the_midst_of_a_batch_keeps_nobody_out(
    new_seat: NewSeat, database: Database, postgres_url: URL
) -> None:
    first, second = new_seat(), new_seat()
    await first.open()
    await second.open()
    await lapse(database)
    to = postgres_url.translate_connect_args(username="user", database="dbname")
    with psycopg.connect(**to) as stopped:
        waits = text(
            "SELECT state = 'active' AND wait_event = 'ClientRead' "
            "AND state_change < clock_timestamp() - interval '1 second' "
            f"FROM pg_stat_activity WHERE pid = {stopped.info.backend_pid}"
        )

        async def is_old() -> bool:
            return bool(await database.read(lambda db: db.execute(waits).scalar()))

        with contextlib.suppress(psycopg.OperationalError), stopped.pipeline():
            stopped.execute("SELECT * FROM leases FOR KEY SHARE")
            await eventually(is_old, what="the server waits for the rest of it")
            await second.look()
            assert second.holds


async def test_who_is_late_with_a_renewal_goes_on_in_its_own_session(
    new_seat: NewSeat, database: Database, postgres_url: URL
) -> None:
    """Where a machine has stood still, both have: the renewal, and what was being written."""
    seat = new_seat()
    await seat.open()
    fenced, goes_on = Database(postgres_url, seat.fence()), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(db: Connection) -> None:
        db.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result()
        db.execute(select(now()))

    writing = asyncio.create_task(fenced.write(slow))
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' "
        "AND state_change < clock_timestamp() - interval '1 second' "
        "AND datname = current_database()"
    )

    async def is_old() -> bool:
        return bool(await database.read(lambda db: db.execute(waits).scalar()))

    await eventually(is_old, what="the server waits for the rest of it")
    await lapse(database)
    await seat.look()
    assert seat.holds
    goes_on.set()
    await writing
    await fenced.close()


async def test_what_is_unsure_waits_until_it_is_sure(new_seat: NewSeat, postgres_url: URL) -> None:
    seat = new_seat()
    await seat.open()
    sure = asyncio.Event()

    async def until_sure() -> float:
        await sure.wait()
        return 0.0

    fence = Fence(seat.replica_id, seat.epoch, until_sure)
    fenced, open_to_all = Database(postgres_url, fence), Meta(seat.database)
    writing = asyncio.create_task(Meta(fenced).set("who", "me"))

    async def is_written() -> bool:
        return await open_to_all.get("who") == "me"

    await eventually(is_written, what="it is written")
    assert not writing.done()
    sure.set()
    await writing
    await fenced.close()


async def test_a_schema_of_a_later_version_is_left_to_others(
    new_seat: NewSeat, database: Database
) -> None:
    first, second = new_seat(), new_seat()
    await first.open()
    await second.open()
    await database.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await first.look()
    assert first.lost.is_set()
    assert first.trouble is not None
    assert "newer letta-matrix" in first.trouble.says
    await lapse(database)
    await second.look()
    assert not second.holds


@pytest.mark.parametrize("at_once", [False, True])
async def test_an_older_schema_waits_for_who_knows_it(
    new_seat: NewSeat, database: Database, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    older, newer = new_seat(), new_seat(migrates=at_once)
    await older.open()
    await database.execute(_BEFORE)

    async def migrate() -> None:
        await database.execute(_NEWEST)

    monkeypatch.setattr(seat_module, "_WITH_REPLICAS", "0001")
    monkeypatch.setattr(newer.database, "migrate", migrate)
    await newer.open()
    if not at_once:
        assert newer.trouble is not None
        assert "run --migrate" in newer.trouble.remedy
        assert await database.revision() != HEAD
        await older.let_go()
        await newer.look()
    assert await database.revision() == HEAD
    await lapse(database)
    await newer.look()
    assert newer.holds


@pytest.fixture
async def at_test(database: Database) -> None:
    """There is an agent, on the homeserver `test`."""
    await AgentDirectory(database).reserve([agent()])


async def test_who_is_of_another_homeserver_never_acts_after_others(
    new_seat: NewSeat, database: Database, at_test: None
) -> None:
    """It would move every agent there."""
    seat, stranger = new_seat(), new_seat("other")
    await seat.open()
    with capture_logs() as logs:
        await stranger.open()
        await stranger.look()
    assert stranger.trouble is not None
    (told,) = [one["reason"] for one in logs if one["log_level"] == "error"]
    assert str(stranger.trouble) == told
    assert "live on test, and homeserver.domain of this replica is other" in told
    await lapse(database)
    await stranger.look()
    await seat.let_go()
    await stranger.look()
    assert not stranger.won.is_set()


async def test_who_is_there_alone_may_be_of_another_homeserver(
    new_seat: NewSeat, at_test: None
) -> None:
    """It has another name from now on."""
    before, seat, late = new_seat(), new_seat("other"), new_seat()
    await before.open()
    await before.let_go()
    await seat.open()
    await late.open()
    for _ in range(2):
        await seat.look()
    assert (seat.holds, seat.trouble) == (True, None)


async def test_who_stands_by_with_other_settings_knows_it(
    new_seat: NewSeat, database: Database
) -> None:
    acts, same, other = new_seat(), new_seat(), new_seat(speed="2s")
    await acts.open()
    await same.open()
    with capture_logs() as logs:
        await other.open()
        await other.look()
    assert (acts.differs, same.differs, other.differs) == ([], [], ["conversations"])
    (told,) = [one["sections"] for one in logs if one["log_level"] == "warning"]
    assert told == "conversations"
    await lapse(database)
    await other.look()
    await acts.look()
    await same.look()
    assert other.holds
    assert (other.differs, same.differs) == ([], ["conversations"])


async def test_who_is_killed_is_followed_by_nobody_of_another_homeserver(
    new_seat: NewSeat, database: Database, at_test: None
) -> None:
    seat, stranger = new_seat(), new_seat("other")
    await seat.open()
    await lapse(database)
    await database.execute(update(replicas).values(seen_at=now() - 600))
    await stranger.open()
    await stranger.look()
    assert not stranger.won.is_set()


async def test_who_was_killed_counts_for_an_hour(
    new_seat: NewSeat, database: Database, at_test: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody else comes, the homeserver has another name from now on."""
    killed, seat = new_seat(), new_seat("other")
    await killed.open()
    await lapse(database)
    await database.execute(update(replicas).values(seen_at=now() - 600))
    await seat.open()
    assert seat.trouble is not None
    assert "(one that was killed counts for an hour)" in seat.trouble.remedy
    await database.execute(delete(replicas).where(replicas.c.replica_id == killed.replica_id))
    began = seat_module.since_boot()
    for seconds, is_over in ((2900, False), (3010, True)):
        monkeypatch.setattr(seat_module, "since_boot", lambda at=began + seconds: at)
        await seat.look()
        assert (seat.trouble is None) is is_over
    await seat.look()
    assert seat.holds


async def test_who_ends_by_itself_counts_for_an_hour_from_then_on(
    new_seat: NewSeat, at_test: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, stranger, began = new_seat(), new_seat("other"), seat_module.since_boot()
    await other.open()
    for seconds, is_foreign in ((0, True), (3000, True), (6500, True), (6610, False)):
        monkeypatch.setattr(seat_module, "since_boot", lambda at=began + seconds: at)
        await stranger.look()
        assert (stranger.trouble is not None) is is_foreign
        assert not stranger.holds
        if seconds == 3000:
            await other.let_go()


@dataclass
class Way:
    """One that was found to lead to the homeserver for a while, or not to, or neither."""

    reaches: bool | None


def looked(*ways: tuple[Seat, bool | None]) -> None:
    for seat, reaches in ways:
        seat.way = Way(reaches)  # pyright: ignore[reportAttributeAccessIssue]


async def two(new_seat: NewSeat) -> tuple[Seat, Seat]:
    """One that acts, and one that stands by."""
    acts, other = new_seat(), new_seat()
    await acts.open()
    await other.open()
    acts.state = RUNNING
    return acts, other


async def test_who_is_cut_off_makes_way_for_one_who_is_not(new_seat: NewSeat) -> None:
    acts, other = await two(new_seat)
    looked((acts, False), (other, True))
    await other.look()
    await acts.look()
    assert acts.outdone.is_set()
    # It ends in its own time, and holds the seat until then.
    await other.look()
    await acts.look()
    assert (acts.holds, other.holds) == (True, False)
    await acts.let_go(for_good=False)
    acts.wants, acts.state = True, STANDBY
    await acts.look()
    assert not acts.holds
    await other.look()
    assert (other.holds, other.epoch) == (True, 2)
    other.state = RUNNING
    for seat in (acts, other):
        await seat.look()
        assert not seat.outdone.is_set()
    reached = {one["replica"]: one["reaches_homeserver"] for one in replicas_in(other.told())}
    assert reached == {acts.replica_id: False, other.replica_id: None}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(False, False), (False, None), (None, True), (True, True), (True, False)],
)
async def test_who_acts_goes_on_where_no_other_is_better(
    new_seat: NewSeat, ours: bool | None, theirs: bool | None
) -> None:
    acts, other = await two(new_seat)
    looked((acts, ours), (other, theirs))
    await other.look()
    await acts.look()
    assert not acts.outdone.is_set()
    assert acts.holds


@pytest.mark.parametrize("why", ["silent", "has let go", "of another schema"])
async def test_nobody_makes_way_for_one_who_could_not_act(
    new_seat: NewSeat, database: Database, why: str
) -> None:
    acts, other = await two(new_seat)
    looked((acts, False), (other, True))
    await other.look()
    if why == "silent":
        theirs = replicas.c.replica_id == other.replica_id
        await database.execute(update(replicas).where(theirs).values(seen_at=now() - 601))
    elif why == "has let go":
        await other.let_go(for_good=False)
        await other.look()
    else:
        await database.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        await other.look()
        await database.execute(_NEWEST)
        await other.look()
        # By now it knows better, and says so the next time.
    await acts.look()
    assert not acts.outdone.is_set()


@pytest.mark.parametrize(
    ("ours", "theirs", "is_left"),
    [(False, True, True), (None, True, True), (True, True, False), (False, False, False)],
)
async def test_a_free_seat_is_left_to_who_reaches_the_homeserver(
    new_seat: NewSeat, database: Database, ours: bool | None, theirs: bool | None, is_left: bool
) -> None:
    acts, other = await two(new_seat)
    looked((acts, ours), (other, theirs))
    await other.look()
    await acts.look()
    await acts.let_go(for_good=False)
    acts.wants, acts.state = True, STANDBY
    await acts.look()
    assert acts.holds is not is_left
    await other.look()
    assert other.holds is is_left


async def test_an_earlier_release_beside_it_understands_and_is_not_taken_for_more(
    new_seat: NewSeat, database: Database
) -> None:
    acts, other = await two(new_seat)
    looked((acts, False), (other, True))
    await other.look()
    theirs = replicas.c.replica_id == other.replica_id
    # As that one writes it.
    await database.execute(update(replicas).where(theirs).values(state="standby"))
    await acts.look()
    assert not acts.outdone.is_set()
    # By this it knows whether what reaches it can be passed on.
    ours = replicas.c.replica_id == acts.replica_id
    assert await database.value(select(replicas.c.state).where(ours)) == "active"


async def test_an_outage_is_told_and_ends(
    new_seat: NewSeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    seat = new_seat()
    await seat.open()
    write = seat.database.write

    async def fails(_work: object) -> None:
        raise StoreUnavailable("the server is away")

    monkeypatch.setattr(seat.database, "write", fails)
    await seat.look()
    assert seat.trouble is not None
    # By its own clock it is sure until the lease has nearly ended.
    assert seat.holds
    monkeypatch.setattr(seat.database, "write", write)
    await seat.look()
    assert seat.trouble is None
