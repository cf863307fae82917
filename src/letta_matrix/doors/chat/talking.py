"""Commands about the conversation that goes on where they are given."""

import time
from typing import Any

from letta_matrix.access.faults import ToolError
from letta_matrix.doors.chat.command import CommandContext, command
from letta_matrix.doors.chat.texts import ago, name_of, titled
from letta_matrix.operations.conversations import ConversationTold, Returned
from letta_matrix.operations.records import Agent
from letta_matrix.operations.turns import Unstopped
from letta_matrix.operations.typed import Argument, Kind, Where

_LISTED = 20


@command(aliases=("reset",))
async def new(context: CommandContext) -> str:
    """Starts a new conversation with the next message; in a thread, that of the thread."""
    agents, runtimes = context.agents, context.services.runtimes
    able = [one for one in agents if runtimes.abilities(one).conversations]
    done = [await _do(context, "leave", agent) for agent in able or agents[:1]]
    if any(one["left"] for one in done):
        return "Your next message starts a new conversation. `!conversations` leads back."
    return "Nothing was said since the last start: your next message starts afresh anyway."


@command(Argument("N", Kind.NUMBER), aliases=("conversation", "history"))
async def conversations(context: CommandContext) -> str:
    """Lists the conversations had here; with a number, returns to that one."""
    agent, number = context.agent, context.arguments.number("N")
    context.services.runtimes.abilities(agent)
    if number is not None:
        done = await _do(context, "return", agent, number=number)
        return _returned(done, await context.horizon(agent))
    found = (await _do(context, "list", agent))["conversations"]
    if not found:
        return f"{name_of(agent)} has had no conversation here yet: write, and it begins."
    now, first = time.time(), max(len(found) - _LISTED, 0)
    horizon = await context.horizon(agent)
    lines = [f"Conversations of {name_of(agent)} here; `!conversations N` returns to one.", ""]
    if first:
        lines[0] += f" Older ones have the numbers 1 to {first}."
    thread_id = context.turn.thread_id
    lines += [f"{one['number']}. {_listed(one, thread_id, now, horizon)}" for one in found[first:]]
    return "\n".join(lines)


@command(aliases=("stop",))
async def cancel(context: CommandContext) -> str | None:
    """Stops what you asked here (an admin: all); as a reply, that message alone. A 🛑 does it
    too."""
    target = context.turn.reply_to or ""
    try:
        await context.do("turns.stop", event_id=target)
    except ToolError as error:
        if error.detail not in set(Unstopped):
            raise
        # Before a crash they may have been stopped already, and then they say so themselves.
        return None if context.recovered else _unstopped(error.detail, target)
    return None


@command(Argument("EVENT", required=True), scope=Where.BOTH, hidden=True)
async def react_cancel(context: CommandContext) -> None:
    """Is 🛑."""
    await context.do("turns.stop", event_id=context.arguments.text("EVENT"))


def _unstopped(why: str, target: str) -> str:
    if why == Unstopped.OTHERS:
        return "What is worked on here was asked by others: they can stop it, or an admin."
    if target:
        return "That is not being worked on; `!cancel` that is no reply stops all that is."
    return "Nothing is worked on here; elsewhere, `!cancel` there or a 🛑 on the message stops it."


async def _do(context: CommandContext, verb: str, agent: Agent, **arguments: object) -> Any:
    agent_id = agent.agent_id
    return await context.do(f"conversations.{verb}", step=agent_id, agent_id=agent_id, **arguments)


def _returned(done: Returned, horizon: float) -> str:
    shown = titled(done["title"], done["created_at"], horizon)
    if done["stayed"]:
        return f"{shown} is the one that goes on here already."
    moved = " It goes on here now, and no longer there." if done["moved"] else ""
    return f"We go on with {shown}, last used {ago(time.time() - done['used_at'])}.{moved}"


def _listed(one: ConversationTold, thread_id: str, now: float, horizon: float) -> str:
    notes = [ago(now - one["used_at"])]
    if one["current"] and one["thread_id"] == thread_id:
        notes.append("**current**")
    elif one["thread_id"]:
        notes.append("in another thread" if thread_id else "in a thread")
    elif one["current"]:
        notes.append("in the main timeline")
    return f"{titled(one['title'], one['created_at'], horizon)} · {' · '.join(notes)}"
