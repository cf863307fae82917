"""The tool by which one agent asks another."""

import asyncio
from functools import partial
from typing import NotRequired

from pydantic import Field

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common import clock
from letta_matrix.common.backoff import Backoff
from letta_matrix.matrix.content import text_content
from letta_matrix.operations.toolbox.agent_tools import AGENT
from letta_matrix.operations.toolbox.finding import find_agent
from letta_matrix.operations.toolbox.progress import telling
from letta_matrix.operations.toolbox.results import UNTRUSTED, OfEvent, cut, fit_texts
from letta_matrix.operations.toolbox.tool import (
    LONGEST_WAIT,
    Caller,
    Line,
    Markdown,
    Result,
    WriteParams,
    tool,
)
from letta_matrix.operations.toolbox.writing import fitting, marker_of, send_once, spoken
from letta_matrix.store.agents import Agent
from letta_matrix.store.turn_ids import turn_id_of
from letta_matrix.store.turns import TurnStatus, TurnStore

_RECENT = 200
"""Newest turns among which agents that ask each other through the bot are looked for."""

_LOOKS = Backoff(0.05, 1.0, growth=1.5)
_NOT_YET = (
    "It is sent and not answered yet. The answer will stand in the thread of this message; do "
    "not send it again."
)
_CUT = "The answer is too long and is cut; ask for the rest of it."


class MessageAgent(WriteParams):
    agent: Line = Field(max_length=255, description=AGENT)
    message: Markdown = Field(description="what to tell it, as Markdown")
    wait_seconds: float = Field(
        120.0, ge=0, le=LONGEST_WAIT, description="how long to wait for the answer; 0: do not wait"
    )


class AgentAnswer(OfEvent):
    """What an agent answered; without `answer` it has not yet."""

    agent: str
    agent_id: str
    answer: NotRequired[str]
    untrusted: NotRequired[str]
    note: NotRequired[str]


@tool("message_agent", "Message an agent", Scope.AGENTS, AgentAnswer, seconds=None)
async def message_agent(caller: Caller, params: MessageAgent) -> Result:
    """Send a message to another agent and wait for its answer."""
    began = clock.now()
    house, target = caller.house, _target(caller, params.agent)
    hops = await _hops(caller, target)
    if hops + 1 > house.config.conversations.max_hops:
        raise ToolError(
            f"This conversation has gone from agent to agent {hops} times, which is as "
            "far as it may go. Answer with what you know, or ask a human.",
            Fault.FORBIDDEN,
        )
    event_id = await _post(caller, target, spoken(params.message), hops + 1)
    told = {
        "agent": cut(target.name, 200),
        "agent_id": target.agent_id,
        "room_id": target.room_id,
        "event_id": event_id,
    }
    turn_id = turn_id_of(event_id, target.agent_id)
    # Whoever calls waits for the whole, of which a slow homeserver may have taken its part.
    seconds = min(params.wait_seconds, began + LONGEST_WAIT - clock.now())
    async with telling(caller, params.wait_seconds, "waiting for the agent's answer"):
        is_done = await _is_done(house.turns, turn_id, seconds)
    if not is_done:
        return {**told, "note": _NOT_YET}
    answer = await house.outbox.said(turn_id) or "(no answer)"
    return fit_texts(lambda length: {**told, **UNTRUSTED, "answer": cut(answer, length)}, _CUT)


def _target(caller: Caller, ref: str) -> Agent:
    target = find_agent(ref, caller.agents())
    if target.agent_id == caller.agent_id:
        raise ToolError("That is you. Give another agent.")
    if target.room_id is None:
        raise ToolError(f"{target.name} has no room yet; try again in a minute.", Fault.UNAVAILABLE)
    if caller.house.rooms.settings(target.agent_id, target.room_id).paused:
        text = f"{target.name} is paused in its room; people there can resume it."
        raise ToolError(text, Fault.CONFLICT)
    return target


async def _hops(caller: Caller, target: Agent) -> int:
    """How often what the caller works on was passed on from agent to agent."""
    if caller.place is not None:
        return caller.hops
    if not caller.agent_id:
        return await _hops_as_bot(caller, target)
    # An agent may call through another door too, in the middle of what it was asked.
    turns = await caller.house.turns.unfinished(agent_id=caller.agent_id)
    return max((turn.hops for turn in turns), default=0)


async def _hops_as_bot(caller: Caller, target: Agent) -> int:
    """The hops of what agents work on now that the bot has asked since it last asked `target`:
    they may have been asked by it, as the bot too, and now ask it again."""
    # Programs that use the REST API ask for many people at once; agents come through MCP.
    if caller.door != "mcp":
        return 0
    hops = 0
    for turn in await caller.house.turns.newest(_RECENT):
        if turn.sender != caller.user_id:
            continue
        if turn.status is not TurnStatus.DONE:
            hops = max(hops, turn.hops)
        if turn.agent_id == target.agent_id:
            return hops
    return 0


async def _post(caller: Caller, target: Agent, message: str, hops: int) -> str:
    """Say it in the target's own room, marked so that it prompts the target alone."""
    txn = caller.txn("message_agent")
    marker = marker_of(caller, "message_agent", txn) | {"prompts": target.agent_id, "hops": hops}
    why = "`message` is too long for one message; send it in parts."
    content = await fitting(message, partial(text_content, message, marker=marker), why)
    async with caller.house.guest_posting.visit(caller.intent, target) as room_id:
        return await send_once(caller, room_id, content, txn)


async def _is_done(turns: TurnStore, turn_id: str, seconds: float) -> bool:
    """Whether the turn is over, waiting for that `seconds` at most."""
    deadline = clock.now() + seconds
    for pause in _LOOKS:
        turn = await turns.get(turn_id)
        if turn is not None and turn.status is TurnStatus.DONE:
            return True
        left = deadline - clock.now()
        if left <= 0:
            break
        await asyncio.sleep(min(pause, left))
    return False
