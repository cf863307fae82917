"""What the tools of a bridge work with."""

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.matrix.event_bus import EventBus
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.operations.toolbox.guest_posting import GuestPosting
from letta_matrix.operations.toolbox.known_rooms import KnownRooms
from letta_matrix.operations.toolbox.membership import Entered, Membership
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import TurnStore


@part
class House:
    """One for all tools and callers. `event_bus` must be told of every event that is stored;
    `is_portal` tells of a room whether it stands for a talk on another network."""

    config: Config
    homeserver: Homeserver
    directory: AgentDirectory
    rooms: Rooms
    turns: TurnStore
    outbox: Outbox
    event_bus: EventBus
    on_entered: Entered
    is_portal: Callable[[str], bool]

    def __post_init__(self) -> None:
        self.known = KnownRooms(self.event_bus)
        self.guest_posting = GuestPosting(self.directory, self.rooms, self.turns)
        bot_user_id = self.config.bot_user_id
        self.membership = Membership(bot_user_id, self.directory, self.rooms, self.on_entered)
        self.locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def agent_names(self) -> dict[str, str]:
        """Agents' names by user id."""
        return {agent.user_id: agent.name for agent in self.directory.all()}
