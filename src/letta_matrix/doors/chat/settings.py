"""Commands that change how an agent behaves in a room, and with which model."""

from collections.abc import Sequence

from letta_matrix.doors.chat.command import CommandContext, CommandFault, command
from letta_matrix.doors.chat.texts import name_of
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.models import check_models
from letta_matrix.operations.records import Agent
from letta_matrix.operations.typed import Argument, Kind

_MODELS_LISTED = 30


@command(Argument("NAME", Kind.TEXT), aliases=("models",))
async def model(context: CommandContext) -> str:
    """Tells the agent's model and which others there are; an admin switches it with a name."""
    agent, runtimes = context.agent, context.services.runtimes
    check_models(agent.runtime, runtimes.abilities(agent))
    wanted = context.arguments.text("NAME")
    if wanted and not context.is_admin:
        raise CommandFault("Only an admin may switch an agent's model; `!model` tells which it is.")
    if wanted:
        done = await context.do("agents.set_model", agent_id=agent.agent_id, model=wanted)
        return f"{name_of(agent)} thinks with {code(done['model'])} from now on."
    available, current = await runtimes.models(agent), await runtimes.model(agent)
    return f"{name_of(agent)} thinks with {code(current or 'unknown')}.{_listed(available)}"


@command(Argument("on|off", Kind.CHOICE, choices=("on", "off")))
async def tools(context: CommandContext) -> str:
    """Tells whether it is shown here which tools the agent uses; an admin changes it."""
    wanted = context.arguments.text("on|off")
    if wanted and not context.is_admin:
        raise CommandFault("Only an admin may change that; `!tools` tells how it is.")
    if wanted:
        await _change(context, tool_activity=wanted == "on")
    return "\n".join(_tool_activity(context, agent) for agent in context.agents)


@command(permission="admin")
async def pause(context: CommandContext) -> str:
    """Leaves messages here unanswered until `!resume`."""
    await _change(context, paused=True)
    return f"Paused: {_names(context.agents)} leaves messages here unanswered until `!resume`."


@command(aliases=("unpause",), permission="admin")
async def resume(context: CommandContext) -> str:
    """Answers messages here again."""
    await _change(context, paused=False)
    return f"{_names(context.agents)} answers here again."


async def _change(context: CommandContext, **changes: bool) -> None:
    for agent in context.agents:
        await context.do("rooms.set", step=agent.agent_id, agent_id=agent.agent_id, **changes)


def _tool_activity(context: CommandContext, agent: Agent) -> str:
    if not context.services.runtimes.abilities(agent).tools:
        return f"The runtime {code(agent.runtime)} does not tell which tools {name_of(agent)} uses."
    shown = context.services.rooms.settings(agent.agent_id, context.turn.room_id).tool_activity
    if shown is None:
        shown = context.services.config.conversations.tool_activity
    return f"The tools that {name_of(agent)} uses are {'shown' if shown else 'not shown'} here."


def _listed(available: Sequence[str]) -> str:
    if not available:
        return " Its runtime lists no others."
    lines = [f"- {code(name)}" for name in available[:_MODELS_LISTED]]
    if len(available) > _MODELS_LISTED:
        lines.append(f"- … and {len(available) - _MODELS_LISTED} more")
    return "\n".join([" It can be switched to:", "", *lines])


def _names(agents: Sequence[Agent]) -> str:
    return ", ".join(name_of(agent) for agent in agents)
