"""Small things many tests need: configurations, events, rows."""

import itertools
import time
from pathlib import Path
from typing import Any

from letta_matrix.common.identifiers import user_id
from letta_matrix.config import Config
from letta_matrix.conversations.approval_question import ApprovalSight
from letta_matrix.conversations.new_turns import new_turn
from letta_matrix.store.agents import Agent
from letta_matrix.store.approvals import Approval
from letta_matrix.store.database import Database
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.turns import Turn

PERSON = "@ann:test"
APPROVABLE = {"approvers": "requester", "approver_tools": ["Bash", "Write"]}
"""Settings of `conversations` by which people approve what their own messages led to."""
_numbers = itertools.count(1)


def config_for(directory: Path, **sections: Any) -> Config:
    """A configuration for the domain `test`, where everybody of it is a user."""
    return Config.model_validate(
        {
            "homeserver": {"url": "http://127.0.0.1:9", "domain": "test"},
            "appservice": {"as_token": "as-secret", "hs_token": "hs-secret"},
            "runtimes": [{"type": "memory", "agents": 0}],
            "permissions": {"test": "user"},
            "directory": directory,
            **sections,
        }
    )


def agent(number: int = 1, room_id: str | None = None, **fields: Any) -> Agent:
    """A row of the `agents` table; its id is `agent-NUMBER`, its room `!NUMBER:test`."""
    agent_id = f"agent-{number}"
    values: dict[str, Any] = {
        "agent_id": agent_id,
        "runtime": "memory",
        "name": f"Agent {number}",
        "user_id": user_id(agent_id, "test"),
        "room_id": room_id or f"!{number}:test",
    }
    return Agent(**values | fields)


async def always() -> bool:
    """Tells that a bridge is ready."""
    return True


def stamp() -> int:
    """When an event that is made now was sent, in milliseconds."""
    return int(time.time() * 1000)


def message(body: Any = "hello", room_id: str = "!1:test", **fields: Any) -> dict[str, Any]:
    """A text message by a person, now, with an event id of its own."""
    event: dict[str, Any] = {
        "type": "m.room.message",
        "event_id": f"$event{next(_numbers)}",
        "room_id": room_id,
        "sender": PERSON,
        "origin_server_ts": stamp(),
        "content": {"msgtype": "m.text", "body": body},
    }
    return event | fields


def said_in(root: str, body: Any = "hello", room_id: str = "!1:test", **fields: Any) -> Any:
    """A message in the thread below `root`, as clients send it (spec: Threading)."""
    event = message(body, room_id, **fields)
    event["content"]["m.relates_to"] = {
        "rel_type": "m.thread",
        "event_id": root,
        "is_falling_back": True,
        "m.in_reply_to": {"event_id": root},
    }
    return event


def reply_to(target: str, body: Any = "hello", room_id: str = "!1:test", **fields: Any) -> Any:
    """A message that replies to `target`."""
    event = message(body, room_id, **fields)
    event["content"]["m.relates_to"] = {"m.in_reply_to": {"event_id": target}}
    return event


def reaction(target: str, key: str, room_id: str = "!1:test", **fields: Any) -> dict[str, Any]:
    """A person's reaction to `target`."""
    relation = {"rel_type": "m.annotation", "event_id": target, "key": key}
    return message(room_id=room_id, type="m.reaction", content={"m.relates_to": relation}, **fields)


def edit(target: str, body: Any = "hello", room_id: str = "!1:test", **fields: Any) -> Any:
    """An edit of `target`; `fields` are the event's, `new` what its new content has besides."""
    new = {"msgtype": "m.text", "body": body, **fields.pop("new", {})}
    event = message(f"* {body}", room_id, **fields)
    event["content"] |= {
        "m.new_content": new,
        "m.relates_to": {"rel_type": "m.replace", "event_id": target},
    }
    return event


def redaction(target: str, room_id: str = "!1:test", **fields: Any) -> dict[str, Any]:
    """A redaction of `target`, as room versions since 11 have it."""
    content = {"redacts": target}
    return message(room_id=room_id, type="m.room.redaction", content=content, **fields)


def invite(user: str, room_id: str, **fields: Any) -> dict[str, Any]:
    """A person's invite of `user` into a room."""
    content = {"membership": "invite"}
    event = message(room_id=room_id, type="m.room.member", state_key=user, content=content)
    return event | fields


def entry_of(event: dict[str, Any], *turns: Turn) -> InboxEntry:
    """An event that was routed, with the turns it starts."""
    return InboxEntry(event["event_id"], event["room_id"], event, InboxState.ROUTED, list(turns))


async def stored_turn(
    database: Database, text: str | None = "hello", event: dict[str, Any] | None = None
) -> Turn:
    """A turn of agent-1 as it was admitted; its event is a new message unless given."""
    event = event or message(text)
    entry = entry_of(event, new_turn(event, "agent-1", text))
    (turn,) = (await Inbox(database).admit(event["event_id"], [entry])).turns
    return turn


def asked_approval(turn: Turn, key: str, **fields: Any) -> Approval:
    """A pending approval to run Bash, asked now, for a minute."""
    now = time.time()
    values: dict[str, Any] = {
        "key": key,
        "turn_id": turn.turn_id,
        "approval_id": f"approval-{key}",
        "agent_id": turn.agent_id,
        "room_id": turn.room_id,
        "thread_id": turn.thread_id,
        "requester": turn.sender,
        "tool": "Bash",
        "arguments": {"command": "ls"},
        "always": False,
        "prompt_txn": f"txn-{key}",
        "asked_at": now,
        "expires_at": now + 60,
    }
    return Approval(**values | fields)


class InSight(ApprovalSight):
    """Takes every question for what was asked."""

    def __init__(self) -> None:
        pass

    async def is_as_asked(self, approval: Approval) -> bool:
        return True
