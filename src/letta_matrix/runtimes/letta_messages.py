"""Messages as Letta's servers take and keep them, both the App Server and the Letta API."""

import base64

from letta_matrix.common.json_fields import Json, as_list, mapping
from letta_matrix.runtimes.protocol import Image, TurnRequest


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
