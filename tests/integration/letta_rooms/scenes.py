"""Scenes that are played up to a point where something ends, and from there to their own ends."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.integration.bridge_world import Person, Room
from tests.integration.letta_world import LettaWorld


@dataclass(frozen=True)
class Cast:
    """Who is there: an agent with its own room, in which the person and somebody else are, and a
    file that tools may make."""

    world: LettaWorld
    ann: Person
    bob: Person
    own: Room
    made: Path


Scene = Callable[[Cast], AsyncGenerator[None]]
"""Yields twice: before the end, and before what ended is there again."""


async def play(
    scenes: Mapping[Scene, Cast], end: Callable[[], object], begin: Callable[[], Awaitable[None]]
) -> dict[Scene, AsyncGenerator[None]]:
    """Play the scenes side by side up to where it has begun again."""
    playing = {scene: scene(cast) for scene, cast in scenes.items()}
    await asyncio.gather(*(anext(one) for one in playing.values()))
    end()
    await asyncio.gather(*(anext(one) for one in playing.values()))
    await begin()
    return playing


async def finish(scene: AsyncGenerator[None]) -> None:
    """Play the rest, which no other scene waits for."""
    async for _ in scene:
        raise AssertionError("a scene has one end")
