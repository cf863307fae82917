"""What the agents in memory do that a bridge has here."""

import itertools
from collections.abc import Generator, Iterable

from letta_matrix.runtimes.memory import Answer
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    StopReason,
    TextDelta,
    ToolReturned,
    ToolStarted,
    TurnEvent,
    TurnFinished,
    TurnRequest,
)

LONG_COMMAND = "ls;" * 67 + "rm"
"""What is at its end is to be seen before it is allowed, on a phone too."""


def careful_script(request: TurnRequest) -> Iterable[TurnEvent | float]:
    """Asks before it runs something, counts for ever, describes pictures, or says it back."""
    if "run it" in request.text:
        yield from _careful(request)
    elif "count" in request.text:
        for number in itertools.count(1):
            yield TextDelta("0", f"{number} ")
            yield 0.1
    elif request.images:
        kinds = ", ".join(image.media_type for image in request.images)
        yield TextDelta("0", f"I see {kinds}")
    else:
        yield TextDelta("0", f"echo: {request.text}")
    yield TurnFinished(StopReason.END_TURN)


def _careful(request: TurnRequest) -> Generator[TurnEvent | float, Answer | None]:
    call = f"call {request.message_id}"
    command = LONG_COMMAND if "in full" in request.text else "ls notes"
    yield ToolStarted(call, "Bash", command)
    answer = yield ApprovalRequested(call, "Bash", {"command": command}, True)
    allowed = answer is not None and answer.allow
    yield ToolReturned(call, allowed, "monday.md" if allowed else "denied")
    yield TextDelta("0", "One note." if allowed else "Then not.")
