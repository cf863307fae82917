"""What a conversation's stored messages tell of a turn."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from letta_matrix.common.json_fields import Json, as_list, id_of, text_of
from letta_matrix.runtimes.app_server.connection import Connection
from letta_matrix.runtimes.app_server.frames import Scope, changed_at
from letta_matrix.runtimes.letta_json import calls_of
from letta_matrix.runtimes.protocol import TextDelta

PAGE = 50
MAX_PAGES = 10
_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)
_OURS = "$"
"""How the ids of prompts from Matrix begin."""
_TOOL_TYPES = ("approval_request_message", "tool_call_message", "tool_return_message")


@dataclass(slots=True)
class StoredTurn:
    """A turn as stored: its assistant texts by message id, in order.

    `before` is the id of the message that stands before the turn, `followed` tells that
    another message of a person came after it, `tools` that a tool was called, `in_tools`
    that nothing was said after that; `calls` are the ids of what was called, `returned` tells
    that some of it has ended.
    """

    texts: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    before: str = ""
    followed: bool = False
    tools: bool = False
    in_tools: bool = False
    calls: set[str] = field(default_factory=set[str])
    returned: bool = False

    @property
    def said(self) -> list[TextDelta]:
        return [TextDelta(part_id, text) for part_id, text in self.texts]


async def find_turn(connection: Connection, scope: Scope, message_id: str) -> StoredTurn | None:
    """Look a turn up by its prompt's `otid`; None if the prompt is not stored.

    Raises:
        RuntimeUnavailable, RuntimeRefused: as `Connection.call`.
    """
    newest_first: list[Json] = []
    async with aclosing(pages(connection, scope)) as found:
        async for page in found:
            newest_first += page
            if any(message.get("otid") == message_id for message in newest_first[:-1]):
                break
    return read_turn(newest_first[::-1], message_id)


async def pages(connection: Connection, scope: Scope) -> AsyncGenerator[list[Json]]:
    """A conversation's stored messages, newest first, at most `MAX_PAGES` pages.

    Raises:
        RuntimeUnavailable, RuntimeRefused: as `Connection.call`.
    """
    query: Json = {"limit": PAGE, "agent_id": scope.agent_id}
    for _ in range(MAX_PAGES):
        answer = await connection.call("conversation_messages_list", **scope.as_json(), query=query)
        page = as_list(answer.get("messages"))
        yield page
        if not answer.get("has_more") or not page:
            return
        query["before"] = answer.get("next_before") or id_of(page[-1])


async def conversations(
    connection: Connection, since: str, limit: int, most: int, **of: str
) -> AsyncGenerator[Json]:
    """Conversations by the time of their last change, the latest first: those after `since` and
    perhaps some more, in at most so many pages of `limit`. `of` narrows the listing.

    Raises:
        RuntimeUnavailable, RuntimeRefused: as `Connection.call`.
    """
    query: Json = {**of, "limit": limit}
    for _ in range(most):
        answer = await connection.call("conversation_list", query=query)
        page = [item for item in as_list(answer.get("conversations")) if id_of(item)]
        for item in page:
            yield item
        if len(page) < limit or changed_at(page[-1]) < since:
            return
        query["after"] = id_of(page[-1])


def read_turn(messages: list[Json], message_id: str) -> StoredTurn | None:
    """The turn that `message_id` prompted, out of messages in order.

    An App Server that was restarted in mid-turn stores the prompt a second time; the reply
    is then what follows the last of them.
    """
    prompts = [i for i, message in enumerate(messages) if message.get("otid") == message_id]
    if not prompts:
        return None
    first, last = prompts[0], prompts[-1]
    turn = StoredTurn(before=id_of(messages[first - 1]) if first else "")
    for message in messages[last + 1 :]:
        kind = message.get("message_type")
        text = own_text(message)
        if is_prompt(message):
            turn.followed = True
            break
        if kind == "assistant_message" and text:
            turn.texts.append((str(message.get("id", "")), text))
            turn.in_tools = False
        elif kind in _TOOL_TYPES:
            turn.tools = turn.in_tools = True
            turn.returned |= kind == "tool_return_message"
            turn.calls |= {str(call.get("tool_call_id") or "") for call in calls_of(message)}
    return turn


def is_prompt(message: Json) -> bool:
    """Whether a stored message is somebody's, not a reminder of the App Server. What came from
    Matrix is, even if no text of it was kept."""
    if message.get("message_type") != "user_message":
        return False
    return is_ours(message) or bool(own_text(message))


def is_ours(message: Json) -> bool:
    """Whether a stored prompt came from Matrix, by its id."""
    return str(message.get("otid") or "").startswith(_OURS)


def own_text(message: Json) -> str:
    """A message's text without the reminders that the App Server puts into it."""
    return _REMINDER.sub("", text_of(message.get("content"))).strip()
