"""Why a call was not carried out."""

from enum import StrEnum

from letta_matrix.common.parts import part


class Fault(StrEnum):
    """Kinds of failed calls; the values are stable, callers may rely on them."""

    INVALID = "invalid-arguments"
    UNKNOWN_TOOL = "unknown-tool"
    NOT_FOUND = "not-found"
    AMBIGUOUS = "ambiguous"
    FORBIDDEN = "forbidden"
    CONFLICT = "conflict"
    TOO_LARGE = "too-large"
    RATE_LIMITED = "rate-limited"
    REFUSED = "refused"  # by the homeserver
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    FAILED = "failed"  # a defect of ours


@part
class ToolError(Exception):
    """The call cannot be carried out; the text tells the caller why and what to do.

    `retry_after` is in seconds, 0 if another try would not help or the time is not known.
    `detail` tells faults of one kind apart, for a door that has words of its own for them.
    """

    text: str
    fault: Fault = Fault.INVALID
    retry_after: float = 0.0
    detail: str = ""

    def __post_init__(self) -> None:
        super().__init__(self.text)
