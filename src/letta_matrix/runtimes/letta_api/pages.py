"""Pages of a Letta API's listings."""

from letta_matrix.common.json_fields import Json, id_of

PAGE = 50
"""The server's own default, so that no server gives less without being asked for less."""


def identity(message: Json) -> tuple[str, ...]:
    """What tells messages apart: one may come in pieces that share its id."""
    return tuple(str(message.get(name)) for name in ("id", "message_type", "otid"))


def last_id(page: list[Json]) -> str:
    """The id after which the next page begins."""
    return next((id_of(item) for item in reversed(page) if id_of(item)), "")
