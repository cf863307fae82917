"""A bridge without servers of its own, wired as the real one is."""

from pathlib import Path
from typing import Any

from tests.builders import APPROVABLE, agent, config_for, message, stored_turn
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.scripts import obey
from tests.waiting import eventually

from letta_matrix.app.assembly import App
from letta_matrix.common.json_fields import mapping
from letta_matrix.matrix.events import Event, redacted
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo
from letta_matrix.store.turns import Outcome, Turn


class Stage:
    """The parts of a bridge over one database file, one homeserver and an in-memory runtime.

    `again()` is the next process over the same three.
    """

    def __init__(self, fake: FakeHomeserver, database_file: Path, **sections: Any) -> None:
        self.fake = fake
        self._file = database_file
        self._sections = sections
        self._settings: dict[str, Any] = APPROVABLE | {
            "edit_interval": 0.02,
            "edits_per_second": 1000,
        }
        self.runtime = MemoryRuntime(script=obey)

    async def open(self, **conversations: Any) -> None:
        """Start; `conversations` are settings that stay for the next processes too."""
        self._settings |= conversations
        memory = {"type": "memory", "agents": 0, "speech_interval": 0.02}
        sections: dict[str, Any] = {"runtimes": [memory]} | self._sections
        self.config = config_for(
            self._file.parent,
            homeserver={"url": self.fake.url, "domain": "test"},
            database={"url": f"sqlite:///{self._file}"},
            conversations=self._settings,
            **sections,
        )
        self.parts = App(self.config, {self.runtime.name: self.runtime})
        self.stores, self.vitals = self.parts.stores, self.parts.vitals
        await self.stores.open()
        self.parts.offer_tools()
        self.dispatcher, self.runner = self.parts.dispatcher, self.parts.turn_runner

    async def close(self) -> None:
        await self.parts.close()
        await self.parts.homeserver.close()
        await self.stores.close()

    async def again(self, **conversations: Any) -> None:
        """Another process takes over; it recovers only when it is told to."""
        await self.close()
        await self.open(**conversations)

    async def use(self, runtime: MemoryRuntime) -> None:
        """Another process with another runtime that has the same agents."""
        for one in self.stores.directory.all():
            runtime.add(AgentInfo(one.agent_id, one.name))
        self.runtime = runtime
        await self.again()

    async def recover(self) -> None:
        """Another process takes over and takes up what was left."""
        await self.again()
        await self.dispatcher.recover()

    async def add(self, number: int, **fields: Any) -> None:
        """An agent with its room."""
        one = agent(number, **fields)
        await self.stores.directory.reserve([one])
        self.runtime.add(AgentInfo(one.agent_id, one.name))

    async def admit(self, *events: Any) -> None:
        """A transaction of the homeserver, which has pushed before what our users sent and the
        events refer to, whether or not its answer to them has been stored."""
        before = [one for event in events for one in self._meant(event)]
        await self.dispatcher.admit("t", [*before, *events])

    def _meant(self, event: Any) -> list[dict[str, Any]]:
        """The events of ours that one refers to, if it is one."""
        view = Event(mapping(event))
        targets = (view.target, view.reply_to, redacted(view.raw))
        return [self.fake.sent[one] for one in targets if one in self.fake.sent]

    async def idle(self) -> None:
        """Wait until nothing is owed."""
        await eventually(lambda: self.dispatcher.queues.waiting == 0)

    async def tell(self, *events: Any) -> None:
        """Admit a transaction and see it to its end."""
        await self.admit(*events)
        await self.idle()

    async def turn(self, text: str | None = "hello", event: Any = None, **fields: Any) -> Turn:
        """A turn of agent-1 that is admitted and not begun; `fields` are its event's."""
        event = event or message(text, **fields)
        return await stored_turn(self.stores.database, text, event)

    async def run(self, text: str | None = "hello", event: Any = None, **fields: Any) -> Turn:
        """A turn of agent-1, run to its end."""
        turn = await self.turn(text, event, **fields)
        await self.runner.run(turn, recovered=False)
        return turn

    async def outcome(self, turn: Turn) -> Outcome:
        """How a turn ended."""
        query = "SELECT status, outcome FROM turns WHERE turn_id = ?"
        values = (turn.turn_id,)
        database = self.stores.database
        row = await database.read(lambda db: db.exec_driver_sql(query, values).one())
        assert row.status == "done"
        return Outcome(row.outcome)

    def refuse(self, pattern: str, errcode: str = "M_FORBIDDEN", times: int = 1) -> None:
        """The homeserver refuses the next requests that match."""
        status = 413 if errcode == "M_TOO_LARGE" else 403
        faults = [Fault(status, {"errcode": errcode, "error": "on purpose"})] * times
        self.fake.fail(pattern, *faults)
