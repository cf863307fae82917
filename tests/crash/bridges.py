"""The bridge under test: one data directory, and the processes that come and go on it."""

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import aiohttp
import psycopg
import yaml
from sqlalchemy import URL
from tests.crash.launcher import TRAP
from tests.crash.nursery import Born, Nursery
from tests.crash.person import Person, Said
from tests.servers import Homeserver, LettaServer, ServerProcess, free_port
from tests.steps import Steps
from tests.stub_model import MODEL_ID, StubModel
from tests.waiting import DEADLINE, eventually, within

from letta_matrix.common.identifiers import user_id
from letta_matrix.conversations import notices
from letta_matrix.runtimes.keeper.pid_file import KeeperProcess
from letta_matrix.store.outbox import OutboxKind

_AWAY = (notices.UNAVAILABLE, notices.WAS_AWAY)
_BESIDE = (OutboxKind.APPROVAL, OutboxKind.TRACE)


@dataclass(frozen=True)
class Room:
    """An agent's room, or a thread in it."""

    room_id: str
    agent_id: str
    ghost: str
    thread_id: str = ""

    def thread(self, root: str) -> "Room":
        return replace(self, thread_id=root)


class Mind(Protocol):
    """Who thinks for the agents; `count` tells how often it was asked with a text."""

    steps: Steps

    def count(self, text: str) -> int: ...


# asyncio.Runner makes the text of what it returns, and fixtures return this one again and again.
@dataclass(repr=False)
class Bridges:
    """Starts bridges on `directory`; one that was not ended runs on through the tests that come,
    until another takes its place. `runtime` is the section of the runtime that its agents live
    in, `database` where it is PostgreSQL's, `hall` the room of one of them that many tests use."""

    directory: Path
    homeserver: Homeserver
    letta: LettaServer
    model: StubModel
    person: Person
    http: aiohttp.ClientSession
    runtime: dict[str, Any]
    mind: Mind
    nursery: Nursery
    database: URL | None = None
    port: int = field(default_factory=free_port)
    agents: list[str] = field(default_factory=list[str])
    hall: Room | None = None
    _process: Born | None = None
    _running: ClassVar["Bridges | None"] = None

    @property
    def keeper(self) -> KeeperProcess:
        return KeeperProcess(self.directory / "keeper.sock")

    @property
    def pid(self) -> int:
        """The running bridge."""
        assert self._process is not None
        return self._process.pid

    def count(self, text: str) -> int:
        """How often an agent was asked with a text."""
        return self.mind.count(text)

    @property
    def steps(self) -> Steps:
        """How far the agents' answers may go."""
        return self.mind.steps

    async def write_config(
        self,
        *,
        permission_mode: str = "",
        portals: Sequence[Mapping[str, Any]] = (),
        sms: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the configuration; a bridge that runs with another one is stopped."""
        appservice = self.homeserver.config.appservice
        mode = {"permission_mode": permission_mode} if permission_mode else {}
        config: dict[str, Any] = {
            "homeserver": {"url": self.homeserver.url, "domain": self.homeserver.server_name},
            "appservice": {
                "url": appservice.url,
                "port": appservice.port,
                "as_token": self.homeserver.as_token,
                "hs_token": self.homeserver.hs_token,
            },
            "runtimes": [{"speech_interval": 0.5, **self.runtime, **mode}],
            "agents": {"room_members": [self.person.user_id], "poll_interval": 0.2},
            # Edits come early, so that there are some to die between.
            "conversations": {"edit_interval": 0.1},
            "permissions": {self.person.user_id: "admin"},
            "api": {"port": self.port},
            "mcp": {"enabled": False},
            "portals": [dict(one) for one in portals],
            "sms": dict(sms) if sms is not None else None,
            "logging": {"level": "debug"},
        }
        if self.database is not None:
            config["database"] = {"url": self.database.render_as_string(hide_password=False)}
        file, text = self.directory / "config.yaml", yaml.safe_dump(config)
        if not file.exists() or file.read_text() != text:
            await self.stop()
            file.write_text(text)

    def set_trap(self, point: str, text: str | None = None, victim: int | None = None) -> None:
        """Let the bridge, or `victim`, die at a point: in what it does from the moment it is
        told `text`, or from now on."""
        trap = {"point": point, "text": text, "victim": victim}
        whole = self.directory / "trap.new"
        whole.write_text(json.dumps(trap))
        whole.replace(self.directory / TRAP)

    async def unset_trap(self) -> None:
        """Forget a trap that killed nobody, and stop the bridge that it was set for."""
        if (self.directory / TRAP).exists():
            await self.stop()
            (self.directory / TRAP).unlink()

    async def start(self) -> None:
        """Start a bridge and wait until it is ready, unless one runs."""
        if self._process is not None:
            return
        born = await self._new_process()

        async def is_ready() -> bool:
            assert not born.code.done(), self.log()[-3000:]
            return await self._ready()

        await eventually(is_ready, what="the bridge is ready")

    async def run_until_dead(self, point: str) -> None:
        """Start a bridge that dies on its way up, and see it die."""
        self.set_trap(point)
        await self._new_process()
        await self.dead(point)

    async def dead(self, point: str) -> None:
        """Wait until the running bridge has killed itself at `point`."""
        code, log = await self.ended(), self.log()
        assert code == -signal.SIGKILL, log[-3000:]
        # Where it dies in a commit, another thread may have had a word after that.
        last_words = [line for line in log.splitlines() if line.startswith("dying: ")]
        assert last_words[-1:] == [f"dying: {point}"], log[-3000:]
        assert not (self.directory / TRAP).exists(), "it was not this trap"

    async def sprung(self) -> None:
        """Wait until the trap has killed somebody else than the bridge."""

        async def is_over() -> bool:
            return not (self.directory / TRAP).exists()

        await eventually(is_over, what="the trap springs")

    async def ended(self) -> int:
        """Wait until the running bridge has ended; its exit code."""
        assert self._process is not None
        code = await within(asyncio.shield(self._process.code))
        self._process = None
        return code

    async def kill(self) -> None:
        """SIGKILL to the running bridge."""
        os.kill(self.pid, signal.SIGKILL)
        await self.ended()

    async def stop(self) -> None:
        """SIGTERM to the bridge, if one runs."""
        if self._process is not None:
            if not self._process.code.done():
                os.kill(self.pid, signal.SIGTERM)
            await self.ended()

    def log(self) -> str:
        return (self.directory / "bridge.log").read_text(errors="replace")

    async def deliver(self, txn_id: str, *events: dict[str, Any]) -> None:
        """Play the homeserver that delivers a transaction."""
        url = f"{self.homeserver.config.appservice.url}/_matrix/app/v1/transactions/{txn_id}"
        headers = {"Authorization": f"Bearer {self.homeserver.hs_token}"}
        async with self.http.put(url, json={"events": events}, headers=headers) as response:
            assert response.status == 200

    async def new_room(self) -> Room:
        """A new agent of the App Server and, as soon as the running bridge has made it, its
        room."""
        return await self.room_of(await self.new_agent(f"Agent {len(self.agents) + 1}"))

    async def common_room(self) -> Room:
        """The room of an agent that many tests talk to: it is there sooner than a new one."""
        if self.hall is None:
            self.hall = await self.new_room()
        return self.hall

    async def common_agent(self) -> str:
        """That agent's id, for a configuration that names it: a bridge that has another one is
        started only where it has yet to make the room."""
        if self.hall is None:
            await self.write_config()
            await self.start()
        return (await self.common_room()).agent_id

    async def new_thread(self) -> Room:
        """A new thread in that room."""
        room = await self.common_room()
        return room.thread(await self.person.send(room.room_id, "a thread", kind="m.notice"))

    async def say(self, room: Room, text: str) -> str:
        """The person's message in a room or thread; its event id."""
        return await self.person.send(room.room_id, text, room.thread_id)

    async def new_agent(self, name: str) -> str:
        """The id of a new agent of the App Server."""
        async with self.letta.app_server.control(self.http) as control:
            body: dict[str, Any] = {"name": name, "model": f"openai-compatible/{MODEL_ID}"}
            agent_id = str((await control.request("agent_create", body=body))["agent"]["id"])
        self.agents.append(agent_id)
        return agent_id

    async def room_of(self, agent_id: str) -> Room:
        """An agent's room, as soon as the running bridge has made it."""

        async def made() -> bool:
            return self._applied(agent_id) >= {"room_name", "space", "bot_joined", "members"}

        await eventually(made, what="the agent has a room")
        room_id = self.rows("SELECT room_id FROM agents WHERE agent_id = ?", agent_id)[0][0]

        async def joined() -> bool:
            return room_id in await self.person.joined()

        await eventually(joined, what="the person is in the agent's room")
        return Room(room_id, agent_id, user_id(agent_id, self.homeserver.server_name))

    async def listed(self) -> dict[str, str]:
        """The names of the App Server's agents, by their ids."""
        async with self.letta.app_server.control(self.http) as control:
            answer = await control.request("agent_list", query={"limit": 1000})
        return {str(agent["id"]): str(agent["name"]) for agent in answer["agents"]}

    async def tell_elsewhere(self, agent_id: str, text: str) -> None:
        """Talk to an agent of the App Server by its OpenAI API."""
        body = {"model": agent_id, "messages": [{"role": "user", "content": text}]}
        url = f"{self.letta.openai_url}/chat/completions"
        async with self.http.post(url, json=body) as response:
            assert response.status == 200

    async def delete_agents(self) -> None:
        """Leave nothing for the tests of others to provision."""
        async with self.letta.app_server.control(self.http) as control:
            for agent_id in self.agents:
                await control.request("agent_delete", agent_id=agent_id)
        self.agents.clear()
        self.hall = None

    async def settled(self, room: Room, *event_ids: str) -> None:
        """Wait until these messages' turns are done."""

        async def done() -> bool:
            turns = dict(self.turns(room))
            return all(turns.get(event_id) == "done" for event_id in event_ids)

        await eventually(done, what="every turn is done")

    def turns(self, room: Room) -> list[tuple[str, str]]:
        """Event id and status of the room's turns, in order."""
        query = (
            "SELECT event_id, status FROM turns WHERE room_id = ? AND thread_id = ? ORDER BY seq"
        )
        found = self.rows(query, room.room_id, room.thread_id)
        return [(str(event_id), str(status)) for event_id, status in found]

    def unsettled(self, room: Room) -> list[Any]:
        """Outbox rows of the room's turns without an event id."""
        query = (
            "SELECT outbox.kind, part, failure FROM outbox JOIN turns USING (turn_id)"
            " WHERE turns.room_id = ? AND turns.thread_id = ? AND outbox.event_id IS NULL"
        )
        return self.rows(query, room.room_id, room.thread_id)

    def rows(self, query: str, *values: object) -> list[Any]:
        with self._asked("ro", query, values) as answer:
            return list(answer.fetchall())

    def age_question(self, event_id: str, seconds: float) -> None:
        """Let a question be older, while no bridge runs."""
        assert self._process is None
        change = (
            "UPDATE approvals SET asked_at = asked_at - ?, expires_at = expires_at - ?"
            " WHERE prompt_txn = (SELECT txn_id FROM outbox WHERE event_id = ?)"
        )
        with self._asked("rw", change, (seconds, seconds, event_id)) as changed:
            assert changed.rowcount == 1

    @contextmanager
    def _asked(self, mode: str, query: str, values: Sequence[object]) -> Generator[Any]:
        if self.database is not None:
            to = self.database.translate_connect_args(username="user", database="dbname")
            with psycopg.connect(**to) as connection:
                yield connection.execute(query.replace("?", "%s").encode(), values)
            return
        path = f"file:{self.directory / 'letta-matrix.db'}?mode={mode}"
        with closing(sqlite3.connect(path, uri=True, timeout=DEADLINE)) as database, database:
            yield database.execute(query, tuple(values))

    async def replies(self, room: Room) -> list[Said]:
        """What the agent said, as the person sees it, but for what stands beside its answers:
        questions, traces, and the word that its runtime is away (whether it is away for long
        enough depends on how busy the machine is)."""
        return [
            message
            for message in await self._said(room)
            if message.beside not in _BESIDE and message.text not in _AWAY
        ]

    async def questions(self, room: Room) -> list[Said]:
        """The events by which the agent asked for approvals."""
        return [said for said in await self._said(room) if said.beside == OutboxKind.APPROVAL]

    async def _said(self, room: Room) -> list[Said]:
        said = await self.person.said(room.room_id)
        here = [message for message in said if message.thread == room.thread_id]
        return [message for message in here if message.sender == room.ghost]

    def _applied(self, agent_id: str) -> set[str]:
        query = "SELECT CAST(applied AS text) FROM agents WHERE agent_id = ?"
        found = self.rows(query, agent_id)
        return set(json.loads(found[0][0])) if found else set()

    async def _new_process(self) -> Born:
        assert self._process is None, "one bridge at a time"
        if Bridges._running is not None:
            await Bridges._running.stop()
        Bridges._running = self
        config, log = self.directory / "config.yaml", self.directory / "bridge.log"
        self._process = await self.nursery.bear(config, log)
        return self._process

    async def _ready(self) -> bool:
        try:
            async with self.http.get(f"http://127.0.0.1:{self.port}/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


def pid_of(server: ServerProcess | None) -> int:
    assert server is not None
    assert server.process is not None
    return server.process.pid
