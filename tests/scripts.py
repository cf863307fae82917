"""Scripts for the in-memory runtime: what its agents do is written in what they are told."""

import asyncio
import itertools
from collections.abc import Iterable, Iterator

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
FOR_EVER = 1e9
"""A pause that only a cancelled turn ends."""


def until(event: asyncio.Event) -> Iterator[float]:
    """Pauses, until a test sets the event."""
    while not event.is_set():
        yield 0.01


def held(event: asyncio.Event) -> Iterator[TurnEvent | float]:
    """A word, and the rest when a test sets the event."""
    yield TextDelta("0", "word0 ")
    yield from until(event)
    yield from (TextDelta("0", f"word{number} ") for number in range(1, 20))
    yield DONE


def obey(request: TurnRequest) -> Iterable[TurnEvent | float]:
    """`slow SECONDS`, `hang`, `stream WORDS PAUSE`, `ramble` (words without end), `fail WHY`,
    `nothing`, `cut`, `tools`, else an echo."""
    command, *arguments = request.text.split()
    if command == "slow":
        yield float(arguments[0])
        yield from echo(request)
    elif command == "hang":
        yield FOR_EVER
        yield from echo(request)
    elif command == "ramble":
        for number in itertools.count():
            yield TextDelta("0", f"word{number} ")
            yield 0.02
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
