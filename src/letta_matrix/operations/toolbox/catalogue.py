"""Which tools there are."""

from typing import Any

from letta_matrix.operations.toolbox import (
    agent_tools,
    downloads,
    editing,
    files,
    history,
    membership_tools,
    messaging,
    polls,
    read_state,
    reading,
    room_info,
    room_making,
    room_settings,
    searching,
    unread,
    waiting,
    writing,
)
from letta_matrix.operations.toolbox.asking import AskingPeople
from letta_matrix.operations.toolbox.tool import Tool, tools_in

_SAYING = writing, editing, read_state, files, polls
_LOOKING = history, searching, unread, reading, room_info, downloads
_ROOMS = membership_tools, room_making, room_settings
_AGENTS = agent_tools, messaging


def every_tool(asking: AskingPeople) -> dict[str, Tool[Any]]:
    """All of them by their names, in the order in which they are shown."""
    owners = *_SAYING, *_LOOKING, *_ROOMS, *_AGENTS, asking, waiting
    return {tool.name: tool for owner in owners for tool in tools_in(owner)}
