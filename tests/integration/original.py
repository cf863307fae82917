"""What the original integration leaves behind on a homeserver: accounts with passwords and
sessions, rooms of version 10, and the file that names them."""

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tests.integration.people import Json, Person
from tests.servers import Homeserver

from letta_matrix.common.identifiers import user_id
from letta_matrix.runtimes.protocol import AgentInfo


@dataclass
class OldAgent:
    """An agent's account as the original had it, signed in by its password, and its room."""

    info: AgentInfo
    person: Person
    room_id: str = ""

    @property
    def ghost(self) -> str:
        """The user id that the bridge gives it."""
        return user_id(self.info.agent_id, "localhost")

    @property
    def entry(self) -> Json:
        return {
            "agent_id": self.info.agent_id,
            "agent_name": self.info.name,
            "matrix_user_id": self.person.user_id,
            "matrix_password": self.person.password,
            "created": True,
            "room_id": self.room_id or None,
            "room_created": bool(self.room_id),
            "invitation_status": {},
        }


@dataclass
class Original:
    """`boss` is its admin."""

    homeserver: Homeserver
    boss: Person
    agents: list[OldAgent] = field(default_factory=list[OldAgent])

    async def agent(
        self, info: AgentInfo, localpart: str = "", *, signed_in: bool = True
    ) -> OldAgent:
        """An account with a password; under the agent's own user id unless `localpart` is given,
        as it was made before the homeserver knew of the bridge."""
        url, http = self.homeserver.url, self.homeserver.http
        if localpart:
            who, token, password = await self.homeserver.register(localpart)
            person = Person(http, url, who, token, password=password)
        else:
            who, password = user_id(info.agent_id, "localhost"), secrets.token_urlsafe(8)
            name = who[1:].partition(":")[0]
            await self._make(name, who, password)
            token = self.homeserver.as_token
            person = Person(http, url, who, token, as_user=who, password=password)
            if signed_in:
                token = await self.homeserver.synapse.login(http, name, password, "OLD")
                person = Person(http, url, who, token, password=password)
        made = OldAgent(info, person)
        self.agents.append(made)
        return made

    async def _make(self, name: str, who: str, password: str) -> None:
        body = {"type": "m.login.application_service", "username": name, "inhibit_login": True}
        ours = Person(self.homeserver.http, self.homeserver.url, who, self.homeserver.as_token)
        assert (await ours.call("POST", "/register", body))[0] == 200
        path = f"/../../../_synapse/admin/v2/users/{quote(who)}"
        asked = {"password": password, "logout_devices": False}
        assert (await self.boss.call("PUT", path, asked))[0] == 200

    async def room(
        self, maker: Person, *members: Person, encrypted: bool = False, **content: object
    ) -> str:
        """A room of version 10, in which only its maker has power."""
        room_id = await maker.create_room(
            *(one.user_id for one in members),
            room_version="10",
            initial_state=[_ENCRYPTION] if encrypted else [],
            power_level_content_override={"invite": 50},
            **content,
        )
        for one in members:
            assert (await one.call("POST", f"/rooms/{quote(room_id)}/join"))[0] == 200
        return room_id

    def write(self, file: Path, *more: Json, without: Iterable[str] = ()) -> Path:
        entries = [one.entry for one in self.agents if one.info.agent_id not in without]
        file.write_text(json.dumps([*entries, *more]))
        return file


_ENCRYPTION = {
    "type": "m.room.encryption",
    "state_key": "",
    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
}
