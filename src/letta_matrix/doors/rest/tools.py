"""Every tool by its name: what there is, and a call of it."""

from typing import Annotated, Any

from fastapi import Body as Given
from fastapi import Path, Request

from letta_matrix.doors.rest.calling import IdempotencyKey, Json, call
from letta_matrix.doors.rest.presence import Presence
from letta_matrix.doors.rest.problems import FROM_TOOLS, may
from letta_matrix.doors.rest.routing import Answer, router_for
from letta_matrix.doors.rest.security import Api, Holder
from letta_matrix.operations.toolbox.others import called_by
from letta_matrix.operations.types import Tool, told

router = router_for("tools")

_ARGUMENTS = {"room_id": "Ada - Letta Agent Chat", "message": "Good morning, **Ada**."}


class ToolList(Answer):
    tools: list[Tool]


@router.get("/tools")
async def list_tools(api: Api, holder: Holder) -> ToolList:
    """List the tools that your token may call."""
    tools = api.toolbox.tools_for(holder)
    return ToolList(
        tools=[told(Tool, one, idempotent=one.idempotent or one.read_only) for one in tools]
    )


@router.post(
    "/tools/{name}",
    response_model=dict[str, Any],
    responses=FROM_TOOLS
    | may("unknown-tool", "not-found")
    | {
        200: {
            "description": "The tool's result",
            "content": {
                "application/json": {
                    "example": {"event_id": "$1a2b3c", "room_id": "!abc:example.org"}
                }
            },
        }
    },
)
async def call_tool(
    request: Request,
    api: Api,
    holder: Holder,
    name: Annotated[str, Path(max_length=100, examples=["matrix_send_message"])],
    arguments: Annotated[
        dict[str, Any] | None,
        Given(
            description="the tool's arguments; GET /api/v1/tools has their schema",
            examples=[_ARGUMENTS],
        ),
    ] = None,
    key: IdempotencyKey = "",
) -> Json:
    """Call a tool.

    A call with an `Idempotency-Key`, or with the argument `transaction_id`, changes something
    once, however often it is sent. What waits for somebody ends when the client goes away.
    """
    name, given = called_by(name, arguments or {})
    work = call(api, holder, name, given, key)
    tool = api.toolbox.tools.get(name)
    waits = tool is not None and tool.seconds is None
    return Json(await (Presence(request).during(work) if waits else work))
