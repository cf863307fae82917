"""All commands there are, and the help made from them."""

import difflib
from collections.abc import Sequence

from letta_matrix.commands import (
    answering,
    management,
    overview,
    rooms,
    settings,
    talking,
)
from letta_matrix.commands.command import (
    Argument,
    Command,
    CommandContext,
    CommandFault,
    Kind,
    Where,
)
from letta_matrix.config import Role
from letta_matrix.matrix.verbatim import inline_code as code

_AGENT = Argument("AGENT", Kind.TEXT, required=True)
_WHICH = Argument("KEY")
_KEY = (Argument("KEY", required=True),)


async def show_help(context: CommandContext) -> str:
    """What the person may use here, or all about one command."""
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


COMMANDS: tuple[Command, ...] = (
    Command(
        "help",
        show_help,
        "lists what you can tell me, or explains one command.",
        (Argument("NAME"),),
        aliases=("commands",),
        scope=Where.BOTH,
    ),
    Command(
        "new",
        talking.new,
        "starts a new conversation with the next message; in a thread, that of the thread.",
        aliases=("reset",),
    ),
    Command(
        "conversations",
        talking.conversations,
        "lists the conversations had here; with a number, returns to that one.",
        (Argument("N", Kind.NUMBER),),
        aliases=("conversation", "history"),
    ),
    Command(
        "cancel",
        talking.cancel,
        "stops what you asked here (an admin: all); as a reply, that message alone. A 🛑 does it "
        "too.",
        aliases=("stop",),
    ),
    Command(
        "approve",
        answering.approve,
        "lets a tool run; without a key the one that asks, if there is just one. A ✅ or ♾️ on "
        "the question does it too.",
        (_WHICH, Argument("always", Kind.CHOICE, choices=("always",))),
        aliases=("allow",),
        scope=Where.BOTH,
    ),
    Command(
        "deny",
        answering.deny,
        "does not let a tool run, and tells the agent why. A ❌ does it too.",
        (_WHICH, Argument("REASON", Kind.TEXT)),
        aliases=("reject",),
        scope=Where.BOTH,
    ),
    Command(
        "model",
        settings.model,
        "tells the agent's model and which others there are; an admin switches it with a name.",
        (Argument("NAME", Kind.TEXT),),
        aliases=("models",),
    ),
    Command(
        "tools",
        settings.tools,
        "tells whether it is shown here which tools the agent uses; an admin changes it.",
        (Argument("on|off", Kind.CHOICE, choices=("on", "off")),),
    ),
    Command(
        "status",
        overview.status,
        "tells what goes on, what waits, and which approvals are asked for.",
        scope=Where.BOTH,
    ),
    Command("whoami", overview.whoami, "tells who and where you are.", scope=Where.BOTH),
    Command(
        "agents",
        overview.agents,
        "lists all agents and where they live, or those with a text in their name.",
        (Argument("TEXT", Kind.TEXT),),
        scope=Where.BOTH,
    ),
    Command(
        "invite",
        rooms.invite,
        "invites you again into an agent's room, or into all you may be in; an admin can name "
        "somebody else.",
        (Argument("AGENT", Kind.TEXT), Argument("person", Kind.OPTION)),
        scope=Where.BOTH,
    ),
    Command(
        "pause",
        settings.pause,
        "leaves messages here unanswered until `!resume`.",
        permission="admin",
    ),
    Command(
        "resume",
        settings.resume,
        "answers messages here again.",
        aliases=("unpause",),
        permission="admin",
    ),
    Command(
        "create",
        management.create,
        "creates an agent.",
        (
            Argument("NAME", Kind.TEXT, required=True),
            Argument("runtime", Kind.OPTION),
            Argument("model", Kind.OPTION),
        ),
        permission="admin",
        scope=Where.MANAGEMENT,
    ),
    Command(
        "rename",
        management.rename,
        "renames an agent, given by id, user id or name (with spaces: in quotes).",
        (Argument("AGENT", required=True), Argument("NAME", Kind.TEXT, required=True)),
        permission="admin",
        scope=Where.MANAGEMENT,
    ),
    Command(
        "remove",
        management.remove,
        "deletes an agent for good; asks first.",
        (_AGENT, Argument("yes", Kind.FLAG)),
        aliases=("delete",),
        permission="admin",
        scope=Where.MANAGEMENT,
    ),
    Command(
        "show",
        management.show,
        "tells all about an agent.",
        (Argument("AGENT", Kind.TEXT),),
        permission="admin",
        scope=Where.MANAGEMENT,
    ),
    Command(
        "sync",
        management.sync,
        "looks for new, changed and removed agents now.",
        permission="admin",
        scope=Where.MANAGEMENT,
    ),
    Command(
        "archive",
        rooms.archive,
        "takes the room of a removed agent out of the space, or those of all.",
        (Argument("AGENT", Kind.TEXT),),
        permission="admin",
        scope=Where.MANAGEMENT,
    ),
    Command(
        "react-approve", answering.react_approve, "is ✅.", _KEY, scope=Where.BOTH, hidden=True
    ),
    Command("react-always", answering.react_always, "is ♾️.", _KEY, scope=Where.BOTH, hidden=True),
    Command("react-deny", answering.react_deny, "is ❌.", _KEY, scope=Where.BOTH, hidden=True),
    Command(
        "react-cancel",
        talking.react_cancel,
        "is 🛑.",
        (Argument("EVENT", required=True),),
        scope=Where.BOTH,
        hidden=True,
    ),
)
