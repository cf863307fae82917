"""SIGKILL while an agent writes a text: it goes out once, is noted once and counts once."""

import itertools
import json
from collections.abc import AsyncGenerator

import pytest
from tests.crash.bridges import Bridges, Room
from tests.doubles.gmessages import Gmessages, gmessages_on
from tests.doubles.gmessages.portals import Login, Rules

LINE = "@letta_sms:localhost"
_NUMBERS = (f"+155500007{number:02}" for number in itertools.count())


@pytest.fixture(scope="module")
async def phone(house: Bridges) -> AsyncGenerator[Gmessages]:
    """A phone that is paired with the line."""
    rules, homeserver = Rules({LINE: "user"}), house.homeserver
    file, where = homeserver.gmessages_registration, (homeserver.url, homeserver.server_name)
    async with gmessages_on(file, *where, rules) as double:
        double.portals.logins[LINE] = Login("phone-1", LINE, "+15550000001", 1)
        yield double


@pytest.fixture
async def line(house: Bridges, phone: Gmessages) -> AsyncGenerator[Bridges]:
    """With a phone line; the first agent may write twice a day to each number."""
    sms = {
        "routes": {"+15550*": await house.common_agent()},
        "contact_per_day": 2,
        "join_messages": 0,
        "provisioning": {"url": phone.url, "secret": phone.provisioning.secret},
    }
    await house.write_config(sms=sms)
    yield house
    await house.unset_trap()


def calling(number: str, text: str) -> str:
    """What has the agent write a text."""
    return f"tool:sms_send:{json.dumps({'number': number, 'text': text})}"


async def said_of(line: Bridges, room: Room, number: str, text: str) -> str:
    """What the agent says became of a text that it is told to write."""
    event_id = await line.say(room, calling(number, text))
    await line.settled(room, event_id)
    return (await line.replies(room))[-1].text


@pytest.mark.parametrize(
    "point",
    ["talk made, not known", "text to be sent", "half of a text sent", "call's end not committed"],
)
async def test_killed_while_a_text_is_sent(line: Bridges, phone: Gmessages, point: str) -> None:
    number = next(_NUMBERS)
    words = " ".join(f"{number}.{place}" for place in range(60))
    await line.start()
    room = await line.new_thread()
    line.set_trap(point, words)
    event_id = await line.say(room, calling(number, words))
    await line.dead(point)

    await line.start()
    await line.settled(room, event_id)
    (reply,) = await line.replies(room)
    assert "event_id" in reply.text, reply.text
    assert "event_id" in await said_of(line, room, number, "again")
    assert "used up" in await said_of(line, room, number, "too much")
    *parts, last = [text for to, text in phone.phone.sent if to == number]
    assert [one[:5] for one in parts] == [f"({place}/{len(parts)})" for place in (1, 2, 3)]
    assert " ".join(one[6:] for one in parts) == words
    assert last == "again"
    noted = "SELECT outcome FROM audit WHERE tool = 'sms_send' ORDER BY seq DESC LIMIT 3"
    outcomes = [row[0] for row in line.rows(noted)]
    assert outcomes[:2] == ["rate-limited", "ok"]
    # A call whose answer has arrived does not come again.
    assert outcomes[2] == "ok" or point == "call's end not committed"
