"""The tables, as SQLAlchemy Core metadata; `migrations/` brings a database to them.

Partial indexes stand in the migrations only: naming a dialect's options here would load
that dialect, 5 MB and 100 ms of every start.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# SQLite gives only INTEGER primary keys a rowid.
_Sequence = BigInteger().with_variant(Integer, "sqlite")


def _table(name: str, *columns: Column[Any] | UniqueConstraint, **options: Any) -> Table:
    return Table(name, metadata, *columns, **options)


meta = _table(
    "meta",
    Column("key", String, primary_key=True),
    Column("value", JSON, nullable=False),
)

transactions = _table(
    "transactions",
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("txn_id", String, nullable=False),
    Column("received_at", Float, nullable=False),
)

inbox = _table(
    "inbox",
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("event_id", String, nullable=False, unique=True),
    Column("room_id", String, nullable=False),
    Column("state", String, nullable=False),  # see store/inbox.py
    Column("received_at", Float, nullable=False),
    Column("event", JSON, nullable=False),
    sqlite_autoincrement=True,
)

agents = _table(
    "agents",
    Column("agent_id", String, primary_key=True),
    Column("runtime", String, nullable=False),
    Column("name", String, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("user_id", String, nullable=False, unique=True),
    Column("room_id", String, unique=True),
    Column("status", String, nullable=False),  # active | removed
    Column("applied", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
)

passwords = _table(
    "passwords",
    Column("agent_id", String, primary_key=True),
    Column("password", String, nullable=False),
)

conversations = _table(
    "conversations",
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("agent_id", String, nullable=False),
    Column("room_id", String, nullable=False),
    Column("thread_id", String, nullable=False),  # the thread's root event, "" outside of threads
    Column("conversation_id", String, nullable=False),
    Column("title", String, nullable=False),
    Column("current", Boolean, nullable=False),  # one for each agent, room and thread
    Column("created_at", Float, nullable=False),
    Column("used_at", Float, nullable=False),
)

turns = _table(
    "turns",
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("turn_id", String, nullable=False, unique=True),
    Column("kind", String, nullable=False, server_default="message"),
    Column("agent_id", String, nullable=False),  # "" where a command is for the bot
    Column("room_id", String, nullable=False),
    Column("thread_id", String, nullable=False, server_default=""),
    Column("event_id", String, nullable=False, index=True),
    Column("sender", String, nullable=False, index=True),
    Column("sent_at", Float, nullable=False),
    Column("prompt", Text),
    Column("reply_to", String),
    Column("attachment", JSON),
    Column("hops", Integer, nullable=False, server_default="0"),
    Column("status", String, nullable=False),  # queued | running | replying | done
    Column("outcome", String),
    Column("conversation_id", String),
    Column("runtime_state", JSON),
    Column("asked", Integer, nullable=False, server_default="0"),
    Column("amended_at", Float),  # when its message was last edited or redacted
    Column("joined_to", String),  # the turn that it was asked together with
    Column("revises", String),  # the turn whose answer its own takes the place of
    Column("arrived_at", Float),
    Column("given_at", Float),  # to its runtime, the last time
    Column("spoke_at", Float),  # the first words of its reply were there
    Column("finished_at", Float),
    sqlite_autoincrement=True,
)

outbox = _table(
    "outbox",
    Column("txn_id", String, primary_key=True),
    Column("turn_id", String, ForeignKey("turns.turn_id"), nullable=False, index=True),
    Column("seq", Integer, nullable=False),
    Column("kind", String, nullable=False),  # see store/outbox.py
    Column("part", Integer, nullable=False),
    Column("room_id", String, nullable=False),
    Column("sender", String, nullable=False),
    Column("content", JSON, nullable=False),
    Column("event_id", String, index=True),
    Column("failure", String),
)

approvals = _table(
    "approvals",
    Column("key", String, primary_key=True),
    Column("turn_id", String, ForeignKey("turns.turn_id"), nullable=False, index=True),
    Column("approval_id", String, nullable=False),
    Column("agent_id", String, nullable=False),
    Column("room_id", String, nullable=False),
    Column("thread_id", String, nullable=False),
    Column("requester", String, nullable=False),
    Column("tool", String, nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("always", Boolean, nullable=False),
    Column("prompt_txn", String, nullable=False),
    Column("status", String, nullable=False),  # see store/approvals.py
    Column("reason", Text, nullable=False),
    Column("decided_by", String, nullable=False),
    Column("asked_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)

room_settings = _table(
    "room_settings",
    Column("agent_id", String, primary_key=True),
    Column("room_id", String, primary_key=True),
    Column("paused", Boolean, nullable=False),
    Column("tool_activity", Boolean),  # unset: as configured
)

memberships = _table(
    "memberships",
    Column("room_id", String, primary_key=True),
    Column("user_id", String, primary_key=True),
    Column("direct", Boolean, nullable=False),
    Column("joined_at", Float, nullable=False),
)

speech = _table(
    "speech",
    Column("agent_id", String, primary_key=True),
    Column("last_run", String, nullable=False),
    Column("cursor", Text, nullable=False),
)

tokens = _table(
    "tokens",
    Column("token_id", String, primary_key=True),
    Column("digest", String, nullable=False),
    Column("agent_id", String, nullable=False),  # "" for the bot
    Column("scopes", JSON, nullable=False),
    Column("rooms", JSON, nullable=False),  # null: all
    Column("label", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("user_id", String, nullable=False, server_default=""),  # whose login, "" for none
)

audit = _table(
    "audit",
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("principal", String, nullable=False),
    Column("user_id", String, nullable=False),  # as whom it acted
    Column("door", String, nullable=False),  # agent | mcp | api
    Column("tool", String, nullable=False),
    Column("transaction_id", String),  # the caller's own, for calls that come again
    Column("fingerprint", String, nullable=False),  # of the arguments
    Column("room_id", String),
    Column("event_id", String),
    Column("outcome", String),  # ok or a kind of fault; unset while it runs
    Column("result", JSON),  # only of calls with a transaction_id
)

portals = _table(
    "portals",
    Column("room_id", String, primary_key=True),
    Column("name", String, nullable=False),  # of the bridge, in the configuration
    Column("protocol", String, nullable=False),
    Column("channel", String, nullable=False),
    Column("receiver", String, nullable=False),
    Column("direct", Boolean, nullable=False),
    Column("held", Boolean, nullable=False),
)

portal_ghosts = _table(
    "portal_ghosts",
    Column("user_id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("identifiers", JSON, nullable=False),
)

portal_contacts = _table(
    "portal_contacts",
    Column("name", String, primary_key=True),
    Column("contact", String, primary_key=True),
    Column("agent_id", String),  # unset: as configured, "": blocked
    Column("stopped", Boolean, nullable=False),
    Column("word", String, nullable=False),  # the keyword that was answered last
    Column("told_at", Float, nullable=False),
)

replicas = _table(
    "replicas",
    Column("replica_id", String, primary_key=True),
    Column("host", String, nullable=False),
    Column("ports", JSON, nullable=False),
    Column("version", String, nullable=False),
    Column("state", String, nullable=False),  # see app/seat.py
    Column("seen_at", Float, nullable=False),
)

leases = _table(
    "leases",
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("until", Float, nullable=False),
    UniqueConstraint("name", "epoch", name="leases_by_epoch"),
)
