"""Which of the tools that somebody may call are shown to them at once.

Models pay for each description in every request, and clients warn above 40 tools. What is not
shown can be found and called by one that is: `others.py`.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from letta_matrix.access.principal import Scope
from letta_matrix.operations.toolbox.tool import Tool
from letta_matrix.portals.day_budget import PICTURE, TEXT


class Toolset(StrEnum):
    """How many tools are shown; each has those of the one before."""

    FEW = "few"  # what matters in a conversation
    USUAL = "usual"
    ALL = "all"


_FEW = frozenset(
    {
        "matrix_send_message",
        "matrix_reply",
        "matrix_react",
        "matrix_read_room",
        "matrix_list_rooms",
        "matrix_upload_file",
        "message_agent",
        "ask_human",
    }
)
_CONFIGURED = frozenset({TEXT, PICTURE})
"""Shown where there are such: who has configured a phone line or another network wants it used."""
_RARE = frozenset(
    {
        "matrix_add_to_space",
        "matrix_get_state",
        "matrix_send_voice",
        "matrix_set_power_level",
        "matrix_set_typing",
        "matrix_unban",
    }
)


def shown(tools: Iterable[Tool[Any]], toolset: Toolset) -> list[Tool[Any]]:
    """Those of `tools` that are in a set."""
    if toolset is Toolset.ALL:
        return list(tools)
    if toolset is Toolset.FEW:
        return [tool for tool in tools if tool.name in _FEW | _CONFIGURED]
    return [one for one in tools if one.name not in _RARE and one.scope is not Scope.ADMIN]
