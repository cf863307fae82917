"""Where an agent talks."""

from typing import NamedTuple

from sqlalchemy import ColumnElement, Table


class Place(NamedTuple):
    """An agent in a room's main timeline (`thread_id` ""), or in a thread of it.

    `thread_id` is the event id of the thread's root (Matrix spec: Threading).
    """

    agent_id: str
    room_id: str
    thread_id: str = ""


def at(table: Table, place: Place) -> list[ColumnElement[bool]]:
    """What holds for the rows of a place."""
    return [table.c[name] == value for name, value in place._asdict().items()]
