"""Threads on the chat page; the agents are played by the test."""

import re

from playwright.async_api import Locator, expect
from tests.browser.chat_page import ChatPage, OpenPage, opened
from tests.browser.furniture import AgentRoom
from tests.browser.matrix_user import Json

PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}


def below(root: str, last: str = "") -> Json:
    """The relation of a message in a thread."""
    return {
        "m.relates_to": {
            "rel_type": "m.thread",
            "event_id": root,
            "is_falling_back": True,
            "m.in_reply_to": {"event_id": last or root},
        }
    }


def thread_of(chat: ChatPage) -> Locator:
    return chat.page.get_by_role("complementary", name="Thread")


async def test_a_thread_is_kept_out_of_the_room(open_page: OpenPage, room: AgentRoom) -> None:
    root = await room.person.say(room.id, "A question")
    replies = [await room.agent.say(room.id, f"Reply {n}", **below(root)) for n in range(3)]
    chat = await opened(open_page, room)
    pane = chat.page.locator(".room-pane")
    await expect(pane.locator("article")).to_have_count(1)
    chip = pane.locator(".thread-chip")
    await expect(chip).to_have_attribute("aria-label", "Open the thread: 3 replies")
    await chip.click()
    thread = thread_of(chat)
    shown = thread.locator("article .content")
    await expect(shown).to_have_text(["A question", "Reply 0", "Reply 1", "Reply 2"])
    await expect(thread.locator(".quote:visible")).to_have_count(0)
    await room.agent.edit(room.id, replies[2], "Reply two")
    await expect(shown.last).to_have_text("Reply two")
    await thread.get_by_role("textbox").fill("Mine")
    await chat.page.keyboard.press("Enter")
    await expect(thread.locator("article.own").last).to_have_attribute(
        "data-id", re.compile(r"^\$")
    )
    sent = (await room.person.messages(room.id))[0]["content"]
    assert sent == {"msgtype": "m.text", "body": "Mine", **below(root, replies[2])}
    await expect(chip).to_contain_text("4 replies")
    await chat.page.keyboard.press("Escape")
    await expect(thread).to_be_hidden()
    await expect(chip).to_be_focused()
    await expect(pane.locator("article")).to_have_count(1)


async def test_an_old_thread_is_read_as_a_whole(open_page: OpenPage, room: AgentRoom) -> None:
    root = await room.agent.say(room.id, "Long ago")
    for number in range(4):
        await room.agent.say(room.id, f"Old {number}", **below(root))
    for number in range(30):
        await room.agent.say(room.id, f"message {number} " + "and words " * 20)
    chat = await opened(open_page, room)
    await expect(chat.saying("message 29 ")).to_be_in_viewport()
    assert await chat.message(root).count() == 0
    await room.agent.say(room.id, "News", **below(root))
    line = chat.page.locator(".note .thread-chip")
    await expect(line).to_have_text("Meridian in a thread: News")
    await line.click()
    shown = thread_of(chat).locator("article .content")
    await expect(shown).to_have_text(["Long ago", *(f"Old {n}" for n in range(4)), "News"])


async def test_reading_on_finds_the_root(open_page: OpenPage, room: AgentRoom) -> None:
    root = await room.agent.say(room.id, "Long ago")
    await room.agent.say(room.id, "Old", **below(root))
    for number in range(30):
        await room.agent.say(room.id, f"short {number}")
    await room.agent.say(room.id, "News", **below(root))
    chat = await opened(open_page, room)
    chip = chat.message(root).locator(".thread-chip")
    await expect(chip).to_contain_text("2 replies")
    await expect(chat.page.locator(".note .thread-chip")).to_have_count(0)


async def test_a_thread_on_the_phone(open_page: OpenPage, room: AgentRoom) -> None:
    root = await room.person.say(room.id, "A question")
    await room.agent.say(room.id, "A reply", **below(root))
    chat = await opened(open_page, room, **PHONE)
    await chat.page.locator(".thread-chip").tap()
    thread = thread_of(chat)
    await expect(thread.get_by_text("A reply")).to_be_in_viewport()
    await expect(thread.get_by_role("textbox")).to_be_in_viewport()
    await expect(chat.composer).to_be_hidden()
    assert await chat.page.evaluate("document.documentElement.scrollWidth") <= 390
    await thread.get_by_role("button", name="Close the thread").tap()
    await expect(chat.composer).to_be_visible()
