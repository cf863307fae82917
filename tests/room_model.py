"""What should come of all that people do in rooms with agents: the rules of docs/how-to/talking.md
once more, in the plainest way, for tests that do anything in any order."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

OWN, GROUP = "!1:test", "!group:test"
GHOSTS = {"agent-1": "@agent_1:test", "agent-2": "@agent_2:test"}
AGENTS = {user_id: agent_id for agent_id, user_id in GHOSTS.items()}


@dataclass(eq=False)
class Asked:
    """One agent that is to be asked one message; in `thread` of its room ("": in none)."""

    thread: str
    done: bool = False
    text: str = ""
    """What it was asked; "" while it waits."""
    left: bool = False
    """It was not in the room when its turn came: whoever asked is told."""


@dataclass(eq=False)
class Said:
    """A message, and all that was made of it."""

    event: dict[str, Any]
    texts: list[str]
    mentions: set[str] = field(default_factory=set[str])
    replies_to: "Said | None" = None
    thread_root: "Said | None" = None
    thread: str = ""
    arrived: bool = False
    removed: bool = False
    asked: dict[str, Asked] = field(default_factory=dict[str, Asked])
    """By the agents' ids."""
    edits: list[str] = field(default_factory=list[str])
    """The ids of its edits."""

    @property
    def text(self) -> str:
        """What it says by now."""
        return self.texts[-1]

    @property
    def event_id(self) -> str:
        return str(self.event["event_id"])

    @property
    def room_id(self) -> str:
        return str(self.event["room_id"])

    @property
    def sender(self) -> str:
        return str(self.event["sender"])

    @property
    def sent_at(self) -> float:
        return float(self.event["origin_server_ts"])


@dataclass(eq=False)
class House:
    """An agent's own room and a group, who is there, and who talks in which thread."""

    people: dict[str, set[str]] = field(
        default_factory=lambda: {OWN: {"@ann:test", "@bob:test"}, GROUP: {"@ann:test", "@bob:test"}}
    )
    inside: dict[str, float] = field(default_factory=dict[str, float])
    """The agents in the group, by id, with when they were invited."""
    sent_away_by: dict[str, str] = field(default_factory=dict[str, str])
    talks: set[tuple[str, str, str]] = field(default_factory=set[tuple[str, str, str]])

    def is_in(self, agent_id: str, room_id: str) -> bool:
        return agent_id in self.inside if room_id == GROUP else agent_id == "agent-1"

    def arrive(self, said: Said, only: Iterable[str] = ("agent-1", "agent-2")) -> None:
        """The bridge is told a message, or reads it as one of `only` has come."""
        said.arrived = True
        if said.removed:
            return
        for agent_id, thread in self._audience(said).items():
            if agent_id in only and agent_id not in said.asked:
                said.asked[agent_id] = Asked(thread)

    def add(self, said: Said, mentions: set[str], at: float) -> None:
        """An edit, sent `at` a time, mentions more agents."""
        for agent_id in sorted(AGENTS[user_id] for user_id in mentions & set(AGENTS)):
            here = self.is_in(agent_id, said.room_id)
            since = self.inside.get(agent_id, 0.0) if said.room_id == GROUP else 0.0
            if here and at >= since and agent_id not in said.asked:
                thread = said.thread or ("" if said.room_id == OWN else said.event_id)
                said.asked[agent_id] = Asked(thread)

    def _audience(self, said: Said) -> dict[str, str]:
        room_id, target = said.room_id, said.replies_to
        agents = [agent_id for agent_id in GHOSTS if self.is_in(agent_id, room_id)]
        people = self.people[room_id]
        alone = room_id == OWN or (len(agents) == 1 and len(people) <= 1)
        owner = agents[0] if alone and agents else None
        named = {AGENTS[one] for one in said.mentions & set(AGENTS)} & set(agents)
        author = AGENTS.get(target.sender, "") if target else ""
        named = named or ({author} & set(agents))
        others = people - {said.sender}
        if (
            not named
            and others
            and (said.mentions & others or (target and target.sender in others))
        ):
            return {}
        if owner is not None and (not named or owner in named):
            there = target.thread if target and author == owner else ""
            return self._since(said, {owner: said.thread or there})
        addressed = {
            one
            for one in agents
            if one in named or (said.thread and not named and self._talks(one, said))
        }
        thread = said.thread or (target.thread if target and author in named else "")
        found = self._since(said, dict.fromkeys(sorted(addressed), thread or said.event_id))
        self.talks |= {(one, room_id, place) for one, place in found.items()}
        return found

    def _talks(self, agent_id: str, said: Said) -> bool:
        begun = said.thread_root is not None and said.thread_root.sender == GHOSTS[agent_id]
        return begun or (agent_id, said.room_id, said.thread) in self.talks

    def _since(self, said: Said, found: dict[str, str]) -> dict[str, str]:
        if said.room_id == OWN:
            return found
        return {one: place for one, place in found.items() if said.sent_at >= self.inside[one]}
