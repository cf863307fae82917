"""What `import-mappings` says: its plan, and what became of it."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from letta_matrix.agents.migration.adopting import Outcome
from letta_matrix.agents.migration.mappings_file import OldMapping
from letta_matrix.agents.migration.notes import Note
from letta_matrix.agents.migration.plan import Adoption, Plan, Step
from letta_matrix.common.lenient_json import printable

_MOST_NAMES = 8


def plan_text(file: Path, plan: Plan, faults: Sequence[str]) -> str:
    """The plan, with all that is not taken over and what to do about it."""
    lines = [line for one in plan.to_do for line in _agent(one, has_admin=plan.has_admin)]
    if plan.bot_sessions:
        lines += ["The bot's account", f"  - {_ended(plan.bot_sessions, has_admin=plan.has_admin)}"]
    done = len(plan.adoptions) - len(plan.to_do)
    if done:
        lines.append(f"{_agents(done)}: nothing to do.")
    lines += _left(plan.left)
    lines += _noted((one, one.notes) for one in plan.adoptions)
    if faults:
        lines += ["Entries that cannot be read, and are passed over:"]
        lines += [f"  - {file}: {fault}" for fault in faults]
    return "\n".join(lines or [f"{file} holds no mappings."])


def outcome_text(outcomes: Sequence[Outcome]) -> str:
    """What became of the plan."""
    whole = [one for one in outcomes if one.is_whole and one.adoption is not None]
    rooms = sum(1 for one in whole if one.adoption is not None and one.adoption.room_id)
    lines = [f"Taken over: {_agents(len(whole))}, {rooms} of them with their rooms."]
    lines += _noted((one.adoption, one.notes) for one in outcomes)
    return "\n".join(lines)


def _agent(one: Adoption, *, has_admin: bool) -> Iterator[str]:
    yield f"{printable(one.name)} ({one.agent_id})"
    yield f"  user {one.user_id}"
    yield f"  room {one.room_id or '(one of its own, when the bridge starts)'}"
    for step in one.steps:
        yield f"  - {_step(step, one, has_admin=has_admin)}"


def _step(step: Step, one: Adoption, *, has_admin: bool) -> str:
    by = one.helper or "an admin of the homeserver"
    match step:
        case Step.ACCOUNT:
            return "its account is made"
        case Step.JOIN:
            return f"it comes into the room, let in by {by}"
        case Step.POWER:
            return f"it gets power there, from {by}"
        case Step.ALIAS:
            return "its alias leads to the room"
        case Step.GOODBYE:
            who = one.old.user_id if one.old is not None else "its old user"
            return f"{who} says who answers from now on, and leaves the room"
        case Step.LOGINS:
            return _ended(one.sessions, has_admin=has_admin)
        case Step.ROW:
            return (
                "the bridge remembers user and room" if one.room_id else "its user is the bridge's"
            )


def _ended(sessions: int, *, has_admin: bool) -> str:
    signed_in = f"{sessions} session{'' if sessions == 1 else 's'} of before"
    return f"{signed_in} and the password end" if has_admin else f"{signed_in} end"


def _left(left: Iterable[tuple[OldMapping, Note]]) -> list[str]:
    lines = [line for one, note in left for line in _note(_called(one.name, one.agent_id), note)]
    return ["Not taken over:", *lines] if lines else []


def _noted(noted: Iterable[tuple[Adoption | None, Sequence[Note]]]) -> list[str]:
    """Each note once, with all whom it is about."""
    about: dict[Note, list[str]] = {}
    for one, notes in noted:
        who = "the bridge" if one is None else _called(one.name, one.agent_id)
        for note in notes:
            about.setdefault(note, []).append(who)
    lines = [line for note, whom in about.items() for line in _note(_listed(whom), note)]
    return ["What is not done, and what to do about it:", *lines] if lines else []


def _note(whom: str, note: Note) -> list[str]:
    return [f"  - {whom}: {printable(note.what)}", f"    what to do: {printable(note.remedy)}"]


def _called(name: str, agent_id: str) -> str:
    return f"{printable(name)} ({agent_id})" if name else agent_id


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _agents(count: int) -> str:
    return f"{count} agent{'' if count == 1 else 's'}"
