"""A toolbox on the real homeserver, with agents and a person to use it on."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.integration.bridge_world import DATABASE, Json, Person, config_on, lay_database
from tests.servers import Homeserver
from tests.tool_results import assert_declared
from tests.waiting import eventually

from letta_matrix.access.principal import Principal
from letta_matrix.common.identifiers import user_id
from letta_matrix.common.tools import ToolCall, ToolHandler
from letta_matrix.config import Config
from letta_matrix.conversations.new_turns import new_turn
from letta_matrix.matrix.content import MARKER, text_content
from letta_matrix.matrix.homeserver import Homeserver as HomeserverClient
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.operations.toolbox.registry import Toolbox
from letta_matrix.operations.toolbox.tool import Progress, no_progress
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import Database, database_url
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.places import Place
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Outcome, TurnStore


@dataclass
class Bench:
    """A toolbox on the real homeserver, agents with rooms, and a person in all of them."""

    homeserver: Homeserver
    config: Config
    client: HomeserverClient
    database: Database
    directory: AgentDirectory
    ann: Person
    toolbox: Toolbox = field(init=False)
    handler: ToolHandler = field(init=False)

    def __post_init__(self) -> None:
        self.conversations = ConversationStore(self.database)
        self.turns = TurnStore(self.database, self.conversations)
        self.outbox = Outbox(self.database)
        self.rooms = Rooms(self.database)
        self.restart()

    def restart(self) -> None:
        """The toolbox of a new process."""
        audit = AuditStore(self.database)
        stores = (self.directory, self.rooms, self.conversations, self.turns, self.outbox, audit)
        self.toolbox = Toolbox(self.config, self.client, *stores)
        self.handler = self.toolbox.handler("memory")

    async def agent(self, name: str = "") -> Agent:
        """A new agent whose room has the person in it."""
        agent_id = f"agent-{secrets.token_hex(6)}"
        ghost = Intent(self.client, user_id(agent_id, "localhost"))
        await ghost.register()
        name = name or f"Ada {secrets.token_hex(3)}"
        await ghost.set_displayname(name)
        bot = Intent(self.client, self.config.bot_user_id)
        invited = [self.ann.user_id, bot.user_id]
        made = await ghost.create_room({"name": f"{name}'s", "invite": invited})
        await asyncio.gather(self.ann.call("POST", f"/rooms/{quote(made)}/join"), bot.join(made))
        new = Agent(agent_id, "memory", name, ghost.user_id, room_id=made)
        await self.directory.reserve([new])
        return new

    async def room(self, *agents: Agent, **content: Any) -> str:
        """A room of the person's with these agents."""
        users = [agent.user_id for agent in agents]
        wanted = {**content, "invite": [*content.get("invite", ()), *users]}
        status, made = await self.ann.call("POST", "/createRoom", wanted)
        assert status == 200, made
        room_id = str(made["room_id"])
        await asyncio.gather(*(Intent(self.client, user).join(room_id) for user in users))
        return room_id

    async def call(
        self, agent: Agent, name: str, request: str = "", talk: str = "", /, **arguments: Any
    ) -> tuple[bool, Any]:
        """Whether a call went well, and its result: the JSON read, or the error's text. Models
        number their calls anew in each step."""
        request = request or secrets.token_hex(8)
        result = await self.handler(
            ToolCall(agent.agent_id, talk, "call_0", name, arguments, request)
        )
        if not result.ok:
            return False, result.text
        told = json.loads(result.text)
        self.check(name, told)
        return True, told

    async def call_as(
        self,
        agent: Agent | None,
        name: str,
        /,
        *,
        rooms: set[str] | None = None,
        progress: Progress = no_progress,
        **arguments: Any,
    ) -> Json:
        """The result for the holder of a token that acts as an agent, or as the bot, and may use
        every tool. Raises ToolError."""
        agent_id = agent.agent_id if agent is not None else ""
        limited = frozenset(rooms) if rooms is not None else None
        principal = Principal("token:test", agent_id, rooms=limited)
        told = await self.toolbox.call(principal, name, arguments, door="api", progress=progress)
        self.check(name, dict(told))
        return dict(told)

    def check(self, name: str, told: Json) -> None:
        """That a result is what the tool says it gives, and nothing else."""
        assert_declared(self.toolbox.tools[name], told)

    async def offer_new(self, room_id: str, since: int) -> bool:
        """Offer what was said in a room since, as the dispatcher does; whether it answered."""
        events = (await self.ann.timeline(room_id))[since:]
        matches = (self.toolbox.questions.match({**e, "room_id": room_id}) for e in events)
        answers = [answer for answer in matches if answer is not None]
        for answer in answers:
            answer()
        return bool(answers)

    async def talk(
        self, agent: Agent, room_id: str, thread: str = "", hops: int = 0, *, done: bool = False
    ) -> str:
        """Begin a turn of an agent somewhere, and end it if it is `done`; returns its
        conversation."""
        conversation = f"conversation-{secrets.token_hex(6)}"
        place = Place(agent.agent_id, room_id, thread)
        await self.conversations.begin(place, conversation, "test")
        said: Json = {"event_id": f"${secrets.token_hex(8)}", "room_id": room_id, "content": {}}
        turn = new_turn({**said, "sender": self.ann.user_id}, agent.agent_id, "go")
        turn.thread_id, turn.hops = thread, hops
        entry = InboxEntry(turn.event_id, room_id, said, InboxState.ROUTED, [turn])
        await Inbox(self.database).admit(secrets.token_hex(4), [entry])
        if done:
            await self.turns.finish(turn, Outcome.ANSWERED)
        return conversation

    async def visit(self, agent: Agent, host: Agent) -> None:
        """Leave an agent in another's room, as a process does that is killed in mid-visit."""
        await Intent(self.client, host.user_id).invite(str(host.room_id), agent.user_id)
        await Intent(self.client, agent.user_id).join(str(host.room_id))

    async def answer(self, agent: Agent, question: str, text: str) -> Json:
        """Play the bridge: answer a message that prompts an agent, once it is there; returns
        the message."""
        room_id = str(agent.room_id)

        async def asked() -> list[Json]:
            events = await self.ann.timeline(room_id, "m.room.message")
            said = [e for e in events if e["content"].get("body") == question]
            return [e for e in said if e["content"][MARKER].get("prompts") == agent.agent_id]

        event = (await self.ann.watch(room_id, asked, what=question))[-1]
        turn = new_turn({**event, "room_id": room_id}, agent.agent_id, "x")
        entry = InboxEntry(turn.event_id, room_id, event, InboxState.ROUTED, [turn])
        await Inbox(self.database).admit(secrets.token_hex(4), [entry])
        content = text_content(text, marker={})
        owed = OutboxEntry(
            secrets.token_hex(8), turn.turn_id, 0, OutboxKind.MESSAGE, 0, room_id, "@x", content
        )
        await self.outbox.freeze([owed], completes=turn)
        await self.turns.finish(turn, Outcome.ANSWERED)
        return event

    async def question_of(self, room_id: str, sender: str, text: str, options: int = 0) -> Json:
        """A question that somebody has asked, once it takes answers and its options are
        offered."""

        async def asked() -> list[Json]:
            events = await self.ann.timeline(room_id)
            by_tool = [e for e in events if e["content"].get(MARKER, {}).get("tool") == "ask_human"]
            mine = [e for e in by_tool if e["sender"] == sender]
            found = [e for e in mine if e["content"]["body"].startswith(text)]
            targets = [e["content"]["m.relates_to"] for e in events if e["type"] == "m.reaction"]
            ids = [e["event_id"] for e in found]
            return found if sum(one["event_id"] in ids for one in targets) >= options else []

        question = (await self.ann.watch(room_id, asked, what=text))[0]
        await eventually(lambda: question["event_id"] in self.toolbox.questions._open)
        return question


@asynccontextmanager
async def bench_on(homeserver: Homeserver, directory: Path, ann: Person) -> AsyncGenerator[Bench]:
    """A toolbox with a database in an empty directory."""
    often = {"conversations": {"tool_calls_per_minute": 1_000_000}}
    config = config_on(homeserver, directory, ann, **often)
    await lay_database(homeserver, directory)
    database = Database(database_url(f"sqlite:///{DATABASE}", directory))
    await database.open()
    client = HomeserverClient(homeserver.url, homeserver.as_token, Pacer(8))
    await Intent(client, config.bot_user_id).register()
    bench = Bench(homeserver, config, client, database, AgentDirectory(database), ann)
    yield bench
    await bench.toolbox.close()
    await client.close()
    await database.close()
