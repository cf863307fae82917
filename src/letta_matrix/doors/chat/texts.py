"""Names, times and numbers as they may stand in a command's answer (Markdown)."""

from letta_matrix.matrix.verbatim import inline_code
from letta_matrix.operations.records import Agent

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


def label(name: str, agent_id: str) -> str:
    """How an agent is called, by its id if its name is empty."""
    return inline_code(name.strip() or agent_id, limit=80)


def name_of(agent: Agent) -> str:
    """How an agent is called."""
    return label(agent.name, agent.agent_id)


def titled(title: str, created_at: float, horizon: float) -> str:
    """What a conversation is called: by its first words, for who may read from then on
    (`horizon`, Unix time) what was said in its room."""
    if created_at < horizon:
        return "one from before you came"
    return inline_code(title) if title else "one without a title"


def span(seconds: float) -> str:
    """A length of time, roughly: `40 s`, `3 min`, `2 h`, `5 d`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(int(seconds), 0)} s"


def ago(seconds: float) -> str:
    """How long ago, roughly."""
    return "just now" if seconds < 60 else f"{span(seconds)} ago"


def counted(number: int, noun: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clip(markdown: str, limit: int) -> str:
    """`markdown` without the lines that exceed `limit` bytes, said so at its end."""
    if len(markdown.encode()) <= limit:
        return markdown
    kept, size = list[str](), 0
    for line in markdown.splitlines():
        size += len(line.encode()) + 1
        if size > limit:
            break
        kept.append(line)
    return "\n".join([*kept, "", "… and more than fits here."])
