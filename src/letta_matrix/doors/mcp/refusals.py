"""What both ports refuse, and the words for it: HTTP's before a session, JSON-RPC's within one."""

import math
from dataclasses import dataclass

from letta_matrix.access.guard import Refused
from letta_matrix.access.metadata import challenge
from letta_matrix.access.refusals import IdentityUnavailable, TooOften, Unauthorized
from letta_matrix.doors.mcp.caller import NoToolset
from letta_matrix.doors.mcp.frames import NOT_ADMITTED, NOT_NOW, TOO_OFTEN
from letta_matrix.doors.web.in_flight import TooMuchInFlight
from letta_matrix.store.database import StoreUnavailable

REFUSED = (Refused, NoToolset, Unauthorized, TooOften, TooMuchInFlight, StoreUnavailable)
"""What `refusal_of` knows."""

NO_DATABASE = "The bridge's database does not answer now. Try again in a minute."
_INVALID_REQUEST = -32600


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status of HTTP with its `headers`, or the `code` of an error of JSON-RPC. `retry_after` is
    in seconds, 0 where another try does not help."""

    status: int
    code: int
    text: str
    retry_after: float = 0.0
    challenge: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """`Retry-After` and `WWW-Authenticate`, if there is something to say."""
        wait = {"Retry-After": str(math.ceil(self.retry_after))} if self.retry_after else {}
        return wait | ({"WWW-Authenticate": self.challenge} if self.challenge else {})


def refusal_of(error: Exception, metadata: str = "") -> Refusal:
    """What to say of one of `REFUSED`; `metadata` is where that of the door is (RFC 9728)."""
    text = str(error)
    match error:
        case StoreUnavailable():
            return Refusal(503, NOT_NOW, NO_DATABASE, 10.0)
        case IdentityUnavailable() | TooMuchInFlight():
            return Refusal(503, NOT_NOW, text, error.retry_after)
        case TooOften():
            return Refusal(429, TOO_OFTEN, text, error.retry_after)
        case Unauthorized():
            return Refusal(401, NOT_ADMITTED, text, challenge=challenge(error, metadata))
        case Refused():
            return Refusal(error.status, _INVALID_REQUEST, text)
        case _:
            return Refusal(400, _INVALID_REQUEST, text)
