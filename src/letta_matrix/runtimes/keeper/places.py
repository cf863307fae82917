"""Where a keeper is: what the bridge needs to know of it, whichever it is."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from letta_matrix import __version__
from letta_matrix.common.backoff import Backoff
from letta_matrix.common.lenient_json import printable
from letta_matrix.runtimes.keeper import wire

Json = dict[str, Any]


class KeeperFault(Exception):
    """No keeper is there, or it lets us in no further: why, in words. `final`: asking again soon
    changes nothing; `refused`: as it does not take our token; `outdated`: as it has served a later
    epoch."""

    def __init__(
        self, reason: str, *, refused: bool = False, final: bool = False, outdated: bool = False
    ) -> None:
        super().__init__(reason)
        self.refused = refused
        self.outdated = outdated
        self.final = final or refused


@dataclass(frozen=True, slots=True)
class Attached:
    """A connection on which the bridge has said who it is, and what the keeper has answered to
    that, as far as that was waited for."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    answers: list[Json] = field(default_factory=list[Json])


class KeeperPlace(Protocol):
    """A way to a keeper."""

    name: str
    """What it is called: `the keeper at ...`."""
    advice: str
    """What to do where two bridges take it from each other."""
    pauses: Backoff

    async def attach(self, wanted: Mapping[str, object]) -> Attached | None:
        """Connect, and say what is `wanted`; None while the keeper is being started.

        Raises:
            KeeperFault: it is not there.
        """
        ...

    async def end_outdated(self) -> bool:
        """End a keeper that serves replicas of a database which is not ours any more; whether it
        was ours to end."""
        return False


def refusal(name: str, told: Json) -> KeeperFault:
    """What it means that a keeper lets us in no further."""
    match told.get("why"):
        case "token":
            says = "does not take our token: it should be the one of its --token-file"
            return KeeperFault(f"{name} {says}", refused=True)
        case "protocol":
            theirs = printable(f"{told.get('version')} (protocol {told.get('protocol')})"[:60])
            ours = f"{__version__} (protocol {wire.PROTOCOL})"
            return KeeperFault(
                f"{name} is of letta-matrix {theirs}, and this bridge {ours}: upgrade the older of "
                "the two",
                final=True,
            )
        case "epoch":
            latest = printable(str(told.get("epoch"))[:20])
            return KeeperFault(
                f"{name} serves a replica that has taken over from this one (its epoch is "
                f"{latest}); if there is none, start the keeper again",
                final=True,
                outdated=True,
            )
        case _:
            return KeeperFault(f"{name} refuses this bridge", final=True)
