"""What all measurements of a run share."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bench.bridge import PLAIN, Bridge
from bench.figures import Figures
from bench.homeserver import Homeserver
from bench.person import Person
from bench.plan import Plan
from bench.ports import Ports
from bench.progress import say


@dataclass(slots=True)
class Scene:
    """One homeserver, one person, and where figures go."""

    directory: Path
    plan: Plan
    ports: Ports
    http: aiohttp.ClientSession
    homeserver: Homeserver
    person: Person
    figures: Figures = field(default_factory=Figures)
    floor_rooms: list[str] = field(default_factory=list[str])

    async def attempt(self, what: str, measuring: Awaitable[None]) -> None:
        """Run one measurement; when it fails the others still run, and the table says so."""
        say(what)
        try:
            await measuring
        except Exception as error:  # noqa: BLE001 - whatever a competitor broke with
            # Of a program that did not start, the last line of its log says why.
            reason = (str(error).strip("\n')") or type(error).__name__).splitlines()[-1]
            self.figures.faults.append(f"{what}: {reason}")
            say(f"  failed: {reason}")

    def bridge(self, name: str, program: Sequence[str] = PLAIN) -> Bridge:
        """A bridge with a configuration and a database of its own; one runs at a time."""
        return Bridge(
            self.homeserver,
            self.directory / name,
            self.ports,
            self.person.user_id,
            self.http,
            program,
        )
