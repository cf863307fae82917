"""A bridge that is put back from a backup."""

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.stage import Stage

from letta_matrix.cli.backup.copies import copy_database
from letta_matrix.cli.backup.stored import prepare
from letta_matrix.runtimes.memory import echo
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest
from letta_matrix.store.restored import Gap


class Restored:
    """A stage whose database is backed up and put back. `begun` are the messages that an agent
    has begun to answer, as often as it did."""

    def __init__(self, stage: Stage, file: Path) -> None:
        self.stage, self._file = stage, file
        self._copy = file.with_name("backup.db")
        self._taken = 0.0
        self.begun: list[str] = []
        self.answer: Callable[[TurnRequest], Iterable[TurnEvent | float]] = echo
        stage.runtime.script = self._script

    def _script(self, request: TurnRequest) -> Iterable[TurnEvent | float]:
        self.begun.append(request.text)
        return self.answer(request)

    def take(self) -> None:
        copy_database(self._file, self._copy)
        self._taken = time.time()

    async def put_back(self) -> None:
        """Put it back, and start the next process."""
        await self.stage.close()
        gap = Gap(self._taken, time.time() + 1)
        how = {"same_moment": True, "keeps_tokens": True}
        await asyncio.to_thread(prepare, self._copy, None, gap, **how)
        for suffix in ("-wal", "-shm"):
            self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)
        self._copy.replace(self._file)
        await self.stage.open()
        await self.stage.dispatcher.recover()
        await self.stage.parts.catch_up.run()
        await self.stage.idle()

    async def arrives(self, room_id: str, *events: dict[str, Any]) -> None:
        """Messages reach the homeserver, and then us."""
        self.stage.fake.events.setdefault(room_id, []).extend(events)
        await self.stage.admit(*events)
