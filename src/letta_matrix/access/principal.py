"""Who calls tools: an agent through its runtime, or the holder of a token."""

from collections.abc import Set
from dataclasses import dataclass, field
from enum import StrEnum


class Scope(StrEnum):
    """A group of tools, and what a token may be limited to."""

    READ = "read"
    WRITE = "write"
    ROOMS = "rooms"
    AGENTS = "agents"
    ADMIN = "admin"  # of the bridge itself: tokens, runtimes, turns, approvals; agents have it not
    METRICS = "metrics"  # the figures that `/metrics` shows, and nothing else


TOOL_SCOPES = frozenset(Scope) - {Scope.ADMIN, Scope.METRICS}


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever calls, and as whom they act.

    `key` names them in the audit log and counts their calls, such as `agent:ID` or `token:ID`.
    `agent_id` is the agent they act as, "" for the bot. `person` is who has logged in and reads as
    themselves, with the `access_token` of that login; "" for others. `rooms` are the ids of the
    only rooms they may act in, None for all that the Matrix user is in; those of a login become
    fewer while somebody looks, when its person leaves one. `destructive`: they may do what cannot
    be undone.
    """

    key: str
    agent_id: str
    scopes: frozenset[Scope] = TOOL_SCOPES
    rooms: Set[str] | None = None
    destructive: bool = True
    person: str = ""
    access_token: str = field(default="", repr=False)

    @property
    def caller(self) -> str:
        """Who shares with others what all have together: a person, however often logged in."""
        return self.person or self.key

    def may_act_in(self, room_id: str) -> bool:
        return self.rooms is None or room_id in self.rooms
