"""Where an agent talks."""

from typing import NamedTuple


class Place(NamedTuple):
    """An agent in a room's main timeline (`thread_id` ""), or in a thread of it.

    `thread_id` is the event id of the thread's root (Matrix spec: Threading).
    """

    agent_id: str
    room_id: str
    thread_id: str = ""
