"""Commands about the conversation that goes on where they are given."""

import time
from collections.abc import Sequence
from typing import cast

from letta_matrix.access.faults import ToolError
from letta_matrix.doors.chat.command import (
    Argument,
    CommandContext,
    CommandFault,
    Kind,
    Where,
    command,
)
from letta_matrix.doors.chat.texts import ago, counted, name_of, titled
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.turns import Unstopped
from letta_matrix.runtimes.protocol import AgentRuntime
from letta_matrix.store.agents import Agent
from letta_matrix.store.conversations import Conversation
from letta_matrix.store.places import Place

_LISTED = 20


@command(aliases=("reset",))
async def new(context: CommandContext) -> str:
    """Starts a new conversation with the next message; in a thread, that of the thread."""
    able = [a for a in context.agents if context.runtime_of(a).capabilities.conversations]
    if not able:
        raise CommandFault(_single(context.runtime_of(context.agents[0])))
    left = await _fixed_current(context, able)
    for agent in able:
        if conversation_id := left.get(agent.agent_id):
            place = context.place_of(agent)
            await context.services.conversations.leave(place, conversation_id)
    if left:
        return "Your next message starts a new conversation. `!conversations` leads back."
    return "Nothing was said since the last start: your next message starts afresh anyway."


async def _fixed_current(context: CommandContext, agents: Sequence[Agent]) -> dict[str, str]:
    """The conversations that go on here, by agent id; after a crash those that did before it."""
    if isinstance(before := context.remembered.get("left"), dict):
        return cast("dict[str, str]", before)
    store = context.services.conversations
    going = {one.agent_id: store.current(context.place_of(one)) for one in agents}
    left = {agent_id: conversation for agent_id, conversation in going.items() if conversation}
    await context.remember({"left": left})
    return left


@command(Argument("N", Kind.NUMBER), aliases=("conversation", "history"))
async def conversations(context: CommandContext) -> str:
    """Lists the conversations had here; with a number, returns to that one."""
    agent = context.agent
    runtime = context.runtime_of(agent)
    if not runtime.capabilities.conversations:
        raise CommandFault(_single(runtime))
    found = await context.services.conversations.all_in(agent.agent_id, context.turn.room_id)
    # Numbered by age: a number means the same after a return, and after a crash.
    found.sort(key=lambda conversation: conversation.seq)
    number, here = context.arguments.number("N"), context.place_of(agent)
    if number is not None:
        return await _return_to(context, found, number, here)
    if not found:
        return f"{name_of(agent)} has had no conversation here yet: write, and it begins."
    now, first = time.time(), max(len(found) - _LISTED, 0)
    horizon = await context.horizon(agent)
    lines = [f"Conversations of {name_of(agent)} here; `!conversations N` returns to one.", ""]
    if first:
        lines[0] += f" Older ones have the numbers 1 to {first}."
    for position, one in enumerate(found[first:], start=first + 1):
        lines.append(f"{position}. {_listed(one, here, now, horizon)}")
    return "\n".join(lines)


@command(aliases=("stop",))
async def cancel(context: CommandContext) -> str | None:
    """Stops what you asked here (an admin: all); as a reply, that message alone. A 🛑 does it
    too."""
    target = context.turn.reply_to or ""
    try:
        await context.do("turns.cancel", event_id=target)
    except ToolError as error:
        if not error.detail:
            raise
        # Before a crash they may have been stopped already, and then they say so themselves.
        return None if context.recovered else _unstopped(error.detail, target)
    return None


@command(Argument("EVENT", required=True), scope=Where.BOTH, hidden=True)
async def react_cancel(context: CommandContext) -> None:
    """Is 🛑."""
    await context.do("turns.cancel", event_id=context.arguments.text("EVENT"))


def _unstopped(why: str, target: str) -> str:
    if why == Unstopped.OTHERS:
        return "What is worked on here was asked by others: they can stop it, or an admin."
    if target:
        return "That is not being worked on; `!cancel` that is no reply stops all that is."
    return "Nothing is worked on here; elsewhere, `!cancel` there or a 🛑 on the message stops it."


async def _return_to(
    context: CommandContext, found: Sequence[Conversation], number: int, here: Place
) -> str:
    if number > len(found):
        have = counted(len(found), "conversation") if found else "none yet"
        raise CommandFault(
            f"There is no conversation {number} here: {have}. `!conversations` lists them."
        )
    meant, horizon = found[number - 1], await context.horizon(context.agent)
    if meant.current and meant.place == here and not context.recovered:
        return f"{titled(meant, horizon)} is the one that goes on here already."
    await context.services.conversations.return_to(meant, here)
    moved = " It goes on here now, and no longer there." if _moves(meant, here) else ""
    used = ago(time.time() - meant.used_at)
    return f"We go on with {titled(meant, horizon)}, last used {used}.{moved}"


def _moves(conversation: Conversation, here: Place) -> bool:
    return conversation.current and conversation.place != here


def _listed(conversation: Conversation, here: Place, now: float, horizon: float) -> str:
    notes = [ago(now - conversation.used_at)]
    if conversation.current and conversation.place == here:
        notes.append("**current**")
    elif conversation.place.thread_id:
        notes.append("in another thread" if here.thread_id else "in a thread")
    elif conversation.current:
        notes.append("in the main timeline")
    return f"{titled(conversation, horizon)} · {' · '.join(notes)}"


def _single(runtime: AgentRuntime) -> str:
    return (
        f"The runtime {code(runtime.name)} has no conversations: each of its agents keeps one "
        "single history."
    )
