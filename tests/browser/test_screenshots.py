"""Pictures of the chat page; the README shows the first."""

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
<p>The draft is the one to begin with.</p>""",
)


QUESTION = (
    "May I run `Bash`?",
    """<p>May I run <code>Bash</code>?</p><p><code>command</code>:</p>
<pre><code>ls ~/notes/week
</code></pre>""",
)
TRACE = "<details><summary>🔧 2 tools · 3 s</summary><p>✓ <code>Bash</code> ok</p></details>"


def _beside(kind: str) -> Json:
    """What the bridge's notices beside a reply carry."""
    return {"msgtype": "m.notice", "org.letta.matrix": {"agent_id": "agent-1", "beside": kind}}


async def _converse(
    person: MatrixUser, meridian: MatrixUser, ada: MatrixUser, rooms: list[str]
) -> None:
    room = rooms[0]
    await ada.say(rooms[1], "The proof is checked, and it holds.")
    await person.say(room, "Good morning! What is on my plate this week?")
    question = await meridian.say(room, *QUESTION, **_beside("approval"))
    for key in ("✅", "❌"):
        await meridian.react(room, question, key)
    await person.react(room, question, "✅")
    answered = (
        f"✅ Bash allowed by {person.user_id}",
        f"<p>✅ <code>Bash</code> (<code>ls ~/notes/week</code>) allowed by "
        f"<code>{person.user_id}</code></p>",
    )
    await meridian.edit(room, question, *answered, **_beside("approval"))
    plan = await meridian.say(room, *PLAN)
    await person.react(room, plan, "🎉")
    await meridian.say(room, "🔧 2 tools", TRACE, **_beside("trace"))
    thread: Json = {
        "m.relates_to": {"rel_type": "m.thread", "event_id": plan, "is_falling_back": True}
    }
    for teller, text in ((person, "Which room?"), (meridian, "The blue one, on Friday at 10.")):
        await teller.say(room, text, **thread)
    await person.say(room, "Great. And tidy up the old notes, please.")
    live: Json = {"org.matrix.msc4357.live": {}}
    await meridian.say(room, "Gladly. I'll look through them before I move anything ▍", **live)
    tidy = "<p>May I run <code>Bash</code>?</p><pre><code>mv ~/notes/2024 ~/archive\n</code></pre>"
    asking = await meridian.say(room, "May I run `Bash`?", tidy, **_beside("approval"))
    for key in ("✅", "❌"):
        await meridian.react(room, asking, key)
    await meridian.typing(room, True)


async def _picture(chat: ChatPage, person: MatrixUser, room: str, name: str) -> None:
    await chat.resume(person)
    await chat.open_room(room)
    await expect(chat.saying("Gladly")).to_be_in_viewport()
    await expect(chat.page.locator(".answer")).to_have_count(2)
    await expect(chat.page.locator(".room-pane .typing")).to_be_visible()
    await chat.page.evaluate("document.fonts.ready.then(() => {})")
    await chat.page.screenshot(path=FOLDER / name, animations="disabled")


async def test_screenshots(new_user: NewUser, new_agent: NewUser, open_page: OpenPage) -> None:
    person = await new_user("sam")
    meridian, ada = await new_agent("meridian"), await new_agent("ada")
    named = {"Meridian": meridian, "Ada": ada}
    rooms = [(await agent_room(person, agent, name)).id for name, agent in named.items()]
    await agents_space(person, rooms)
    await _converse(person, meridian, ada, rooms)
    FOLDER.mkdir(parents=True, exist_ok=True)
    desktop = {"viewport": {"width": 1180, "height": 1080}, "device_scale_factor": 2}
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
