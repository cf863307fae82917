"""Messages that people edit or redact: what becomes of the turns they started."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Update, case, or_, select, update

from letta_matrix.store.rows import record_of
from letta_matrix.store.schema import turns
from letta_matrix.store.turns import Outcome, Turn, TurnKind, TurnStatus


@dataclass(frozen=True, slots=True)
class Amendment:
    """A sender's later word on a message of theirs: its newest text, file and whole `content`, or,
    `withdrawn`, nothing. `at` is when it was said (Unix time)."""

    event_id: str
    room_id: str
    sender: str
    at: float
    prompt: str | None = None
    attachment: Mapping[str, object] | None = None
    withdrawn: bool = False
    content: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Amended:
    """The turns that an amendment changed; `before` is how they stood (status and prompt)."""

    amendment: Amendment
    turns: list[Turn]
    before: Mapping[str, tuple[TurnStatus, str | None]]


def amend(connection: Connection, amendment: Amendment) -> Amended:
    """Let an amendment take effect on the turns of its message, in the transaction that stores
    it. Who waits is asked the newest text, or not at all; who is being answered is stopped by a
    redaction; and no text that was redacted is kept."""
    mine = (turns.c.event_id == amendment.event_id) & (turns.c.sender == amendment.sender)
    mine &= (turns.c.kind == TurnKind.MESSAGE) & (turns.c.room_id == amendment.room_id)
    # Those that ask it anew have its words too.
    copies = turns.c.revises.in_(select(turns.c.turn_id).where(mine))
    about = or_(mine, copies)
    if not amendment.withdrawn:
        # What is looked for after an outage can come later than what was said after it.
        about &= or_(turns.c.amended_at.is_(None), turns.c.amended_at <= amendment.at)
        about &= turns.c.outcome.is_distinct_from(str(Outcome.WITHDRAWN))
    query = select(turns).where(about).order_by(turns.c.seq)
    found = [record_of(Turn, row) for row in connection.execute(query).mappings()]
    if found:
        connection.execute(_change(amendment).where(about))
    heads = [turn.joined_to for turn in found if turn.joined_to is not None]
    if amendment.withdrawn and heads:
        running = turns.c.turn_id.in_(heads) & (turns.c.status == TurnStatus.RUNNING)
        stopped = update(turns).where(running).values(outcome=str(Outcome.STOPPED))
        connection.execute(stopped)
    before = {turn.turn_id: (turn.status, turn.prompt) for turn in found}
    for turn in found:
        turn.prompt, turn.attachment = amendment.prompt, amendment.attachment
        turn.amended_at = amendment.at
    return Amended(amendment, found, before)


def _change(amendment: Amendment) -> Update:
    values: dict[str, object] = {"amended_at": amendment.at, "prompt": amendment.prompt}
    attachment = amendment.attachment
    values["attachment"] = dict(attachment) if attachment is not None else None
    if amendment.withdrawn:
        ends = {TurnStatus.QUEUED: Outcome.WITHDRAWN, TurnStatus.RUNNING: Outcome.STOPPED}
        ended = {str(status): str(outcome) for status, outcome in ends.items()}
        values["outcome"] = case(ended, value=turns.c.status, else_=turns.c.outcome)
    return update(turns).values(**values)
