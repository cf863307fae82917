"""What kind of request to the homeserver one is, and how one failed: few words for many. Pure."""

from mautrix.api import Method
from mautrix.errors import MatrixRequestError

from letta_matrix.matrix.answers import ForeignAnswer
from letta_matrix.matrix.api import TOO_MANY

_IN_ROOMS = {
    "send": "send",
    "redact": "send",
    "state": "state",
    "typing": "hint",
    "receipt": "hint",
    "read_markers": "hint",
    **dict.fromkeys(("join", "leave", "invite", "kick", "ban", "unban"), "membership"),
}
_AT_FIRST = {
    "createRoom": "room",
    "directory": "room",
    "join": "membership",
    "profile": "profile",
    "register": "account",
    "upload": "media",
}
KINDS = {"read", "edit", "admin", "other", *_IN_ROOMS.values(), *_AT_FIRST.values()}
"""All there are."""


def kind_of(method: Method, path: str, *, interim: bool = False) -> str:
    """One of KINDS for a request to a quoted path; `interim`: of what a later one replaces."""
    words = path.strip("/").split("/")
    if words[0] == "_synapse":
        return "admin"
    if method is Method.GET:
        return "media" if words[1:2] == ["media"] else "read"
    first, action = words[3:4], words[5:6]
    if first == ["rooms"]:
        kind = _IN_ROOMS.get(action[0] if action else "", "other")
        return "edit" if interim and kind == "send" else kind
    return _AT_FIRST.get(first[0] if first else "", "other")


def fault_of(error: Exception) -> str:
    """In a word why a request came to nothing."""
    if isinstance(error, MatrixRequestError):
        if error.http_status == TOO_MANY:
            return "limited"
        return "failed" if error.http_status >= 500 else "refused"
    return "foreign" if isinstance(error, ForeignAnswer) else "unreachable"
