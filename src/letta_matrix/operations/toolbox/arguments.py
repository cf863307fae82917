"""What tools are given that act in rooms. What is optional may be ""."""

from typing import Annotated

from pydantic import Field

from letta_matrix.operations.toolbox.tool import CLEAN, EVENT, USER, Params, Stripped, WriteParams

ROOM = "room id (!...), alias (#...) or exact name"

RoomRef = Annotated[Stripped, Field(min_length=1, max_length=255), CLEAN]
"""How a room is named: `!id`, `#alias`, or its exact name among the caller's rooms."""

OptionalRoom = Annotated[Stripped, Field(max_length=255), CLEAN]

OptionalEvent = Annotated[Stripped, Field(pattern=f"^({EVENT})?$"), CLEAN]

OptionalUser = Annotated[Stripped, Field(pattern=f"^({USER})?$", max_length=255), CLEAN]

Words = Annotated[Stripped, CLEAN]
"""Text of one or several lines, or ""."""

After = Annotated[int, Field(ge=0, description="`next` of an earlier answer")]
"""Where a page of a list begins."""


class RoomParams(Params):
    """The arguments of a tool that looks at a room."""

    room_id: RoomRef = Field(description=ROOM)


class RoomWriteParams(RoomParams, WriteParams):
    """The arguments of a tool that changes something in a room."""
