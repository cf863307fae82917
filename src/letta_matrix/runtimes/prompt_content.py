"""A prompt's `content` as Letta's servers take it, both the App Server and the Letta API."""

import base64

from letta_matrix.common.json_fields import Json
from letta_matrix.runtimes.protocol import Image, TurnRequest


def content_of(request: TurnRequest) -> str | list[Json]:
    """A user message's `content`: plain text, or parts with the images in base64."""
    if not request.images:
        return request.text
    text: list[Json] = [{"type": "text", "text": request.text}] if request.text else []
    return [*text, *map(_part, request.images)]


def _part(image: Image) -> Json:
    data = base64.b64encode(image.data).decode()
    source = {"type": "base64", "media_type": image.media_type, "data": data}
    return {"type": "image", "source": source}
