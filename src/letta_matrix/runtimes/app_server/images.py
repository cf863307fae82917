"""Images in a message, and whether the model gets to see them."""

import base64

from letta_matrix.runtimes.app_server.connection import Connection
from letta_matrix.runtimes.app_server.frames import Scope
from letta_matrix.runtimes.json_fields import Json, as_dict, as_list
from letta_matrix.runtimes.protocol import Image, TurnRequest

_BLIND = "openai-compatible"
"""The provider whose models Letta Code 0.34 takes for text-only, whatever they are; it leaves
images out of what it sends them and tells nobody."""


def content_of(request: TurnRequest) -> str | list[Json]:
    """A user message's `content`: plain text, or parts if there are images."""
    if not request.images:
        return request.text
    text: list[Json] = [{"type": "text", "text": request.text}] if request.text else []
    return [*text, *map(_part, request.images)]


async def why_dropped(connection: Connection, scope: Scope) -> str:
    """Why the conversation's model will not get images, "" if it may.

    Nothing in the protocol tells whether a model has vision; only the provider of which no
    model is ever given images is known by its type.

    Raises:
        RuntimeUnavailable, RuntimeRefused: as `Connection.call`.
    """
    talk = await connection.call("conversation_retrieve", **scope.as_json())
    model = as_dict(talk.get("conversation")).get("model")
    if not model:
        agent = await connection.call("agent_retrieve", agent_id=scope.agent_id)
        model = as_dict(agent.get("agent")).get("model")
    listed = await connection.call("list_models")
    entry = next((e for e in as_list(listed.get("entries")) if e.get("handle") == model), None)
    kind = as_dict((entry or {}).get("updateArgs")).get("provider_type")
    if (kind or str(model).partition("/")[0]) != _BLIND:
        return ""
    return f"the App Server gives no images to models of the provider `{_BLIND}` ({model})"


def _part(image: Image) -> Json:
    data = base64.b64encode(image.data).decode()
    source = {"type": "base64", "media_type": image.media_type, "data": data}
    return {"type": "image", "source": source}
