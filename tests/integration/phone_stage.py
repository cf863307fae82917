"""A phone that is paired with the line, through the double of mautrix-gmessages."""

from dataclasses import dataclass

import aiohttp
from tests.doubles.gmessages import Gmessages
from tests.doubles.gmessages.portals import Portal
from tests.integration.bridge_world import World
from tests.integration.people import Json, Room
from tests.waiting import eventually

from letta_matrix.portals.provisioning import Provisioning
from letta_matrix.store.portals import Portal as Known

LINE = "@letta_sms:localhost"
ANN, BEN, EVE = "+15550000101", "+15550000102", "+15550000103"
_COOKIES: Json = dict.fromkeys(("SID", "HSID", "SSID", "OSID", "APISID", "SAPISID"), "x")


@dataclass
class Phone:
    """The phone that is paired with the line, over HTTP, and the bridges on both its sides."""

    world: World
    double: Gmessages
    http: aiohttp.ClientSession
    own: Room

    async def do(self, what: str, **body: object) -> str:
        async with self.http.post(f"{self.double.url}/phone/{what}", json=body) as answer:
            told: Json = await answer.json()
            assert answer.status == 200, told
            return str(told["event_id"])

    async def text(self, text: str, number: str = ANN) -> str:
        """Somebody sends a text."""
        return await self.do("text", number=number, text=text)

    async def sent(self, number: str = ANN) -> list[str]:
        """What somebody has got."""
        async with self.http.get(f"{self.double.url}/phone") as answer:
            texts = (await answer.json())["texts"]
        return [one["text"] for one in texts if one["to"] == number]

    async def got(self, *texts: str, number: str = ANN) -> None:
        """Wait until somebody has got just these, from the last that were waited for on."""
        expected = list(texts)

        async def last() -> list[str]:
            return (await self.sent(number))[-len(expected) :]

        await eventually(last, lambda found: found == expected, f"{expected}")

    async def command(self, line: str) -> str:
        """An admin's command in the agent's room; what it answers."""
        ann, room = self.world.person, self.own
        event_id = await ann.send(room.room_id, line)

        async def answer() -> str:
            for said in await ann.said(room):
                if said["content"].get("org.letta.matrix", {}).get("in_reply_to") == event_id:
                    return str(said["content"]["body"])
            return ""

        return await ann.watch(room.room_id, answer, what=f"an answer to {line}")

    async def silence(self) -> None:
        """Wait until all that came in was looked at, and nothing is owed."""
        marker = await self.world.person.send(self.own.room_id, "!help")
        await eventually(lambda: self.world.bridge.app.stores.inbox.known([marker]))
        await self.world.idle()

    def portal(self, number: str = ANN) -> Portal:
        return next(one for one in self.double.portals.all.values() if one.number == number)

    def known(self, number: str = ANN) -> Known | None:
        """What our side knows of the talk."""
        return self.world.bridge.app.stores.portals.portal(self.portal(number).room_id)

    async def notices(self) -> list[str]:
        bodies = await self.world.person.bodies(self.own.room_id, self.own.ghost)
        return [one for one in bodies if one.startswith("About")]


async def pair(line: Provisioning, double: Gmessages) -> None:
    """Log in by an account and an emoji."""
    step = await line.go_on(await line.start("google"), _COOKIES)
    double.provisioning.tapped.set()
    assert (await line.go_on(step, {})).login
