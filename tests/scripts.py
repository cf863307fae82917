"""Scripts for the in-memory runtime: what its agents do is written in what they are told."""

from collections.abc import Iterable

from letta_matrix.runtimes.memory import echo
from letta_matrix.runtimes.protocol import (
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolReturned,
    ToolStarted,
    TurnEvent,
    TurnFinished,
    TurnRequest,
)

DONE = TurnFinished(StopReason.END_TURN)


def obey(request: TurnRequest) -> Iterable[TurnEvent | float]:
    """`slow SECONDS`, `stream WORDS PAUSE`, `fail WHY`, `nothing`, `cut`, `tools`, else an echo."""
    command, *arguments = request.text.split()
    if command == "slow":
        yield float(arguments[0])
        yield from echo(request)
    elif command == "stream":
        for number in range(int(arguments[0])):
            yield TextDelta("0", f"word{number} ")
            yield float(arguments[1])
        yield DONE
    elif command == "fail":
        yield TextDelta("0", "I was about to ")
        yield TurnFinished(StopReason.ERROR, error=" ".join(arguments))
    elif command == "cut":
        yield TextDelta("0", "And then")
    elif command == "tools":
        yield ReasoningDelta("r", "I should look.")
        yield TextDelta("0", "Let me look.\n")
        yield ToolStarted("c1", "Bash", "{}")
        yield ToolReturned("c1", ok=True, output="secret output")
        yield TextDelta("1", "\nFound it.")
        yield DONE
    elif command == "nothing":
        yield DONE
    else:
        yield from echo(request)
