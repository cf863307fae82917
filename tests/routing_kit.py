"""What routing goes by, without a database."""

from collections.abc import Iterable, Mapping

from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.places import Place
from letta_matrix.store.portals import Contact, Portal, PortalBook
from letta_matrix.store.rooms import Rooms, RoomSettings


class Known(AgentDirectory):
    """A directory of these agents."""

    def __init__(self, *agents: Agent) -> None:
        self._agents, self._by_room, self._by_user = {}, {}, {}
        for one in agents:
            self._index(one)


class KnownRooms(Rooms):
    """Rooms with these of our users and these people."""

    def __init__(
        self,
        members: dict[str, dict[str, bool]],
        *paused: tuple[str, str],
        people: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self._members = members
        self._since = {}
        self._settings = dict.fromkeys(paused, RoomSettings(paused=True))
        self._people = {room: frozenset(here) for room, here in (people or {}).items()}
        self._moves = {}


class KnownPortals(PortalBook):
    """These portals, and what was decided about their contacts."""

    def __init__(self, *known: Portal | Contact, claims: Mapping[str, Iterable[str]] = {}) -> None:
        self._portals = {one.room_id: one for one in known if isinstance(one, Portal)}
        contacts = (one for one in known if isinstance(one, Contact))
        self._contacts = {(one.name, one.contact): one for one in contacts}
        self._claims, self._claimants, self._facts, self._after = {}, {}, {}, {}
        for user_id, identifiers in claims.items():
            self._claimed("irc", user_id, list(identifiers))


class KnownConversations(ConversationStore):
    """A conversation at each of these places."""

    def __init__(self, *places: Place) -> None:
        self._current = dict.fromkeys(places, "c1")
        self._places = set(places)


NO_PORTALS = PortalPolicy((), KnownPortals(), Known(), KnownRooms({}))
"""The policy where no bridge is configured."""
