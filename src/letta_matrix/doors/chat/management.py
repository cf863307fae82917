"""Commands with which admins create, change and remove agents."""

from collections import Counter
from typing import Any

from letta_matrix.access.faults import ToolError
from letta_matrix.common.identifiers import room_alias
from letta_matrix.conversations.approval_text import named, short_key
from letta_matrix.doors.chat.command import CommandContext, CommandFault, command
from letta_matrix.doors.chat.overview import active, room_link
from letta_matrix.doors.chat.texts import counted, label, name_of
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.matrix.verbatim import link
from letta_matrix.operations.records import Agent
from letta_matrix.operations.toolbox.finding import find_agent
from letta_matrix.operations.typed import Argument, Kind, Where

_ADMIN: dict[str, Any] = {"permission": "admin", "scope": Where.MANAGEMENT}


@command(
    Argument("NAME", Kind.TEXT, required=True),
    Argument("runtime", Kind.OPTION),
    Argument("model", Kind.OPTION),
    **_ADMIN,
)
async def create(context: CommandContext) -> str:
    """Creates an agent."""
    where = {option: context.arguments.text(option) for option in ("runtime", "model")}
    name = " ".join(context.arguments.text("NAME").split())
    made = await context.do("agents.create", name=name, **where)
    alias = room_alias(made["agent_id"], context.services.config.homeserver.domain)
    shown = link(label(made["name"], made["agent_id"]), alias)
    which = f"{code(made['agent_id'])}, runtime {code(made['runtime'])}"
    return f"Created {shown} ({which}). Its room is there in a moment."


@command(
    Argument("AGENT", Kind.TEXT, required=True),
    Argument("yes", Kind.FLAG),
    aliases=("delete",),
    **_ADMIN,
)
async def remove(context: CommandContext) -> str:
    """Deletes an agent for good; asks first."""
    wanted = context.arguments.text("AGENT")
    if not context.arguments.flag("yes"):
        agent = agent_meant(context)
        return (
            f"This deletes {name_of(agent)} from {code(agent.runtime)} with all it remembers, for "
            f"good. To do it: {code(f'!remove {agent.agent_id} --yes', limit=300)}"
        )
    gone = await context.do("agents.remove", agent_id=wanted, confirm="")
    shown = label(gone["name"], gone["agent_id"])
    return f"Deleted {shown} ({code(gone['agent_id'])}) from {code(gone['runtime'])}."


@command(**_ADMIN)
async def sync(context: CommandContext) -> str:
    """Looks for new, changed and removed agents now."""
    troubles = (await context.do("agents.sync"))["troubles"]
    if not troubles:
        raise CommandFault("No runtime is looked after: add one to `runtimes`.")
    found = Counter(agent.runtime for agent in active(context))
    lines = ["Looked for agents:", ""]
    for name, fault in troubles.items():
        seen = f"could not be listed: {code(fault, limit=300)}" if fault else "listed"
        lines.append(f"- {code(name)}: {counted(found[name], 'agent')}, {seen}")
    return "\n".join(lines)


@command(Argument("AGENT", Kind.TEXT), **_ADMIN)
async def show(context: CommandContext) -> str:
    """Tells all about an agent."""
    agent, services = agent_meant(context), context.services
    rooms = {agent.room_id or "", *services.rooms.rooms_of(agent.user_id)} - {""}
    had = [len(await services.conversations.all_in(agent.agent_id, room_id)) for room_id in rooms]
    waiting = await services.approvals.store.pending(agent_id=agent.agent_id)
    lines = [
        name_of(agent),
        "",
        f"- Id: {code(agent.agent_id)}",
        f"- Runtime: {code(agent.runtime)}",
        f"- User: {code(agent.user_id)}",
        f"- Room: {room_link(context, agent) if agent.room_id else 'not made yet'}",
        f"- Model: {await _model(context, agent)}",
        f"- Conversations: {sum(had)} in {counted(len(rooms), 'room')}",
        f"- Approvals that wait: {len(waiting)}",
    ]
    for one in await services.approvals.store.kept(agent.agent_id):
        back = code(f"!deny {short_key(one)}")
        lines.append(f"- Allowed for good: {named(one)} · {back} takes it back")
    if trouble := services.trouble_of(agent.agent_id):
        lines.append(f"- Trouble: {code(trouble, limit=300)}")
    return "\n".join(lines)


def agent_meant(context: CommandContext) -> Agent:
    """The agent that is named, or whose room it is. Raises ToolError, CommandFault."""
    wanted = context.arguments.text("AGENT")
    return find_agent(wanted, active(context)) if wanted else context.agent


async def _model(context: CommandContext, agent: Agent) -> str:
    try:
        return code(await context.services.runtimes.model(agent) or "unknown")
    except ToolError as error:
        return f"unknown ({code(str(error), limit=300)})"
