"""Who of us is in a room, and whom a message is for, as far as it says so. Pure functions."""

from collections.abc import Collection
from dataclasses import dataclass

from letta_matrix.matrix.events import Event, RawEvent
from letta_matrix.matrix.mentions import mentioned
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.rooms import Rooms


@dataclass(frozen=True, slots=True)
class Refers:
    """What a message refers to, "" for nothing or what is not known.

    `root_by` wrote the root of the thread it stands in, `replied_to` what it replies to;
    `reply_thread` is the root of the thread that the latter stands in.
    """

    root_by: str = ""
    replied_to: str = ""
    reply_thread: str = ""


NOTHING = Refers()


def ours_in(room_id: str, directory: AgentDirectory, rooms: Rooms) -> list[str]:
    """Our users that are in a room, first the agent whose own it is."""
    owner = directory.by_room(room_id)
    return [*([owner.user_id] if owner else []), *rooms.ours_in(room_id)]


def is_for_a_person(event: RawEvent, people: Collection[str], refers: Refers) -> bool:
    """Whether it mentions another person of those in its room, or replies to one."""
    others = set(people) - {str(event.get("sender"))}
    if not others:
        return False
    return refers.replied_to in others or bool(mentioned(Event(event).content, others))
