"""What a turn waits for, and for which no person waits: pure decisions on one turn."""

from letta_matrix.config import Config
from letta_matrix.store.budgets import Budget
from letta_matrix.store.places import Place
from letta_matrix.store.turns import Turn, TurnKind

IN_TURN = {"new", "reset", "conversations", "conversation", "history"}
"""Commands that take effect between the messages before and after them."""
ANSWERS = {"approve", "allow", "deny", "reject", "react-approve", "react-always", "react-deny"}
"""Commands that answer approvals: they wait for each other alone, so that the first one counts."""
AT_ONCE = {"cancel", "stop", "react-cancel"}
"""Commands about what is being answered: they wait for their own kind alone."""


def queue_of(turn: Turn) -> Place:
    """The queue of a turn: those of one are run one by one."""
    verb = _verb(turn)
    if turn.kind is TurnKind.MESSAGE or verb in IN_TURN:
        return turn.place
    if verb in ANSWERS:
        return Place("", turn.room_id, "!answers")
    if verb in AT_ONCE:
        # One queue for each person: a thousand are not worked on at a time.
        return Place(turn.agent_id, turn.room_id, f"!{turn.sender}")
    return Place(turn.agent_id, turn.room_id, f"!{turn.kind}")


def is_answer(turn: Turn) -> bool:
    """Whether it is a command that answers an approval."""
    return _verb(turn) in ANSWERS


def budget_of(config: Config) -> Budget:
    """What each person may ask at once and in a minute, as configured."""

    def limits(turn: Turn) -> bool:
        # Agents, and programs with tokens, have limits of their own.
        is_asking = turn.kind in (TurnKind.MESSAGE, TurnKind.COMMAND) and turn.hops == 0
        # What ends a turn or lets it go on makes room.
        return (
            is_asking
            and _verb(turn) not in ANSWERS | AT_ONCE
            and config.role_of(turn.sender) != "admin"
        )

    settings = config.conversations
    return Budget(settings.person_waiting, settings.person_per_minute, limits)


def _verb(turn: Turn) -> str:
    """The name of a command; "" for what is none."""
    return (turn.prompt or "").partition(" ")[0].lower() if turn.kind is TurnKind.COMMAND else ""
