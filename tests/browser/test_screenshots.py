"""Pictures of the chat page, as `docs/images` has some of them."""

import re
import time
from dataclasses import replace
from pathlib import Path

from playwright.async_api import expect
from tests.browser.chat_page import ChatPage, OpenPage
from tests.browser.furniture import NewUser, agent_room, agents_space
from tests.browser.matrix_user import Json, MatrixUser
from tests.builders import asked_approval, message

from letta_matrix.conversations.approval_text import outcome, prompt
from letta_matrix.conversations.new_turns import new_turn
from letta_matrix.conversations.reply_events import ReplyEvents
from letta_matrix.matrix.reactions import ALLOW, DENY
from letta_matrix.store.approvals import ApprovalStatus
from letta_matrix.store.outbox import OutboxKind

FOLDER = Path(__file__).parents[2] / "build" / "screenshots"
DESKTOP = {"viewport": {"width": 1180, "height": 1230}, "device_scale_factor": 2}
PLAN = (
    "I looked through this week's notes. Three things stand out:",
    """<p>I looked through this week's notes. Three things stand out:</p>
<table><thead><tr><th>When</th><th>What</th><th>Who</th></tr></thead><tbody>
<tr><td>Tuesday</td><td>Review the reading list</td><td>you and me</td></tr>
<tr><td>Thursday</td><td>Draft of the talk</td><td>you</td></tr>
<tr><td>Friday</td><td>Book the room</td><td>me, <em>done</em></td></tr></tbody></table>
<p>The draft is the one to begin with.</p>""",
)


TRACE = "<details><summary>🔧 2 tools · 3 s</summary><p>✓ <code>Bash</code> ok</p></details>"


def _beside(kind: str) -> Json:
    """What the bridge's notices beside a reply carry."""
    return {"msgtype": "m.notice", "org.letta.matrix": {"agent_id": "agent-1", "beside": kind}}


class _Asked:
    """A question for approval as the bridge puts it, and what becomes of it."""

    def __init__(self, agent: MatrixUser, person: MatrixUser, room: str, command: str) -> None:
        turn = new_turn(message("Please", room, sender=person.user_id), "agent-1", "Please")
        arguments = {"command": command, "description": "Look at the notes"}
        until = time.time() + 1800
        self._approval = asked_approval(turn, "3fa2b1c4d5e6", arguments=arguments, expires_at=until)
        self._events = ReplyEvents(turn, agent.user_id, [])
        self._agent, self._person, self._room = agent, person, room

    async def ask(self) -> str:
        """Its event."""
        text = prompt(self._approval, f"`{self._person.user_id}` or an admin")
        assert text is not None
        pings = [self._person.user_id]
        entry = self._events.beside(OutboxKind.APPROVAL, "k", text, pings=pings)
        event = await self._agent.send(self._room, dict(entry.content))
        for key in (ALLOW, DENY):
            await self._agent.react(self._room, event, key)
        return event

    async def allow(self, event: str) -> None:
        await self._person.react(self._room, event, ALLOW)
        allowed = replace(
            self._approval, status=ApprovalStatus.ALLOWED, decided_by=self._person.user_id
        )
        entry = self._events.update(OutboxKind.APPROVAL, "k", event, outcome(allowed))
        await self._agent.send(self._room, dict(entry.content))


async def _converse(
    person: MatrixUser, meridian: MatrixUser, ada: MatrixUser, rooms: list[str]
) -> None:
    room = rooms[0]
    await ada.say(rooms[1], "The proof is checked, and it holds.")
    await person.say(room, "Good morning! What is on my plate this week?")
    looking = _Asked(meridian, person, room, "ls ~/notes/week")
    await looking.allow(await looking.ask())
    plan = await meridian.say(room, *PLAN)
    await person.react(room, plan, "🎉")
    await meridian.say(room, "🔧 2 tools", TRACE, **_beside("trace"))
    thread: Json = {
        "m.relates_to": {"rel_type": "m.thread", "event_id": plan, "is_falling_back": True}
    }
    for teller, text in ((person, "Which room?"), (meridian, "The blue one, on Friday at 10.")):
        await teller.say(room, text, **thread)
    await person.say(room, "Great. And tidy up the old notes, please.")
    await meridian.say(room, "Gladly. I'd put last year's into the archive.")
    await _Asked(meridian, person, room, "mv ~/notes/2024 ~/archive").ask()


async def _read(chat: ChatPage, person: MatrixUser, room: str) -> None:
    await chat.resume(person)
    await chat.open_room(room)
    await expect(chat.saying("Gladly")).to_be_in_viewport()
    await expect(chat.page.locator(".answer")).to_have_count(2)
    # The question is in sight.
    await expect(chat.page.get_by_text("Meridian waits for your answer")).to_be_hidden()
    await chat.page.evaluate("document.fonts.ready.then(() => {})")


async def _shade(chat: ChatPage) -> int:
    """How bright the page's ground is, from 0 to 255."""
    colour = await chat.page.locator("main.conversation").evaluate(
        "element => getComputedStyle(element).backgroundColor"
    )
    return int(re.findall(r"\d+", colour)[0])


async def _picture(chat: ChatPage, name: str) -> None:
    await chat.page.screenshot(path=FOLDER / name, animations="disabled")


async def test_screenshots(new_user: NewUser, new_agent: NewUser, open_page: OpenPage) -> None:
    person = await new_user("sam")
    meridian, ada = await new_agent("meridian"), await new_agent("ada")
    named = {"Meridian": meridian, "Ada": ada}
    rooms = [(await agent_room(person, agent, name)).id for name, agent in named.items()]
    await agents_space(person, rooms)
    await _converse(person, meridian, ada, rooms)
    FOLDER.mkdir(parents=True, exist_ok=True)
    phone = {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "has_touch": True,
        "is_mobile": True,
    }
    chat = await open_page(**DESKTOP)
    await _read(chat, person, rooms[0])
    # All of it is there, nothing cut off.
    await expect(chat.page.locator(".day").first).to_be_in_viewport(ratio=1)
    assert await _shade(chat) > 200
    await _picture(chat, "chat.png")
    await chat.page.emulate_media(color_scheme="dark")
    assert await _shade(chat) < 60
    await _picture(chat, "chat-dark.png")
    chat = await open_page(**phone)
    await _read(chat, person, rooms[0])
    await _picture(chat, "chat-phone.png")


async def test_pictures_of_an_approval(
    new_user: NewUser, new_agent: NewUser, open_page: OpenPage
) -> None:
    person, meridian = await new_user("sam"), await new_agent("meridian")
    room = (await agent_room(person, meridian, "Meridian")).id
    FOLDER.mkdir(parents=True, exist_ok=True)
    chat = await open_page(**DESKTOP)
    await chat.page.set_viewport_size({"width": 760, "height": 700})
    await chat.resume(person)
    await chat.open_room(room)
    await person.say(room, "What did I write down on Tuesday?")
    await meridian.say(room, "Let me look.")
    looking = _Asked(meridian, person, room, "grep -n Tuesday ~/notes/week")
    asked = await looking.ask()
    await expect(chat.page.locator(".answer")).to_have_count(2)
    pane = chat.page.locator(".room-pane")
    await pane.screenshot(path=FOLDER / "approval-asked.png", animations="disabled")
    await looking.allow(asked)
    await meridian.say(room, "To bring the reading list.")
    await expect(chat.page.locator(".answer")).to_have_count(0)
    await expect(chat.saying("To bring")).to_be_in_viewport()
    await pane.screenshot(path=FOLDER / "approval-answered.png", animations="disabled")
