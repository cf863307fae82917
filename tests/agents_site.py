"""A provisioner for the fake homeserver, and time that passes for it."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.builders import PERSON, agent, config_for
from tests.fake_homeserver import Fault

from letta_matrix.agents.home import Home
from letta_matrix.agents.losses import Losses
from letta_matrix.agents.provisioner import Provisioner
from letta_matrix.agents.remembered import Remembered
from letta_matrix.agents.server_help import server_help
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import Database, StoreUnavailable
from letta_matrix.store.meta import Meta
from letta_matrix.store.passwords import PasswordStore
from letta_matrix.store.rooms import Rooms

FORBIDDEN = Fault(403, {"errcode": "M_FORBIDDEN", "error": "not invited"})


class Site:
    """A provisioner for the fake homeserver."""

    def __init__(
        self,
        database: Database,
        directory: AgentDirectory,
        homeserver: Homeserver,
        **agents: Any,
    ) -> None:
        self.homeserver = homeserver
        self.database = database
        self.directory = directory
        people = {"room_members": [PERSON, "@bob:test"], **agents}
        permissions = {"test": "user", PERSON: "admin"}
        self.config = config_for(Path(), agents=people, permissions=permissions)
        self.bot = Intent(homeserver, self.config.bot_user_id)
        self.losses = Losses(AuditStore(database), lambda _: None)
        self.home = self.home_again()
        self.stores = Rooms(database), ConversationStore(database)
        self.remembered = Remembered(
            self.config, self.bot, directory, *self.stores, self.home, self.losses
        )
        self.passwords = PasswordStore(database)
        self.rooms = list[str]()
        self.deaf = False
        self.provisioner = Provisioner(
            self.config,
            homeserver,
            directory,
            self.home,
            self.remembered,
            server_help(self.config, homeserver, self.passwords),
            self._on_room,
        )

    async def _on_room(self, room_id: str) -> None:
        if self.deaf:
            raise StoreUnavailable("the database cannot be used now: disk full")
        self.rooms.append(room_id)

    async def reconcile(self) -> Agent:
        """Reconcile the first agent; returns what it is then."""
        await self.provisioner.reconcile("agent-1")
        return self.one

    def home_again(self) -> Home:
        """What a restarted bridge has."""
        return Home(self.config, self.bot, Meta(self.database), self.losses, self.directory)

    async def change(self, **fields: Any) -> None:
        await self.directory.change(["agent-1"], lambda one: replace(one, **fields))

    @property
    def one(self) -> Agent:
        found = self.directory.get("agent-1")
        assert found is not None
        return found

    async def new(self, number: int = 1, **fields: Any) -> Agent:
        one = agent(number, **fields)
        one.room_id = None
        await self.directory.reserve([one])
        return one


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the wall clock be so much ahead."""
    before = time.time
    monkeypatch.setattr(time, "time", lambda: before() + seconds)
