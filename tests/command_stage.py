"""A place to give commands in: a real database, a homeserver that speaks HTTP, an agent."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.builders import APPROVABLE, PERSON, InSight, agent, config_for, message
from tests.fake_homeserver import FakeHomeserver

from letta_matrix.common.vitals import Vitals
from letta_matrix.config import Config
from letta_matrix.conversations.admission import Admission
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.conversations.roster import Roster
from letta_matrix.conversations.speakers import Speaker
from letta_matrix.conversations.voices import Voices
from letta_matrix.doors.chat.command import Command
from letta_matrix.doors.chat.runner import CommandRunner
from letta_matrix.doors.chat.services import CommandServices
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.operations.agents import AgentOperations
from letta_matrix.operations.approvals import ApprovalOperations
from letta_matrix.operations.conversations import ConversationOperations
from letta_matrix.operations.rooms import RoomOperations
from letta_matrix.operations.runtimes_told import RuntimesTold
from letta_matrix.operations.toolbox.registry import Toolbox
from letta_matrix.operations.toolbox.tool import tools_in
from letta_matrix.operations.turns import TurnOperations
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.runtimes.faults import RuntimeFault
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.approvals import Approval, ApprovalStatus, ApprovalStore
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import Database
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.leases import Replica
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.places import Place
from letta_matrix.store.portals import PortalBook
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turn_ids import turn_id_of
from letta_matrix.store.turns import Turn, TurnKind, TurnStatus, TurnStore

ADMIN = "@root:test"
STRANGER = "@bob:test"
ROOM = "!1:test"
BOT_ROOM = "!dm:test"
SHARED = "!shared:test"
HERE = Place("agent-1", ROOM)


class Stage:
    """A room of an agent, a room with the bot, a shared room; `say` gives commands."""

    def __init__(
        self,
        database: Database,
        directory: AgentDirectory,
        homeserver: Homeserver,
        fake: FakeHomeserver,
    ) -> None:
        self.database, self.directory, self.fake = database, directory, fake
        self.conversations = ConversationStore(database)
        self.turns = TurnStore(database, self.conversations)
        self.outbox, self.rooms = Outbox(database), Rooms(database)
        self.portals = PortalPolicy((), PortalBook(database), directory, self.rooms)
        self.runtime = MemoryRuntime()
        self.runtimes = {"memory": self.runtime}
        self.running: list[Turn] = []
        self.vitals = Vitals()
        self.replicas: list[Replica] = []
        self.archived: list[str] = []
        self.syncs = 0
        self.homeserver = homeserver
        self._toolboxes: list[Toolbox] = []
        self.runner = self.runner_for()

    def runner_for(self, *commands: Command, **conversations: Any) -> CommandRunner:
        config = config_for(
            Path(),
            permissions={"test": "user", ADMIN: "admin", "@troll:test": "block"},
            conversations=APPROVABLE | conversations,
        )
        self.approvals = Approvals(
            config, ApprovalStore(self.database), InSight(), Roster(self.homeserver)
        )
        services = CommandServices(
            config,
            self.directory,
            RuntimesTold(self.runtimes),
            self.turns,
            self.conversations,
            self.rooms,
            self.approvals,
            self.toolbox_for(config),
            self.vitals,
            lambda: self.replicas,
            lambda agent_id: "its room is gone" if agent_id == "agent-2" else "",
            lambda place: sum(turn.place == place for turn in self.running),
            Roster(self.homeserver),
            self.speaker_for(config),
        )
        return CommandRunner(self.homeserver, services, *([commands] if commands else []))

    def toolbox_for(self, config: Config) -> Toolbox:
        admission = Admission(config, self.homeserver)
        agents = AgentOperations(
            config.bot_user_id, self.directory, self.runtimes, admission, self.sync, self.archive
        )
        operations = [
            *tools_in(agents),
            *tools_in(ConversationOperations(self.directory, self.runtimes, self.conversations)),
            *tools_in(ApprovalOperations(self.approvals)),
            *tools_in(RoomOperations(self.rooms)),
            *tools_in(TurnOperations(self.directory, self.turns, self.outbox, self.cancel)),
        ]
        self.audit = AuditStore(self.database)
        toolbox = Toolbox(
            config,
            self.homeserver,
            self.directory,
            self.rooms,
            self.conversations,
            self.turns,
            self.outbox,
            self.audit,
            operations,
        )
        self._toolboxes.append(toolbox)
        return toolbox

    async def close(self) -> None:
        """Let what is noted be noted."""
        for toolbox in self._toolboxes:
            await toolbox.close()

    def speaker_for(self, config: Config) -> Speaker:
        return Speaker(
            config,
            self.homeserver,
            self.directory,
            self.rooms,
            self.turns,
            self.outbox,
            Voices(self.homeserver, self.directory, self.rooms, Roster(self.homeserver)),
            self.portals,
        )

    async def cancel(self, meant: Callable[[Turn], bool]) -> int:
        stopped = [turn for turn in self.running if meant(turn)]
        self.running = [turn for turn in self.running if turn not in stopped]
        return len(stopped)

    async def archive(self, one: Agent) -> None:
        self.archived.append(one.agent_id)

    async def sync(self) -> dict[str, str]:
        self.syncs += 1
        return {name: await self._fault_of(runtime) for name, runtime in self.runtimes.items()}

    async def _fault_of(self, runtime: MemoryRuntime) -> str:
        try:
            listing = await runtime.list_agents()
        except RuntimeFault as fault:
            return str(fault)
        for info in listing:
            if (known := self.directory.get(info.agent_id)) is not None:
                known.name = info.name
        return ""

    async def turn(
        self, line: str, room_id: str = ROOM, kind: TurnKind = TurnKind.COMMAND, **fields: Any
    ) -> Turn:
        """A turn as it was admitted."""
        event = message(line, room_id)
        values: dict[str, Any] = {
            "agent_id": "agent-1" if room_id == ROOM else "",
            "sender": PERSON,
            "sent_at": time.time(),
            **fields,
        }
        values["turn_id"] = turn_id_of(event["event_id"], values["agent_id"])
        new = Turn(room_id=room_id, event_id=event["event_id"], prompt=line, kind=kind, **values)
        entry = InboxEntry(new.event_id, room_id, event, InboxState.ROUTED, [new])
        return (await Inbox(self.database).admit(new.event_id, [entry])).turns[0]

    async def working(self, room_id: str = ROOM, **fields: Any) -> Turn:
        """A message that an agent works on."""
        fields = {"agent_id": "agent-1", **fields}
        turn = await self.turn("hello", room_id, TurnKind.MESSAGE, **fields)
        await self.turns.run(turn, {})
        self.running.append(turn)
        return turn

    async def say(self, line: str, room_id: str = ROOM, **fields: Any) -> str:
        """Give a command; returns what it was answered, "" for nothing."""
        return await self.rerun(await self.turn(line, room_id, **fields), recovered=False)

    async def rerun(self, turn: Turn, *, recovered: bool = True) -> str:
        before = len(self.fake.messages(turn.room_id))
        await self.runner.run(turn, recovered=recovered)
        stored = await self.turns.get(turn.turn_id)
        assert stored is not None
        assert stored.status is TurnStatus.DONE
        said = self.fake.messages(turn.room_id)[before:]
        assert len(said) <= 1
        assert all(event["content"]["msgtype"] == "m.notice" for event in said)
        return said[0]["content"]["body"] if said else ""

    async def reload(self, turn: Turn) -> Turn:
        """The turn as a new process reads it."""
        (stored,) = [one for one in await self.turns.unfinished() if one.turn_id == turn.turn_id]
        return stored

    async def asked(self, key: str, turn: Turn | None = None, **fields: Any) -> Approval:
        """A tool call that waits for an answer."""
        turn = turn or await self.working()
        now = time.time()
        values: dict[str, Any] = {
            "approval_id": f"runtime-{key}",
            "requester": PERSON,
            "tool": "Bash",
            "arguments": {"command": "ls"},
            "always": True,
            "asked_at": now - 60,
            "expires_at": now + 2.5 * 86_400,
            **fields,
        }
        approval = Approval(
            key=key,
            turn_id=turn.turn_id,
            agent_id=turn.agent_id,
            room_id=turn.room_id,
            thread_id=turn.thread_id,
            prompt_txn=f"txn-{key}",
            **values,
        )
        prompt = OutboxEntry(
            f"txn-{key}", turn.turn_id, 0, OutboxKind.APPROVAL, 0, turn.room_id, "@x:test", {}
        )
        await self.outbox.freeze([prompt], also=[self.approvals.store.insert(approval)])
        await self.outbox.confirm(prompt, f"$asks-{key}")
        return approval

    async def settled(self) -> list[tuple[str, ApprovalStatus, str]]:
        """Key, status and reason of the approvals that wait no more, the first asked first."""
        found = await self.approvals.store.named("")
        known = [(one.key, one.status, one.reason) for one in found]
        return [one for one in known if one[1] is not ApprovalStatus.PENDING]

    async def status_of(self, key: str) -> ApprovalStatus:
        approval = await self.approvals.store.get(key)
        assert approval is not None
        return approval.status


async def stage_on(
    database: Database, directory: AgentDirectory, homeserver: Homeserver, fake: FakeHomeserver
) -> Stage:
    """Two agents of the runtime `memory`, and a room with the bot."""
    await directory.reserve([agent(1, name="Ada"), agent(2, name="Grace_*")])
    new = Stage(database, directory, homeserver, fake)
    new.runtime.add(AgentInfo("agent-1", "Ada", model="memory/small"))
    new.runtime.add(AgentInfo("agent-2", "Grace_*"))
    await new.rooms.joined(BOT_ROOM, "@letta:test", direct=True)
    return new


class Crash(BaseException):
    """The process is gone."""


async def crashing_at(stage: Stage, turn: Turn, step: str) -> None:
    owners = {"freeze": stage.outbox, "leave": stage.conversations}
    owner = owners.get(step, stage.turns)

    async def crash(*_args: object, **_named: object) -> None:
        raise Crash

    setattr(owner, step, crash)
    with pytest.raises(Crash):
        await stage.runner.run(turn, recovered=False)
    delattr(owner, step)
