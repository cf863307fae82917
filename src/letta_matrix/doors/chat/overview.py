"""Commands that tell how things stand."""

import time
from collections import Counter

from letta_matrix.common.identifiers import room_alias
from letta_matrix.common.vitals import Check, State
from letta_matrix.doors.chat.answering import listed, waiting_here
from letta_matrix.doors.chat.command import CommandContext, command
from letta_matrix.doors.chat.texts import ago, counted, label, name_of, titled
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.matrix.verbatim import link
from letta_matrix.operations.records import Agent, Replica, TurnStatus
from letta_matrix.operations.typed import Argument, Kind, Where

_AGENTS_LISTED = 50
_SILENT = 10.0
"""Seconds after which a replica that tells nothing is said to."""


@command(scope=Where.BOTH)
async def status(context: CommandContext) -> str:
    """Tells what goes on, what waits, and which approvals are asked for."""
    blocks = [await _agent_status(context, agent) for agent in context.agents]
    if not blocks:
        blocks = [_overall_status(context), *await _approvals_anywhere(context)]
    if waiting := await waiting_here(context):
        ways = f"{context.typed('approve KEY')} or {context.typed('deny KEY')}"
        lines = [f"Approvals that wait; {ways} answers one:", ""]
        blocks.append("\n".join([*lines, *listed(context, waiting)]))
    if context.is_admin and (replicas := context.services.replicas()):
        blocks.append("\n".join(["Replicas:", "", *map(_replica, replicas)]))
    checks = context.services.vitals.checks()
    if troubles := [check for check in checks if check.state is State.TROUBLE]:
        blocks.append(_troubles(context, troubles))
    if context.is_admin and (warnings := [one for one in checks if one.state is State.WARNING]):
        blocks.append("\n".join(["Warnings:", "", *map(_trouble, warnings)]))
    return "\n\n".join(blocks)


@command(scope=Where.BOTH)
async def whoami(context: CommandContext) -> str:
    """Tells who and where you are."""
    role = "an admin" if context.is_admin else "a user"
    lines = [f"You are {code(context.turn.sender)}, {role}."]
    for agent in context.agents:
        where = "This is the room of" if agent.room_id == context.turn.room_id else "Here is also"
        runtime = f"runtime {code(agent.runtime)}"
        lines.append(f"{where} {name_of(agent)}: {code(agent.agent_id)}, {runtime}.")
    if not context.agents:
        lines.append(
            f"I am {code(context.services.config.bot_user_id)}, who looks after the agents."
        )
    return "\n".join(lines)


@command(Argument("TEXT", Kind.TEXT), scope=Where.BOTH)
async def agents(context: CommandContext) -> str:
    """Lists all agents and where they live, or those with a text in their name."""
    wanted = context.arguments.text("TEXT").lower()
    found = [
        agent
        for agent in active(context)
        if wanted in agent.name.lower() or wanted in agent.runtime.lower()
    ]
    if not found:
        if wanted:
            return f"No agent is called anything like {code(wanted)}; `!agents` lists all."
        return "No agents yet: they appear by themselves, or an admin's `!create NAME` makes one."
    found.sort(key=lambda agent: (agent.runtime, agent.name.lower()))
    lines = [f"{counted(len(found), 'agent')}:", ""]
    lines += [
        f"- {room_link(context, one)} · {code(one.runtime)}" for one in found[:_AGENTS_LISTED]
    ]
    if len(found) > _AGENTS_LISTED:
        left = len(found) - _AGENTS_LISTED
        lines.append(f"- … and {left} more: `!agents TEXT` lists those with a text in their name")
    return "\n".join(lines)


def active(context: CommandContext) -> list[Agent]:
    """The agents there are."""
    return context.services.directory.active()


def room_link(context: CommandContext, agent: Agent) -> str:
    """An agent's name, with a link to its room."""
    shown = label(agent.name, agent.agent_id)
    return link(shown, room_alias(agent.agent_id, context.services.config.homeserver.domain))


async def _agent_status(context: CommandContext, agent: Agent) -> str:
    services, place = context.services, context.place_of(agent)
    lines = [f"{name_of(agent)} · runtime {code(agent.runtime)}", ""]
    lines.append(f"- Conversation: {await _conversation(context, agent)}")
    lines.append(f"- Now: {await _doing(context, agent)}")
    if (behind := services.waiting(place) - 1) > 0:
        lines.append(f"- Waiting: {counted(behind, 'message')}")
    if services.rooms.settings(agent.agent_id, context.turn.room_id).paused:
        lines.append("- Paused here: `!resume` ends that")
    if trouble := services.trouble_of(agent.agent_id):
        lines.append(f"- Trouble: {code(trouble, limit=300)}")
    return "\n".join(lines)


async def _doing(context: CommandContext, agent: Agent) -> str:
    turn = await context.services.turns.open_at(context.place_of(agent))
    if turn is None or turn.status is TurnStatus.DONE:
        return "idle"
    since = ago(time.time() - turn.sent_at)
    if context.services.approvals.waits(turn.turn_id):
        return (
            f"waiting for an answer to its question, on the message of {code(turn.sender)}, {since}"
        )
    doing = {TurnStatus.QUEUED: "about to begin", TurnStatus.REPLYING: "sending its reply"}
    return f"{doing.get(turn.status, 'working')} on the message of {code(turn.sender)}, {since}"


async def _conversation(context: CommandContext, agent: Agent) -> str:
    runtimes = context.services.runtimes
    if agent.runtime not in runtimes.names:
        return "none, as the runtime is no longer configured"
    if not runtimes.abilities(agent).conversations:
        return "the agent's single history"
    place = context.place_of(agent)
    for one in await context.services.conversations.all_in(agent.agent_id, place.room_id):
        if one.current and one.place == place:
            horizon = await context.horizon(agent)
            called = titled(one.title, one.created_at, horizon)
            return f"{called}, since {ago(time.time() - one.created_at)}"
    return "a new one begins with the next message"


def _overall_status(context: CommandContext) -> str:
    names = context.services.runtimes.names
    runtimes = [agent.runtime for agent in active(context)]
    lines = [f"{counted(len(runtimes), 'agent')} in {counted(len(names), 'runtime')}:", ""]
    lines += [f"- {code(name)}: {counted(runtimes.count(name), 'agent')}" for name in names]
    return "\n".join(lines)


async def _approvals_anywhere(context: CommandContext) -> list[str]:
    """Where approvals wait, for admins; what they ask for is for their rooms alone."""
    if not context.is_admin:
        return []
    waiting = await context.services.approvals.store.pending()
    counts = Counter(one.room_id for one in waiting)
    if not counts:
        return []
    lines = [
        f"- {counted(count, 'approval')} in {link(code(room_id, limit=255), room_id)}"
        for room_id, count in counts.items()
    ]
    return ["\n".join(["Approvals wait; they are answered in their rooms:", "", *lines])]


def _replica(one: Replica) -> str:
    seen = f", last heard of {ago(one.seen)}" if one.seen > _SILENT else ""
    state = one.state + (", does not reach the homeserver" if one.reaches is False else "")
    return f"- {code(one.replica_id)} at {code(one.host)}: {state}, {code(one.version)}{seen}"


def _troubles(context: CommandContext, troubles: list[Check]) -> str:
    if not context.is_admin:
        return "Something is wrong on my side; an admin's `!status` says what."
    return "\n".join(["Troubles:", "", *map(_trouble, troubles)])


def _trouble(check: Check) -> str:
    remedy = f"; what to do: {code(check.remedy, limit=300)}" if check.remedy else ""
    who = f" ({code(check.who, limit=300)})" if check.who else ""
    return f"- {code(check.name)}: {code(check.says, limit=300)}{who}{remedy}"
