"""Matrix user ids and room aliases of agents, derived from the agent id alone."""

import hashlib
import re
from collections.abc import Iterable

GHOST_PREFIX = "agent_"
RESERVED_PREFIXES = (GHOST_PREFIX, "letta_")
"""Localparts that belong to us: ghosts, and users of the bridge itself."""

_LOCALPART_LIMIT = 128
_IDENTIFIER_LIMIT = 255
_ESCAPED = re.compile(rb"[^a-z0-9./+-]")


def ghost_localpart(agent_id: str) -> str:
    """The localpart of an agent's ghost and of its room alias: `agent-e54f-..` -> `agent_e54f_..`.

    Hyphens become underscores. Every other byte that a localpart may not hold, and `_`, `=` and
    capitals, becomes `=xx` (Matrix spec appendix "Mapping from other character sets"; that
    appendix's `_a` for `A` is not used, as `_` stands for a hyphen here). An id that does not
    start with `agent-` is prefixed, so that `x` and `agent-x` share a localpart; other than that
    different ids never do. More than 128 bytes end in a hash, after the mark `=.` that no
    escaped id holds.

    Raises:
        ValueError: the id is empty.
    """
    if not agent_id:
        raise ValueError("an agent id cannot be empty")
    encoded = agent_id.encode("utf-8", "surrogatepass")
    name = _ESCAPED.sub(_escape, encoded).decode("ascii").replace("-", "_")
    return _shorten(name if name.startswith(GHOST_PREFIX) else GHOST_PREFIX + name, agent_id)


def user_id(agent_id: str, domain: str) -> str:
    """The user id of an agent's ghost. Raises ValueError if it would exceed 255 bytes."""
    return _identifier("@", agent_id, domain)


def room_alias(agent_id: str, domain: str) -> str:
    """The alias of an agent's room. Raises ValueError if it would exceed 255 bytes."""
    return _identifier("#", agent_id, domain)


def _identifier(sigil: str, agent_id: str, domain: str) -> str:
    identifier = f"{sigil}{ghost_localpart(agent_id)}:{domain}"
    if len(identifier.encode()) > _IDENTIFIER_LIMIT:
        raise ValueError(f"{identifier} is longer than Matrix allows ({_IDENTIFIER_LIMIT} bytes)")
    return identifier


def _escape(match: re.Match[bytes]) -> bytes:
    return b"=%02x" % match[0][0]


def _shorten(localpart: str, agent_id: str) -> str:
    if len(localpart) <= _LOCALPART_LIMIT:
        return localpart
    digest = hashlib.sha256(agent_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{localpart[: _LOCALPART_LIMIT - 34]}=.{digest}"


def is_ours(user_id: str, bot_user_id: str) -> bool:
    """Whether it is one of our own users: the bot, or one with a prefix that we reserve."""
    localpart, _, domain = user_id.partition(":")
    if domain != bot_user_id.partition(":")[2]:
        return False
    return user_id == bot_user_id or localpart[1:].startswith(RESERVED_PREFIXES)


def persons(user_ids: Iterable[str], bot_user_id: str) -> set[str]:
    """Those of some users that are none of ours."""
    return {user_id for user_id in user_ids if not is_ours(user_id, bot_user_id)}
