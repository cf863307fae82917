"""What a conversation's stored messages tell of its turns."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from letta_matrix.common.json_fields import Json, string_of
from letta_matrix.runtimes.faults import RuntimeRefused
from letta_matrix.runtimes.letta_api.pages import identity, pages
from letta_matrix.runtimes.letta_json import calls_of

if TYPE_CHECKING:
    from letta_matrix.runtimes.letta_api.client import Client

MAX_PAGES = 20
CLOCK_SKEW = 600.0
"""Seconds by which the server's clock may differ from ours."""
ASKING = "approval_request_message"
ANSWER = "approval_response_message"
PROMPTS = ("user_message", "system_message")
TOOL_KINDS = ("tool_call_message", "tool_return_message", ASKING)
_SETTLED = (ANSWER, "tool_return_message", *PROMPTS)


async def messages_since(
    client: "Client", conversation_id: str, since: float
) -> AsyncGenerator[Json]:
    """Stored messages, newest first, back to those that are surely older than `since` (seconds
    since the epoch): each once, in at most `MAX_PAGES` pages."""
    seen = set[tuple[str, ...]]()
    found = pages(partial(client.conversation_messages, conversation_id), MAX_PAGES)
    async with aclosing(found):
        async for page in found:
            for message in [message for message in page if identity(message) not in seen]:
                if 0.0 < _time_of(message) < since - CLOCK_SKEW:
                    return
                yield message
            seen.update(map(identity, page))


async def used_tools(client: "Client", conversation_id: str, run_id: str, since: float) -> bool:
    """Whether a run may have used tools, by what its conversation keeps of it, if anything."""
    try:
        async with aclosing(messages_since(client, conversation_id, since)) as messages:
            async for message in messages:
                if message.get("run_id") == run_id and message.get("message_type") in TOOL_KINDS:
                    return True
    except RuntimeRefused:
        return True
    return False


def waiting_calls(newest_first: Iterable[Json]) -> list[str]:
    """The ids of the tool calls that wait for an answer: those of the last step, if nothing that
    settles them came after."""
    waiting: list[str] = []
    for message in newest_first:
        kind = message.get("message_type")
        if kind in _SETTLED or (waiting and kind != ASKING):
            break
        if kind == ASKING:
            waiting += [string_of(call, "tool_call_id") for call in calls_of(message)]
    return [call_id for call_id in dict.fromkeys(reversed(waiting)) if call_id]


def _time_of(message: Json) -> float:
    """When a message was stored, in seconds since the epoch; 0 if it does not tell."""
    try:
        moment = datetime.fromisoformat(string_of(message, "date"))
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
