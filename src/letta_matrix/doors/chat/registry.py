"""All commands there are, and the help made from them."""

import difflib
from collections.abc import Sequence
from functools import cache

from letta_matrix.config import Role
from letta_matrix.doors.chat import (
    answering,
    management,
    overview,
    portals,
    rooms,
    settings,
    talking,
)
from letta_matrix.doors.chat.command import (
    Command,
    CommandContext,
    CommandFault,
    command,
    declared_in,
    made,
)
from letta_matrix.doors.chat.passing import passing_on
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations import registry as operations
from letta_matrix.operations.typed import Argument, Where


@command(Argument("NAME"), aliases=("commands",), scope=Where.BOTH, name="help")
async def show_help(context: CommandContext) -> str:
    """Lists what you can tell me, or explains one command."""
    usable = usable_by(context.commands, context.role, in_room=bool(context.agents))
    if name := context.arguments.text("NAME"):
        return _explained(find(usable, name.lstrip("!").lower()))
    here = [one for one in usable if not context.agents or one.scope is not Where.MANAGEMENT]
    lines = ["What you can tell me; `!help NAME` says more.", ""]
    lines += [f"- {code(one.usage)}: {one.help}" for one in here]
    if beyond := [code(f"!{one.name}") for one in usable if one not in here]:
        lines += ["", f"To manage agents, here or alone with the bot: {', '.join(beyond)}."]
    if context.in_shared_room:
        lines += ["", "In this room each begins with `!letta`, as in `!letta status`."]
    return "\n".join(lines)


def usable_by(commands: Sequence[Command], role: Role, *, in_room: bool) -> list[Command]:
    """The commands somebody may use; `in_room`: where an agent is."""
    return [
        one
        for one in commands
        if not one.hidden
        and (one.permission == "user" or role == "admin")
        and (in_room or one.scope is not Where.AGENT)
    ]


def find(usable: Sequence[Command], name: str) -> Command:
    """The command with this name or alias. Raises CommandFault, which names the nearest."""
    by_name = {key: one for one in usable for key in (one.name, *one.aliases)}
    if (found := by_name.get(name)) is not None:
        return found
    near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.65)
    meant = f" Did you mean {code('!' + near[0])}?" if near else ""
    raise CommandFault(f"I do not know {code('!' + name)}.{meant} `!help` lists what I do.")


def listed(commands: Sequence[Command]) -> list[dict[str, object]]:
    """The commands that people type, for a page that offers them; as JSON."""
    return [
        {
            "name": one.name,
            "usage": one.usage,
            "help": one.help,
            "aliases": list(one.aliases),
            "admin": one.permission == "admin",
        }
        for one in commands
        if not one.hidden
    ]


def _explained(command: Command) -> str:
    lines = [f"{code(command.usage)}: {command.help}"]
    if command.aliases:
        lines.append(f"Also {', '.join(code(f'!{alias}') for alias in command.aliases)}.")
    if command.permission == "admin":
        lines.append("For admins only.")
    return "\n".join(lines)


_MODULES = (talking, answering, settings, overview, management, rooms, portals)


@cache
def all_commands() -> Sequence[Command]:
    """All commands, those that operations declare among them; what is for admins comes last."""
    every = [made(show_help), *(one for module in _MODULES for one in declared_in(module))]
    for operation in operations.every():
        if (typed := operation.typed) is not None:
            names = [one.name for one in every]
            place = names.index(typed.after) + 1 if typed.after else len(names)
            every.insert(place, passing_on(operation, typed))
    return tuple(sorted(every, key=lambda one: one.permission == "admin"))
