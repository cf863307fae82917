"""What axe-core finds on the chat page: nothing, on every screen and with all that opens on it."""

from importlib.resources import files
from typing import Any

from playwright.async_api import expect
from tests.browser.chat_page import ChatPage, OpenPage, opened
from tests.browser.furniture import AgentRoom
from tests.browser.matrix_user import Json
from tests.browser.test_answering import ask

PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}
AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
# What else it has looked at, thousands of elements, is neither described nor fetched.
RUN = "axe.run({ resultTypes: ['violations'] }).then(({ violations }) => violations)"
TABLE = "<table><tr><th>When</th></tr><tr><td>Friday</td></tr></table>"


async def faults(chat: ChatPage, where: str) -> list[Any]:
    """What breaks a rule of axe, with the elements that do."""
    if not await chat.page.evaluate("typeof axe === 'object'"):
        await chat.page.evaluate(AXE)
    found = await chat.page.evaluate(RUN)
    return [
        (where, fault["id"], fault["help"], [node["html"][:200] for node in fault["nodes"]])
        for fault in found
    ]


async def furnish(room: AgentRoom) -> str:
    """Something of each kind that is shown; returns the root of a thread."""
    root = await room.person.say(room.id, "A question")
    thread: Json = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    await room.agent.say(room.id, "A reply", **thread)
    await room.agent.say(room.id, "x", TABLE)
    table = await room.agent.say(room.id, "x", f"{TABLE}<pre><code>1\n</code></pre>{TABLE}")
    await room.agent.react(room.id, table, "👍")
    await room.person.react(room.id, table, "🎉")
    reply: Json = {"m.relates_to": {"m.in_reply_to": {"event_id": table}}}
    answer = await room.person.say(room.id, "Yes", **reply)
    await room.person.edit(room.id, answer, "No")
    await ask(room)
    await room.agent.typing(room.id, True)
    return root


async def test_axe_finds_nothing(open_page: OpenPage, room: AgentRoom) -> None:
    root = await furnish(room)
    signing_in = await open_page()
    await signing_in.page.goto(signing_in.url)
    await signing_in.page.get_by_label("User name").wait_for()
    found = await faults(signing_in, "signing in")

    chat = await opened(open_page, room)
    await expect(chat.page.get_by_role("button", name="Allow")).to_be_visible()
    await expect(chat.page.get_by_role("button", name="Stop")).to_be_visible()
    found += await faults(chat, "the room")
    await chat.page.emulate_media(color_scheme="dark")
    found += await faults(chat, "the room in the dark")
    await chat.message(root).locator(".thread-chip").click()
    await expect(chat.page.get_by_role("complementary", name="Thread")).to_contain_text("A reply")
    found += await faults(chat, "a thread")
    await chat.page.keyboard.press("Escape")
    await chat.composer.press_sequentially("!")
    await expect(chat.page.get_by_role("option").first).to_be_visible()
    found += await faults(chat, "commands")
    message = chat.page.locator(f'.room-pane article[data-id="{root}"]')
    await message.hover()
    await message.get_by_role("button", name="More").click()
    await expect(chat.page.get_by_role("menu")).to_be_visible()
    found += await faults(chat, "a message's menu")
    await chat.page.get_by_role("menuitem", name="Edit").click()
    await chat.page.get_by_role("button", name="Sign out").click()
    await expect(chat.page.get_by_role("alertdialog")).to_be_visible()
    found += await faults(chat, "an edit, and a question")
    assert not found


async def test_axe_finds_nothing_on_the_phone(open_page: OpenPage, room: AgentRoom) -> None:
    root = await furnish(room)
    chat = await open_page(**PHONE)
    await chat.resume(room.person)
    await expect(chat.page.get_by_role("main")).to_have_count(1)
    await expect(chat.page.get_by_role("heading", level=1)).to_have_text("Letta chat")
    found = await faults(chat, "the rooms")
    await chat.open_room(room.id)
    await expect(chat.page.get_by_role("button", name="Allow")).to_be_visible()
    found += await faults(chat, "the room")
    await chat.message(root).locator(".thread-chip").tap()
    await expect(chat.page.get_by_role("complementary", name="Thread")).to_contain_text("A reply")
    found += await faults(chat, "a thread")
    assert not found
