"""A bridge to another network, as its homeserver shows it."""

from typing import Any

from tests.builders import invite, message
from tests.fake_homeserver import FakeHomeserver, Json
from tests.stage import Stage

BOT, GHOST, BOB, SELF = "@ircbot:test", "@irc_ann:test", "@irc_bob:test", "@irc_letta:test"
LINE, AGENT = "@letta_irc:test", "@agent_1:test"
PORTAL = "!portal:test"


def settings(**changes: Any) -> Json:
    """One bridge, whose routes lead everybody to the first agent."""
    one: Json = {
        "name": "irc",
        "bot": BOT,
        "ghosts": r"@irc_(.+):test",
        "line": LINE,
        "self_ghosts": [SELF],
        "routes": {"*": "agent-1"},
        "join_messages": 0,
    }
    return one | changes


def bridge_state(protocol: str = "irc", **changes: Any) -> Json:
    """The content of `m.bridge`, in a talk of two."""
    content: Json = {
        "bridgebot": BOT,
        "protocol": {"id": protocol},
        "channel": {"id": "ann"},
        "com.beeper.room_type": "dm",
    }
    return content | changes


async def opened(
    stage: Stage,
    state: Json | None = None,
    *,
    room_id: str = PORTAL,
    invited: str = LINE,
    sender: str = BOT,
    ghosts: tuple[str, ...] = (GHOST,),
    **changes: Any,
) -> Json:
    """The bridge makes a portal and invites one of us; its state event."""
    stage.fake.members[room_id] = {BOT, *ghosts}
    content = bridge_state(**(state or {}), **changes)
    told = stage.fake.set_state(room_id, "m.bridge", content, "irc://ann", sender)
    await stage.tell(invite(invited, room_id, sender=BOT))
    return told


def said(text: str, sender: str = GHOST, room_id: str = PORTAL, **fields: Any) -> Json:
    """A message of a contact."""
    return message(text, room_id, sender=sender, **fields)


def admin(line: str, room_id: str = "!1:test") -> Json:
    """A command of an admin."""
    return message(line, room_id)


def out(fake: FakeHomeserver, room_id: str = PORTAL) -> list[str]:
    """What went out to the network."""
    return [event["content"]["body"] for event in fake.messages(room_id)]


async def with_bridge(stage: Stage, envelope: str = "", **changes: Any) -> Stage:
    """The stage's next process has a bridge configured."""
    stage._sections |= {"portals": [settings(**changes)]}
    await stage.again(envelope=envelope)
    stage.fake.users.add(LINE)
    return stage
