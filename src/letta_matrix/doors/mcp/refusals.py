"""What both ports refuse, and the words for it: HTTP's before a session, JSON-RPC's within one."""

import math
from collections.abc import Mapping
from dataclasses import field

from letta_matrix.access.guard import Refused
from letta_matrix.access.metadata import challenge
from letta_matrix.access.refusals import IdentityUnavailable, TooOften, Unauthorized
from letta_matrix.common.mcp_frames import NOT_ADMITTED, NOT_NOW, TOO_OFTEN
from letta_matrix.common.parts import part
from letta_matrix.doors.web.in_flight import TooMuchInFlight
from letta_matrix.operations.records import StoreUnavailable

NO_DATABASE = "The bridge's database does not answer now. Try again in a minute."


@part
class Refusal(Exception):
    """A `status` of HTTP with its `headers`, or the `code` of an error of JSON-RPC. `retry_after`
    is in seconds, 0 where another try does not help."""

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    code: int = 0
    retry_after: float = 0.0

    def __post_init__(self) -> None:
        super().__init__(self.text)
        if self.retry_after:
            self.headers = {**self.headers, "Retry-After": str(math.ceil(self.retry_after))}


REFUSED = (Refusal, Refused, Unauthorized, TooOften, TooMuchInFlight, StoreUnavailable)
"""What `refusal_of` knows."""
Refusable = Refusal | Refused | Unauthorized | TooOften | TooMuchInFlight | StoreUnavailable


def refusal_of(error: Refusable, metadata: str = "") -> Refusal:
    """What to say of one of `REFUSED`; `metadata` is where that of the door is (RFC 9728)."""
    match error:
        case Refusal():
            return error
        case StoreUnavailable():
            return Refusal(503, NO_DATABASE, code=NOT_NOW, retry_after=10.0)
        case IdentityUnavailable() | TooMuchInFlight():
            return Refusal(503, str(error), code=NOT_NOW, retry_after=error.retry_after)
        case TooOften():
            return Refusal(429, str(error), code=TOO_OFTEN, retry_after=error.retry_after)
        case Unauthorized():
            said = {"WWW-Authenticate": challenge(error, metadata)}
            return Refusal(401, str(error), said, NOT_ADMITTED)
        case Refused():
            return Refusal(error.status, str(error))
