"""The commands that people give in chat."""

from docsite.markdown import code, page, sentence, table
from letta_matrix.doors.chat.command import Command
from letta_matrix.doors.chat.registry import all_commands

TITLE = "Commands in chat"
_WHERE = {"AGENT": "where an agent is", "MANAGEMENT": "anywhere", "BOTH": "anywhere"}


def text() -> str:
    """The page."""
    shown = [command for command in all_commands() if not command.hidden]
    return page(
        TITLE,
        "Where and how they are given: [commands](../how-to/commands.md). `[...]` may be left out. "
        "A value of several words stands in quotes where more follows it: "
        '`!rename "Old name" New name`.',
        "## For everybody",
        _listed([one for one in shown if one.permission == "user"]),
        "## For admins",
        _listed([one for one in shown if one.permission == "admin"]),
    )


def _listed(commands: list[Command]) -> str:
    rows = [
        (
            code(one.usage),
            sentence(one.help),
            ", ".join(code(f"!{alias}") for alias in one.aliases),
            _WHERE[one.scope.name],
        )
        for one in commands
    ]
    return table(("command", "what it does", "also", "where"), rows)
