"""Small things many tests need: configurations, events, rows."""

import itertools
import time
from pathlib import Path
from typing import Any

from letta_matrix.config import Config
from letta_matrix.matrix.identifiers import user_id
from letta_matrix.store.agents import Agent

PERSON = "@ann:test"
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


def message(body: Any = "hello", room_id: str = "!1:test", **fields: Any) -> dict[str, Any]:
    """A text message by a person, now, with an event id of its own."""
    event: dict[str, Any] = {
        "type": "m.room.message",
        "event_id": f"$event{next(_numbers)}",
        "room_id": room_id,
        "sender": PERSON,
        "origin_server_ts": int(time.time() * 1000),
        "content": {"msgtype": "m.text", "body": body},
    }
    return event | fields
