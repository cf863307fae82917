"""Which of several replicas acts, and which there are. All times are the database's own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Connection, Update, delete, func, null, select, text, update
from sqlalchemy.exc import IntegrityError

from letta_matrix.store.database import HEAD, Database
from letta_matrix.store.engine import REVISION
from letta_matrix.store.fence import ACTIVE
from letta_matrix.store.rows import record_of, replacing, row_of
from letta_matrix.store.schema import agents, leases, meta, replicas

FORGOTTEN = 3600.0
"""Seconds after which a replica that is not heard of is no more listed."""

_SETTINGS = "replica_settings"
"""The key of `meta` with the settings of who has the lease."""

_REACHES = {True: ", reaches the homeserver", False: ", does not reach the homeserver"}
"""What stands behind the state of one that says so. With a column for it none would act beside
replicas of an earlier release."""

# Who stops in the midst of a batch (`executemany`, a pipeline) is not idle in a transaction: no
# timeout of the server ends that.
_END_STOPPED = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity AS session "
    "WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid() "
    "AND wait_event_type = 'Client' AND state_change < clock_timestamp() - interval '1 second' "
    "AND EXISTS (SELECT FROM pg_locks AS held WHERE held.pid = session.pid "
    "AND held.relation = to_regclass('leases') AND held.mode <> 'AccessShareLock')"
)
"""Ends the sessions that have locked something of the leases, and wait for their replica for
longer than any that goes on."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One process on the database. `ports` are where others reach it, by what they are for;
    `seen` is how many seconds ago it was heard of, `reaches` whether it reaches the homeserver,
    None where it does not say."""

    replica_id: str
    host: str
    ports: Mapping[str, int]
    version: str
    state: str
    seen: float = 0.0
    reaches: bool | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """Who has it, for how many more seconds (negative: it has ended), and the how manieth holder
    that is."""

    holder: str
    epoch: int
    left: float


@dataclass(frozen=True, slots=True)
class Beat:
    """Whose the lease is, None for nobody's, which revision the schema has, on which homeserver
    the agents live, "" where there are none, and which settings who has it goes by."""

    lease: Lease | None
    schema: str
    domain: str
    settings: Mapping[str, str]


class Leases:
    """The `leases` and `replicas` tables, for a replica of the homeserver `domain`, whose
    `settings` the others are told when it takes the lease."""

    def __init__(self, database: Database, domain: str, settings: Mapping[str, str]) -> None:
        self._database = database
        self._domain = domain
        self._told = replacing(meta, {"key": _SETTINGS, "value": dict(settings)})

    async def beat(self, replica: Replica, seconds: float | None, epoch: int = 0) -> Beat:
        """Tell that a replica is there, and have it hold the lease for `seconds` from now if
        nobody else does, and the schema is the one it knows (None: it does not want it). What it
        has in `epoch` it keeps in that; else it is another one. It gets none where the agents live
        on another homeserver and another replica was heard of. Raises StoreUnavailable."""

        def work(db: Connection) -> Beat:
            _note(db, replica)
            schema, domain = str(db.execute(REVISION).scalar()), _domain(db)
            fits = epoch or domain in ("", self._domain) or not _others(db, replica.replica_id)
            if seconds is not None and schema == HEAD and fits:
                is_new = _take(db, replica.replica_id, epoch, seconds)
                # One by one, as each has the lease's row until its transaction ends.
                for told in self._told if is_new else ():
                    db.execute(told)
            settings = db.execute(select(meta.c.value).where(meta.c.key == _SETTINGS)).scalar()
            return Beat(_lease(db), schema, domain, settings or {})

        return await self._database.write(work)

    async def release(self, replica_id: str) -> None:
        """A replica leaves its lease to another at once. Raises StoreUnavailable."""
        await self._database.execute(_ended(replica_id))

    async def let_go(self, replica_id: str) -> None:
        """A replica is gone: another may have its lease at once. Raises StoreUnavailable."""
        gone = delete(replicas).where(replicas.c.replica_id == replica_id)
        await self._database.execute(_ended(replica_id), gone)

    async def all(self) -> list[Replica]:
        """The replicas that were heard of in the last hour, by their ids."""
        seen = (now() - replicas.c.seen_at).label("seen")
        heard = replicas.c.seen_at > now() - FORGOTTEN
        query = select(replicas, seen, null().label("reaches")).where(heard)
        found = await self._database.records(Replica, query.order_by(replicas.c.replica_id))
        return [_told(one) for one in found]


def now() -> ColumnElement[float]:
    """The database's time, as it runs on within a transaction."""
    return func.extract("epoch", func.clock_timestamp()).cast(leases.c.until.type)


def _ended(holder: str) -> Update:
    return update(leases).where(leases.c.holder == holder).values(until=now())


def _note(db: Connection, replica: Replica) -> None:
    words = "" if replica.reaches is None else _REACHES[replica.reaches]
    values = {**row_of(replica, "seen", "reaches"), "seen_at": now()}
    values["state"] = replica.state + words
    here = replicas.c.replica_id == replica.replica_id
    if db.execute(update(replicas).where(here).values(**values)).rowcount:
        return
    db.execute(replicas.insert().values(**values))
    db.execute(delete(replicas).where(replicas.c.seen_at < now() - FORGOTTEN))


def _told(one: Replica) -> Replica:
    for reaches, words in _REACHES.items():
        if one.state.endswith(words):
            return replace(one, state=one.state.removesuffix(words), reaches=reaches)
    return one


def _domain(db: Connection) -> str:
    # They change their homeserver together.
    user_id = db.execute(select(agents.c.user_id).limit(1)).scalar()
    return "" if user_id is None else str(user_id).partition(":")[2]


def _others(db: Connection, replica_id: str) -> bool:
    """Whether another replica was heard of in the last hour, and has not ended by itself."""
    heard = (replicas.c.replica_id != replica_id) & (replicas.c.seen_at > now() - FORGOTTEN)
    return db.execute(select(replicas.c.replica_id).where(heard).limit(1)).scalar() is not None


def _take(db: Connection, holder: str, epoch: int, seconds: float) -> bool:
    """Whether it was taken anew, and not renewed or left."""
    lease = _lease(db)
    # Not of who is late with a renewal, and goes on: its own session may have waited as long.
    mine = lease is not None and (lease.holder, lease.epoch) == (holder, epoch)
    if lease is None or (lease.left < 0 and not mine):
        db.execute(_END_STOPPED)
    named, until = leases.c.name == ACTIVE, now() + seconds
    # The epoch is not named here: a renewal is to change no column of a key.
    ours = leases.c.holder == holder
    renewed = update(leases).where(named, ours, leases.c.epoch == epoch).values(until=until)
    if db.execute(renewed).rowcount:
        return False
    free = named & (ours | (leases.c.until < now()))
    # First: waiting for the holder's last transaction takes time, which is not to be of the lease.
    if db.execute(select(leases.c.name).where(free).with_for_update()).scalar() is not None:
        taken = update(leases).where(named)
        db.execute(taken.values(holder=holder, epoch=leases.c.epoch + 1, until=until))
        return True
    if lease is not None:
        return False
    first = leases.insert().values(name=ACTIVE, holder=holder, epoch=1, until=now() + seconds)
    try:
        with db.begin_nested():
            db.execute(first)
    except IntegrityError:
        # Another was the first in the same moment.
        return False
    return True


def _lease(db: Connection) -> Lease | None:
    left = (leases.c.until - now()).label("left")
    row = db.execute(select(leases, left).where(leases.c.name == ACTIVE)).mappings().one_or_none()
    return None if row is None else record_of(Lease, row)
