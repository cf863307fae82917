"""What there is to be taken over, as it was found at the homeserver, at the runtimes and in the
database."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from letta_matrix.common.json_fields import mapping, string_of
from letta_matrix.matrix.power_levels import (
    creators,
    is_powerful,
    level_of,
    needed_for,
    needed_to_change,
)
from letta_matrix.runtimes.protocol import AgentInfo
from letta_matrix.store.agents import Agent


@dataclass(frozen=True, slots=True)
class Account:
    """A user id of ours at the homeserver; `sessions` are those of people and programs that are
    signed in."""

    exists: bool = False
    sessions: int = 0


class Way(Enum):
    """How we act as a user that the original has made: by impersonation, by an admin's word, by
    its password, or not at all."""

    OURS = auto()
    ADMIN = auto()
    PASSWORD = auto()
    NONE = auto()


@dataclass(frozen=True, slots=True)
class OldUser:
    """A user of the original whose id is another than its agent's; `why` there is no way."""

    user_id: str
    way: Way
    why: str = ""


class Sight(Enum):
    """UNSEEN: nobody is in the room whom we could look with. GONE: it is no more."""

    SEEN = auto()
    UNSEEN = auto()
    GONE = auto()


@dataclass(frozen=True, slots=True)
class Room:
    """A room that a mapping names. `creation` is the whole `m.room.create` event."""

    sight: Sight
    joined: frozenset[str] = frozenset()
    creation: Mapping[str, Any] = field(default_factory=dict[str, Any])
    levels: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_encrypted: bool = False
    replaced_by: str = ""

    @property
    def is_space(self) -> bool:
        return mapping(self.creation.get("content")).get("type") == "m.space"

    def is_powerful(self, user_id: str) -> bool:
        """Whether somebody in it may invite and change its state."""
        return user_id in self.joined and is_powerful(self.levels, self.creation, user_id)

    def may_empower(self, user_id: str) -> bool:
        """Whether somebody in it may give others that power (spec: Authorization rules)."""
        needed = needed_to_change(self.levels, "m.room.power_levels")
        return self.is_powerful(user_id) and self.power(user_id) >= needed

    def may_invite(self, user_id: str) -> bool:
        needed = needed_for(self.levels)["invite"]
        return user_id in self.joined and self.power(user_id) >= needed

    def power(self, user_id: str) -> float:
        """Somebody's level; creators stand above all since room version 12."""
        above = user_id in creators(self.creation)
        return math.inf if above else level_of(self.levels, user_id)


UNSEEN, GONE = Room(Sight.UNSEEN), Room(Sight.GONE)


def room_of(
    creation: Mapping[str, Any], contents: Mapping[str, Mapping[str, Any]], joined: Iterable[str]
) -> Room:
    """A room by its `m.room.create` event, what other state says, by type, and who is there."""
    encryption, tombstone = (
        contents.get(name) or {} for name in ("m.room.encryption", "m.room.tombstone")
    )
    return Room(
        Sight.SEEN,
        frozenset(joined),
        creation,
        contents.get("m.room.power_levels") or {},
        bool(encryption.get("algorithm")),
        string_of(dict(tombstone), "replacement_room"),
    )


@dataclass(frozen=True, slots=True)
class Living:
    """An agent that a runtime has."""

    runtime: str
    info: AgentInfo


@dataclass(frozen=True, slots=True)
class Found:
    """All of it: `living`, `known` and `ghosts` (user ids) by agent id, `accounts` and `old_users`
    by user id, `rooms` by room id; `aliases` tell where our agents' aliases lead."""

    living: Mapping[str, Living]
    known: Mapping[str, Agent]
    ghosts: Mapping[str, str]
    accounts: Mapping[str, Account]
    rooms: Mapping[str, Room]
    old_users: Mapping[str, OldUser]
    aliases: Mapping[str, str | None]
    bot: Account = Account()
    has_admin: bool = False

    def room(self, room_id: str) -> Room:
        return self.rooms.get(room_id, UNSEEN)

    def account(self, user_id: str) -> Account:
        return self.accounts.get(user_id, Account())
