"""Whether the model gets to see a message's images."""

from letta_matrix.common.json_fields import as_list, mapping
from letta_matrix.runtimes.app_server.connection import Connection
from letta_matrix.runtimes.app_server.frames import Scope

_BLIND = "openai-compatible"
"""The provider whose models Letta Code 0.34 takes for text-only, whatever they are; it leaves
images out of what it sends them and tells nobody."""


async def why_dropped(connection: Connection, scope: Scope) -> str:
    """Why the conversation's model will not get images, "" if it may.

    Nothing in the protocol tells whether a model has vision; only the provider of which no
    model is ever given images is known by its type.

    Raises:
        RuntimeUnavailable, RuntimeRefused: as `Connection.call`.
    """
    talk = await connection.call("conversation_retrieve", **scope.as_json())
    model = mapping(talk.get("conversation")).get("model")
    if not model:
        agent = await connection.call("agent_retrieve", agent_id=scope.agent_id)
        model = mapping(agent.get("agent")).get("model")
    listed = await connection.call("list_models")
    entry = next((e for e in as_list(listed.get("entries")) if e.get("handle") == model), None)
    kind = mapping((entry or {}).get("updateArgs")).get("provider_type")
    if (kind or str(model).partition("/")[0]) != _BLIND:
        return ""
    return f"the App Server gives no images to models of the provider `{_BLIND}` ({model})"
