"""What is to be done so that agents live on with the users and rooms that they had with the
original integration: a pure function of the file and of what was found.

An agent's user id derives from its id alone. A user of the original that has just that id is taken
over. Of one with another id the room is taken over: our ghost comes in, with power, and the old
user takes its leave.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto

from letta_matrix.agents.migration.found import Found, Living, OldUser, Room, Sight, Way
from letta_matrix.agents.migration.mappings_file import OldMapping
from letta_matrix.agents.migration.notes import (
    ADMIN_WANTED,
    NEW_ROOM,
    NO_USER,
    NOBODY_LEFT,
    PASSWORD_STAYS,
    POWERLESS,
    REMOVE_OLD,
    Note,
    gone,
    second,
    unusable,
)
from letta_matrix.common.identifiers import persons, room_alias, user_id
from letta_matrix.store.agents import LOGINS_ENDED, Agent


class Step(Enum):
    """In the order in which they are taken. All but the last two are for the room."""

    ACCOUNT = auto()
    JOIN = auto()
    POWER = auto()
    ALIAS = auto()
    GOODBYE = auto()
    LOGINS = auto()
    ROW = auto()


@dataclass(frozen=True, slots=True)
class Rules:
    """What of the configuration and of the command line decides. `people` are named in the
    configuration, `admin` is the user whose credentials are there, "" for nobody."""

    domain: str
    bot: str
    people: frozenset[str] = frozenset()
    admin: str = ""
    replaces_rooms: bool = False
    keeps_logins: bool = False


@dataclass(frozen=True, slots=True)
class Adoption:
    """One agent. `room_id` is "" where no room is taken over. `helper` is who in the room brings
    it in and gives it power, "" for an admin of the homeserver. `before` is who answered for it
    until now, whether in the room still or not, "" where that cannot be told."""

    agent_id: str
    living: Living
    user_id: str
    row: Agent | None
    room_id: str = ""
    helper: str = ""
    old: OldUser | None = None
    sessions: int = 0
    steps: tuple[Step, ...] = ()
    notes: tuple[Note, ...] = ()
    before: str = ""

    @property
    def name(self) -> str:
        return self.living.info.name


@dataclass(frozen=True, slots=True)
class Plan:
    """`left` tells of entries of which nothing is taken over, `bot_sessions` how many sessions of
    the bot's account are to be ended; passwords end where there is an admin."""

    adoptions: list[Adoption] = field(default_factory=list[Adoption])
    left: list[tuple[OldMapping, Note]] = field(default_factory=list[tuple[OldMapping, Note]])
    bot_sessions: int = 0
    has_admin: bool = False

    @property
    def to_do(self) -> list[Adoption]:
        return [one for one in self.adoptions if one.steps]

    @property
    def is_done(self) -> bool:
        return not self.to_do and not self.bot_sessions


def plan_of(mappings: Sequence[OldMapping], found: Found, rules: Rules) -> Plan:
    """What is to be done; nothing where all of it was done before."""
    plan = Plan(bot_sessions=_bot_sessions(found, rules), has_admin=found.has_admin)
    chosen = _one_each(mappings, found, rules, plan)
    owners = _owners(chosen, found)
    plan.adoptions.extend(_Planner(found, rules, owners).adoption(one) for one in chosen)
    return plan


def ghosts_of(living: Iterable[str], known: Mapping[str, Agent], domain: str) -> dict[str, str]:
    """The user ids of agents by their ids, also of those that an earlier version gave others;
    without those that can have none."""
    ghosts: dict[str, str] = {}
    for agent_id in living:
        with suppress(ValueError):
            ghosts[agent_id] = user_id(agent_id, domain)
    here = {one.agent_id: one.user_id for one in known.values()}
    return ghosts | {who: user for who, user in here.items() if user.endswith(f":{domain}")}


def is_let_alone(who: str, agent_id: str, found: Found, rules: Rules) -> bool:
    """Whether the user that a mapping names is somebody else's than this agent's: the bot, a person
    of the configuration, or the ghost of another agent."""
    others = {user for other, user in found.ghosts.items() if other != agent_id}
    return who in {rules.bot, rules.admin, *rules.people} | others


def _bot_sessions(found: Found, rules: Rules) -> int:
    may_end = not rules.keeps_logins and rules.bot != rules.admin
    return found.bot.sessions if may_end else 0


def _one_each(
    mappings: Sequence[OldMapping], found: Found, rules: Rules, plan: Plan
) -> list[OldMapping]:
    """For each agent that there is the mapping that counts."""
    by_agent: dict[str, list[OldMapping]] = {}
    for one in mappings:
        if one.agent_id not in found.living:
            plan.left.append((one, gone(one)))
        else:
            by_agent.setdefault(one.agent_id, []).append(one)
    chosen: list[OldMapping] = []
    for agent_id, several in by_agent.items():
        if agent_id not in found.ghosts:
            plan.left.append((several[0], NO_USER))
            continue
        best = max(several, key=lambda one: _worth(one, found, rules))
        chosen.append(best)
        for one in several:
            if one is not best and (one.room_id, one.user_id) != (best.room_id, best.user_id):
                plan.left.append((one, second(one, best)))
    return chosen


def _worth(one: OldMapping, found: Found, rules: Rules) -> tuple[bool, bool, int, int]:
    """Of two mappings of an agent the one counts whose room it has, then the one whose room can be
    used, then the one with more people there, then the later one."""
    row, room = found.known.get(one.agent_id), found.room(one.room_id)
    is_its = row is not None and bool(one.room_id) and row.room_id == one.room_id
    is_usable = room.sight is Sight.SEEN and unusable(one.room_id, room) is None
    people = persons(room.joined, rules.bot) - {one.user_id}
    return is_its, is_usable, len(people), one.place


def _owners(chosen: Iterable[OldMapping], found: Found) -> dict[str, str]:
    """Whose each room is: the agent's that has it, else that is in it, else that comes first."""
    owners: dict[str, str] = {}
    here: dict[str, bool] = {}
    for one in chosen:
        is_here = not {found.ghosts[one.agent_id], one.user_id}.isdisjoint(
            found.room(one.room_id).joined
        )
        if one.room_id not in owners or (is_here and not here[one.room_id]):
            owners[one.room_id], here[one.room_id] = one.agent_id, is_here
    return owners | {row.room_id: row.agent_id for row in found.known.values() if row.room_id}


def _is_stored(row: Agent | None, room_id: str) -> bool:
    """Whether the bridge has the room, if there is one, and takes the account for its own."""
    if row is None or not row.applied.get("registered"):
        return False
    return room_id in ("", row.room_id)


class _Planner:
    def __init__(self, found: Found, rules: Rules, owners: Mapping[str, str]) -> None:
        self._found = found
        self._rules = rules
        self._owners = owners

    def adoption(self, one: OldMapping) -> Adoption:
        ghost = self._found.ghosts[one.agent_id]
        row, account = self._found.known.get(one.agent_id), self._found.account(ghost)
        notes: list[Note] = []
        note = self._obstacle(one, row)
        helper, old, steps = "", None, list[Step]()
        if note is None:
            entry = self._entry(one, ghost)
            note = entry if isinstance(entry, Note) else None
            if not isinstance(entry, Note):
                helper, steps = entry
                old = self._old_user(one, ghost, notes)
                steps += [] if account.exists else [Step.ACCOUNT]
                steps += self._alias(one, row)
                steps += [Step.GOODBYE] if old is not None else []
                if Step.POWER not in steps and not self._room(one).is_powerful(ghost):
                    notes.append(POWERLESS)
        room_id = one.room_id if note is None else ""
        notes += [] if note is None else [note]
        is_old_user = account.exists and one.user_id == ghost
        if is_old_user:
            steps += self._logins(ghost, row, account.sessions, notes)
        if not _is_stored(row, room_id) and (room_id or is_old_user):
            steps.append(Step.ROW)
        return Adoption(
            one.agent_id,
            self._found.living[one.agent_id],
            ghost,
            row,
            room_id,
            helper,
            old,
            account.sessions,
            tuple(sorted(steps, key=lambda step: step.value)),
            tuple(notes),
            next((old.user_id for old in self._old_users(one)), ""),
        )

    def _room(self, one: OldMapping) -> Room:
        return self._found.room(one.room_id)

    def _obstacle(self, one: OldMapping, row: Agent | None) -> Note | None:
        """Why a room is not the agent's to have."""
        room_id, room = one.room_id, self._room(one)
        if not room_id:
            return Note("the file names no room for it", NEW_ROOM)
        if (owner := self._owners[room_id]) != one.agent_id:
            return Note(
                f"its room {room_id} is that of the agent {owner}, too, who keeps it",
                f"{NEW_ROOM}; people can invite it to the other one",
            )
        has_other = row is not None and row.room_id not in (None, room_id)
        if row is not None and has_other and not self._rules.replaces_rooms:
            return Note(
                f"it has the room {row.room_id} by now, and keeps it",
                f"--replace-rooms lets it go on in {room_id} instead",
            )
        if room.sight is Sight.GONE:
            return Note(f"its room {room_id} is gone", NEW_ROOM)
        if room.sight is Sight.UNSEEN:
            return Note(
                f"nobody whom the bridge can act as is in its room {room_id}, if that is still "
                f"there{self._why_not(one)}",
                ADMIN_WANTED,
            )
        return unusable(room_id, room)

    def _why_not(self, one: OldMapping) -> str:
        old = self._found.old_users.get(one.user_id)
        return f" ({old.user_id}: {old.why})" if old is not None and old.why else ""

    def _entry(self, one: OldMapping, ghost: str) -> tuple[str, list[Step]] | Note:
        """Who lets an agent into its room and makes it powerful there, with the steps for it; or
        that nobody can."""
        room = self._room(one)
        joins = [] if ghost in room.joined else [Step.JOIN]
        if not joins and room.is_powerful(ghost):
            return "", []
        ours = [self._rules.bot]
        ours += [old.user_id for old in self._old_users(one) if old.way is not Way.NONE]
        for helper in ours:
            if room.may_empower(helper) and room.may_invite(helper):
                return helper, [*joins, Step.POWER]
        domain = f":{self._rules.domain}"
        local = [who for who in room.joined if who.endswith(domain)]
        if self._found.has_admin and any(map(room.may_empower, local)):
            return "", [*joins, Step.POWER]
        # Without power it can talk there all the same, once it and the bot are there.
        inviting = next((one for one in ours if room.may_invite(one)), None)
        bot_comes = self._rules.bot in room.joined or room.may_invite(ghost)
        if (joins and inviting is None) or not bot_comes:
            remedy = NOBODY_LEFT if self._found.has_admin else ADMIN_WANTED
            return Note(f"nobody can bring it into its room {one.room_id} with power", remedy)
        return inviting or "", joins

    def _old_user(self, one: OldMapping, ghost: str, notes: list[Note]) -> OldUser | None:
        """Who is to take its leave of the room."""
        who = one.user_id
        if who == ghost or who not in self._room(one).joined:
            return None
        old = next(iter(self._old_users(one)), None)
        if old is None:
            return None
        if old.way is not Way.NONE:
            return old
        why = f": {old.why}" if old.why else ""
        notes.append(Note(f"{who}, its user until now, stays in the room{why}", REMOVE_OLD))
        return None

    def _old_users(self, one: OldMapping) -> list[OldUser]:
        """The user that a mapping names, if that is nobody else's."""
        if is_let_alone(one.user_id, one.agent_id, self._found, self._rules):
            return []
        return [self._found.old_users.get(one.user_id, OldUser(one.user_id, Way.NONE))]

    def _alias(self, one: OldMapping, row: Agent | None) -> list[Step]:
        leads_to = self._found.aliases.get(room_alias(one.agent_id, self._rules.domain))
        is_its = row is not None and row.room_id == one.room_id
        return [] if leads_to == one.room_id or (is_its and leads_to) else [Step.ALIAS]

    def _logins(
        self, ghost: str, row: Agent | None, sessions: int, notes: list[Note]
    ) -> list[Step]:
        if self._rules.keeps_logins or ghost == self._rules.admin:
            return []
        if row is not None and row.applied.get(LOGINS_ENDED):
            return [Step.LOGINS] if sessions else []
        if self._found.has_admin:
            return [Step.LOGINS]
        notes.append(PASSWORD_STAYS)
        return [Step.LOGINS] if sessions else []
