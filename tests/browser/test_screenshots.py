"""Pictures of the chat page; the README shows the first."""

import asyncio
from pathlib import Path

from playwright.async_api import expect
from tests.browser.chat_page import ChatPage, OpenPage
from tests.browser.furniture import NewUser, agent_room, agents_space
from tests.browser.matrix_user import Json, MatrixUser

FOLDER = Path(__file__).parents[2] / "build" / "screenshots"
PLAN = (
    "I looked through this week's notes. Three things stand out:",
    """<p>I looked through this week's notes. Three things stand out:</p>
<table><thead><tr><th>When</th><th>What</th><th>Who</th></tr></thead><tbody>
<tr><td>Tuesday</td><td>Review the reading list</td><td>you and me</td></tr>
<tr><td>Thursday</td><td>Draft of the talk</td><td>you</td></tr>
<tr><td>Friday</td><td>Book the room</td><td>me, <em>done</em></td></tr></tbody></table>
<p>This counts what is still open:</p>
<pre><code class="language-python">open_items = [item for item in week if not item.done]
print(f"{len(open_items)} to go")
</code></pre>""",
)


async def _converse(
    person: MatrixUser, meridian: MatrixUser, ada: MatrixUser, rooms: list[str]
) -> str:
    await ada.say(rooms[1], "The proof is checked, and it holds.")
    await person.say(rooms[0], "Good morning! What is on my plate this week?")
    traces = (
        "<details><summary>Searched notes, 2 results</summary>"
        "<p>archival_memory_search</p></details>"
    )
    await meridian.say(rooms[0], "Searched notes", traces, msgtype="m.notice")
    plan = await meridian.say(rooms[0], *PLAN)
    await person.react(rooms[0], plan, "🎉")
    await person.say(rooms[0], "Great. Remind me on Wednesday evening about the draft?")
    reply = "Gladly. I'll write to you on Wednesday at 18:00, with what you have so far ▍"
    live: Json = {"org.matrix.msc4357.live": {}}
    growing = await meridian.say(rooms[0], reply, **live)
    await meridian.typing(rooms[0], True)
    return growing


async def _picture(chat: ChatPage, person: MatrixUser, room: str, name: str) -> None:
    await chat.enter(person)
    await chat.open_room(room)
    await expect(chat.saying("Gladly")).to_be_visible()
    await asyncio.sleep(0.5)
    await chat.page.screenshot(path=FOLDER / name, animations="disabled")


async def test_screenshots(new_user: NewUser, new_agent: NewUser, open_page: OpenPage) -> None:
    person = await new_user("sam")
    meridian, ada = await new_agent("meridian"), await new_agent("ada")
    named = {"Meridian": meridian, "Ada": ada}
    rooms = [(await agent_room(person, agent, name)).id for name, agent in named.items()]
    await agents_space(person, rooms)
    await _converse(person, meridian, ada, rooms)
    FOLDER.mkdir(parents=True, exist_ok=True)
    desktop = {"viewport": {"width": 1180, "height": 872}, "device_scale_factor": 2}
    phone = {
        "viewport": {"width": 390, "height": 780},
        "device_scale_factor": 2,
        "has_touch": True,
        "is_mobile": True,
    }
    for name, options in {
        "chat.png": desktop,
        "chat-dark.png": {**desktop, "color_scheme": "dark"},
        "chat-phone.png": phone,
    }.items():
        await _picture(await open_page(**options), person, rooms[0], name)
