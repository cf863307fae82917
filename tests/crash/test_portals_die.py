"""SIGKILL while somebody on another network is answered: each message goes out once, in order."""

import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from tests.crash.bridges import Bridges
from tests.crash.checks import Words
from tests.waiting import eventually

BRIDGE_BOT, LINE = "@talks:localhost", "@letta_irc:localhost"
Event = dict[str, Any]


@dataclass
class Network:
    """Another network, as its bridge shows it: one contact and the portal of the talk with them."""

    bridges: Bridges
    contact: str = field(default_factory=lambda: f"@talk_{secrets.token_hex(6)}:localhost")
    room_id: str = ""

    def __post_init__(self) -> None:
        file = self.bridges.homeserver.talks_registration
        self._token = str(yaml.safe_load(file.read_text())["as_token"])

    async def call(self, who: str, method: str, path: str, body: object = None) -> Event:
        url = f"{self.bridges.homeserver.url}/_matrix/client/v3{path}"
        headers = {"Authorization": f"Bearer {self._token}"}
        asked = self.bridges.http.request(
            method, url, json=body, params={"user_id": who}, headers=headers
        )
        async with asked as response:
            answer = await response.json()
            assert response.status == 200 or answer["errcode"] == "M_USER_IN_USE", answer
            return dict(answer)

    async def open(self) -> None:
        """The bridge makes a room for the contact, and invites the line."""
        for who in (BRIDGE_BOT, self.contact):
            body = {"type": "m.login.application_service", "username": who[1:].partition(":")[0]}
            await self.call(who, "POST", "/register", body | {"inhibit_login": True})
        told = {
            "bridgebot": BRIDGE_BOT,
            "protocol": {"id": "irc"},
            "channel": {"id": self.contact},
            "com.beeper.room_type": "dm",
        }
        state = [{"type": "m.bridge", "state_key": "irc://talk", "content": told}]
        room: Event = {"invite": [self.contact], "initial_state": state}
        made = await self.call(BRIDGE_BOT, "POST", "/createRoom", room)
        self.room_id = quote(str(made["room_id"]))
        await self.call(self.contact, "POST", f"/rooms/{self.room_id}/join", {})
        invited = {"user_id": LINE}
        await self.call(BRIDGE_BOT, "POST", f"/rooms/{self.room_id}/invite", invited)
        members = f"/rooms/{self.room_id}/joined_members"

        async def is_there() -> bool:
            return LINE in (await self.call(BRIDGE_BOT, "GET", members))["joined"]

        await eventually(is_there, what="the line is in the portal")

    async def say(self, text: str) -> str:
        path = f"/rooms/{self.room_id}/send/m.room.message/{secrets.token_hex(8)}"
        said = await self.call(self.contact, "PUT", path, {"msgtype": "m.text", "body": text})
        return str(said["event_id"])

    async def heard(self) -> list[str]:
        """What went out to the network."""
        path = f"/rooms/{self.room_id}/messages"
        asked = self.bridges.http.get(
            f"{self.bridges.homeserver.url}/_matrix/client/v3{path}",
            params={"user_id": BRIDGE_BOT, "dir": "f", "limit": "100"},
            headers={"Authorization": f"Bearer {self._token}"},
        )
        async with asked as response:
            events = (await response.json())["chunk"]
        ours = [one for one in events if one["sender"] == LINE]
        return [one["content"]["body"] for one in ours if one["type"] == "m.room.message"]

    async def over(self, *event_ids: str) -> None:
        """Wait until these messages' turns are done."""
        query = "SELECT event_id FROM turns WHERE status = 'done'"

        async def are_done() -> bool:
            return set(event_ids) <= {row[0] for row in self.bridges.rows(query)}

        await eventually(are_done, what="every turn is done")

    def owed(self) -> list[Any]:
        query = "SELECT * FROM outbox JOIN turns USING (turn_id) WHERE outbox.event_id IS NULL"
        return self.bridges.rows(query)


@pytest.fixture
async def bridged(house: Bridges) -> AsyncGenerator[Bridges]:
    """With a bridge to another network, where everybody may talk to the first agent."""
    portal = {
        "name": "irc",
        "bot": BRIDGE_BOT,
        "ghosts": "@talk_(.+):localhost",
        "line": LINE,
        "routes": {"*": await house.common_agent()},
        "join_messages": 0,
        "part_bytes": 160,
    }
    await house.write_config(portals=[portal])
    yield house
    await house.unset_trap()


@pytest.mark.parametrize(
    "point",
    ["end frozen, not sent", "first message sent, not confirmed", "end sent, not recorded"],
)
async def test_killed_while_a_contact_is_answered(bridged: Bridges, point: str) -> None:
    words = Words.held(60)
    await bridged.start()
    network = Network(bridged)
    await network.open()
    bridged.set_trap(point, words.text)
    event_id = await network.say(words.text)
    bridged.steps.finish(words.text)
    await bridged.dead(point)

    await bridged.start()
    later = Words.quick()
    then = await network.say(later.text)
    await network.over(event_id, then)
    *parts, last = await network.heard()
    assert len(parts) > 1
    assert " ".join(parts).split() == words.answer.split(), "each part once, in order"
    assert last == later.answer
    assert bridged.count(words.text) == 1
    assert network.owed() == []


@pytest.mark.parametrize("point", ["admitted, before the 200", "first message sent, not confirmed"])
async def test_killed_while_a_contact_ends_it(bridged: Bridges, point: str) -> None:
    await bridged.start()
    network = Network(bridged)
    await network.open()
    before = Words.quick()
    await network.over(await network.say(before.text))
    bridged.set_trap(point, "stop")
    stop = await network.say("stop")
    await bridged.dead(point)

    await bridged.start()
    unheard = Words.quick()
    await network.say(unheard.text)
    start = await network.say("start")
    await network.over(stop, start)
    answer, ended, back = await network.heard()
    assert answer == before.answer
    assert "Send START" in ended
    assert "Send STOP" in back
    assert bridged.count(unheard.text) == 0
