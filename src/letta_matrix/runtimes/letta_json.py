"""What Letta's servers take and keep, both the App Server and the Letta API."""

import base64

from letta_matrix.common.json_fields import Json, as_list, id_of, mapping
from letta_matrix.runtimes.protocol import AgentInfo, Image, TurnRequest


def agent_of(item: Json, last_run: str) -> AgentInfo:
    """An agent of a listing."""
    agent_id = id_of(item)
    return AgentInfo(
        agent_id=agent_id,
        name=str(item.get("name") or agent_id),
        description=str(item.get("description") or ""),
        model=str(item.get("model") or ""),
        last_run=last_run,
    )


def content_of(request: TurnRequest) -> str | list[Json]:
    """A user message's `content`: plain text, or parts with the images in base64."""
    if not request.images:
        return request.text
    text: list[Json] = [{"type": "text", "text": request.text}] if request.text else []
    return [*text, *map(_part, request.images)]


def calls_of(message: Json) -> list[Json]:
    """A message's tool calls: several at once, one, or a piece of one; `tool_call` is the older
    field."""
    told = message.get("tool_calls")
    return as_list(told) or [mapping(told) or mapping(message.get("tool_call"))]


def _part(image: Image) -> Json:
    data = base64.b64encode(image.data).decode()
    source = {"type": "base64", "media_type": image.media_type, "data": data}
    return {"type": "image", "source": source}
