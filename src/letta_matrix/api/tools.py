"""Every tool by its name: what there is, and a call of it."""

from typing import Annotated, Any

from fastapi import Body as Given
from fastapi import Path, Request
from pydantic import ConfigDict, Field

from letta_matrix.api.calling import IdempotencyKey, Json, call
from letta_matrix.api.presence import Presence
from letta_matrix.api.problems import FROM_TOOLS, may
from letta_matrix.api.routing import Answer, router_for
from letta_matrix.api.security import Api, Holder
from letta_matrix.toolbox.others import called_by
from letta_matrix.toolbox.tool import Tool

router = router_for("tools")

_ARGUMENTS = {"room_id": "Ada - Letta Agent Chat", "message": "Good morning, **Ada**."}


class ToolInfo(Answer):
    """A tool: what it takes and gives, as JSON Schemas."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "matrix_whoami",
                    "title": "Who am I",
                    "description": "Tell your own Matrix user id.",
                    "scope": "read",
                    "read_only": True,
                    "destructive": False,
                    "idempotent": True,
                    "parameters": {"type": "object", "properties": {}},
                    "results": {"type": "object"},
                }
            ]
        }
    )

    name: str
    title: str
    description: str
    scope: str = Field(description="what a token must have for it")
    read_only: bool
    destructive: bool = Field(description="it does what cannot be undone")
    idempotent: bool = Field(description="a second call changes nothing more")
    parameters: dict[str, Any] = Field(description="the JSON Schema of its arguments")
    results: dict[str, Any] = Field(description="the JSON Schema of its result")


class ToolList(Answer):
    tools: list[ToolInfo]


@router.get("/tools")
async def list_tools(api: Api, holder: Holder) -> ToolList:
    """List the tools that your token may call."""
    return ToolList(tools=[_told(tool) for tool in api.toolbox.tools_for(holder)])


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


def _told(tool: Tool[Any]) -> ToolInfo:
    return ToolInfo(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        scope=str(tool.scope),
        read_only=tool.read_only,
        destructive=tool.destructive,
        idempotent=tool.idempotent or tool.read_only,
        parameters=tool.parameters,
        results=tool.results,
    )
