"""The bridge that the pages tell of: one with a phone line, which does not run."""

import asyncio
from functools import cache
from typing import Any

from letta_matrix.app.assembly import App
from letta_matrix.config import Config


@cache
def program(toolset: str = "usual") -> App:
    """Its parts; its agents may call every tool, and are shown those of a set at once."""
    given = {
        "homeserver": {"url": "http://127.0.0.1:8008", "domain": "example.org"},
        "appservice": {"as_token": "a", "hs_token": "h"},
        "conversations": {"toolset": toolset, "destructive_tools": True},
        "sms": {},
    }
    return asyncio.run(_made(Config.model_validate(given)))


def operations() -> list[Any]:
    """All there are, which have further fields than tools."""
    return [one for name, one in program().toolbox.operations.items() if "." in name]


async def _made(config: Config) -> App:
    app = App(config, {})
    await app.homeserver.close()
    return app
