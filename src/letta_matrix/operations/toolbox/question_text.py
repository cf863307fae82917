"""What people read of a question that an agent asks them."""

from collections.abc import Sequence

from letta_matrix.operations.toolbox.questions import KEYS, Answer
from letta_matrix.operations.toolbox.results import cut
from letta_matrix.operations.toolbox.writing import spoken

_LONGEST_SHOWN = 300
_WAITING = "I wait for an answer: reply to my question. What else you write, I read after that."
_WAITING_OPTIONS = (
    "I wait for an answer: tap a number at my question, write one of its options, or reply to it. "
    "What else you write, I read after that."
)


def question_text(question: str, options: Sequence[str], closing: str) -> str:
    """A question with its numbered options, as Markdown; `closing` says how it stands."""
    lines = [f"{key} {option}" for key, option in zip(KEYS, options, strict=False)]
    return "\n\n".join(filter(None, [spoken(question, "question"), "\n".join(lines), closing]))


def how_to_answer(options: Sequence[str]) -> str:
    """Said below a question that is open."""
    if not options:
        return "*Reply to this message to answer.*"
    return "*React with a number, or reply to this message, to answer.*"


def waiting(options: Sequence[str]) -> str:
    """Said to who writes something else meanwhile."""
    return _WAITING_OPTIONS if options else _WAITING


def answered(answer: Answer) -> str:
    """What was chosen, or said, and by whom."""
    words = " ".join(cut(answer.text, _LONGEST_SHOWN).split())
    said = f"**{KEYS[answer.option - 1]} {words}**" if answer.option else f"> {words}"
    return f"{said}\n\n*Answered by {answer.sender}.*"


def unanswered(*, hears: bool) -> str:
    """Said at the end of its time; who asked may hear a later answer as a message."""
    if hears:
        return "*Nobody answered in time; a reply still reaches me as a message.*"
    return "*Nobody answered in time.*"
