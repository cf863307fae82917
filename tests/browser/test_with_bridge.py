"""A newcomer at work: the chat page, Synapse and the bridge, with agents that follow a script."""

import asyncio
from dataclasses import dataclass

import aiohttp
import pytest
from playwright.async_api import FilePayload, expect
from tests.browser.chat_page import ChatPage, OpenPage
from tests.browser.matrix_user import MatrixUser
from tests.browser.pictures import red_png
from tests.integration.bridge_world import Room, World
from tests.servers import Homeserver
from tests.waiting import eventually


@dataclass
class Newcomer:
    """A person in an agent's room, with the chat page open there."""

    world: World
    room: Room
    chat: ChatPage

    async def settled(self, status: str) -> None:
        """Wait until the question's event says this."""

        async def last() -> str:
            question = await self.world.person.beside(self.room, "approval")
            return str(question["content"]["body"])

        await eventually(last, lambda body: status in body)


@pytest.fixture(scope="module")
async def rooms(world: World) -> list[Room]:
    """Made at once, one for each test."""
    return await asyncio.gather(*(world.meet() for _ in range(6)))


@pytest.fixture
async def newcomer(
    world: World, rooms: list[Room], account: MatrixUser, open_page: OpenPage
) -> Newcomer:
    room = rooms.pop()
    chat = await open_page()
    await chat.resume(account)
    await chat.open_room(room.room_id)
    return Newcomer(world, room, chat)


async def test_a_tool_is_allowed_with_a_click(newcomer: Newcomer) -> None:
    chat = newcomer.chat
    await chat.type_and_send("please run it")
    question = chat.page.locator("article.approval")
    await expect(question).to_contain_text("May I run Bash?")
    answers = question.get_by_role("group", name="Answer the question").get_by_role("button")
    await expect(answers).to_have_text(["✅Allow", "❌Deny", "♾️Always allow"])
    await answers.first.click()
    await expect(question).to_contain_text("allowed by")
    await expect(question.locator(".answer")).to_have_count(0)
    # That says it already.
    await expect(question.locator(".chip")).to_have_count(0)
    await expect(chat.saying("One note.")).to_have_count(1)
    trace = chat.page.locator("article.trace")
    await expect(trace.locator("summary")).to_contain_text("1 tool")
    await expect(trace.get_by_text("monday.md")).to_be_hidden()
    await trace.locator("summary").click()
    await expect(trace.get_by_text("monday.md")).to_be_visible()
    await expect(chat.page.locator(".preview", has_text="One note.")).to_have_count(1)


async def test_a_tool_is_denied_by_keyboard(newcomer: Newcomer) -> None:
    chat = newcomer.chat
    await chat.type_and_send("please run it")
    deny = chat.page.locator("article.approval").get_by_role("button", name="Deny")
    await deny.focus()
    await chat.page.keyboard.press("Enter")
    await newcomer.settled("denied by")
    await expect(chat.saying("Then not.")).to_have_count(1)


async def test_an_agent_is_stopped(newcomer: Newcomer) -> None:
    chat = newcomer.chat
    await chat.type_and_send("count")
    await expect(chat.saying("1 2 3")).to_be_visible()
    await chat.type_and_send("still there?")
    waits = chat.page.locator("article.own", has_text="still there?")
    await expect(waits.locator(".status")).to_have_text("queued")
    stop = chat.page.get_by_role("button", name="Stop")
    await stop.click()
    await expect(chat.page.locator(".caret")).to_have_count(0)
    await expect(chat.saying("🛑").locator(".chip")).to_have_count(1)
    shown = chat.saying("1 2 3").locator(".content")
    kept = await shown.inner_text()
    await expect(chat.saying("echo: still there?")).to_be_visible()
    await expect(stop).to_be_hidden()
    await expect(waits.locator(".status")).to_be_hidden()
    assert await shown.inner_text() == kept


async def test_a_thread_is_a_talk_of_its_own(newcomer: Newcomer) -> None:
    chat, room = newcomer.chat, newcomer.room
    await chat.type_and_send("the first words")
    answer = chat.page.locator(".room-pane article", has_text="echo: the first words")
    await answer.hover()
    await answer.get_by_role("button", name="Reply in thread").click()
    thread = chat.page.get_by_role("complementary", name="Thread")
    box = thread.get_by_role("textbox", name="Reply in the thread")
    await expect(box).to_be_focused()
    await box.fill("aside")
    await box.press("Enter")
    await expect(thread.locator("article", has_text="echo: aside")).to_have_count(1)
    await expect(chat.page.locator(".room-pane article", has_text="aside")).to_have_count(0)
    await expect(answer.locator(".thread-chip")).to_contain_text("2 replies")
    root = await answer.get_attribute("data-id") or ""
    assert len(await newcomer.world.person.replies(room, 1, root)) == 1
    conversations = {asked.conversation_id for asked in newcomer.world.runtime.asked[-2:]}
    assert len(conversations) == 2


async def test_a_name_is_enough_in_a_group(
    newcomer: Newcomer, account: MatrixUser, homeserver: Homeserver, http: aiohttp.ClientSession
) -> None:
    chat = newcomer.chat
    other = MatrixUser(http, homeserver.url, *await homeserver.register("flatmate"))
    kitchen = await account.create_room("Kitchen", [newcomer.room.ghost, other.user_id])
    await other.join(kitchen)
    await chat.open_room(kitchen)
    await chat.composer.press_sequentially("@")
    await expect(chat.page.get_by_role("option", name="Ada")).to_be_visible()
    await chat.page.keyboard.press("Escape")
    await chat.composer.press_sequentially("ada, are you there?")
    await chat.page.keyboard.press("Enter")
    await chat.page.locator(".room-pane .thread-chip").click()
    thread = chat.page.get_by_role("complementary", name="Thread")
    await expect(thread.locator("article", has_text="are you there?")).to_have_count(2)
    await chat.page.keyboard.press("Escape")
    await chat.type_and_send("/whoami")
    await expect(chat.saying(f"You are {account.user_id}")).to_be_visible()


async def test_a_picture_reaches_the_agent(newcomer: Newcomer) -> None:
    chat = newcomer.chat
    picture: FilePayload = {"name": "red.png", "mimeType": "image/png", "buffer": red_png(60, 40)}
    await chat.page.locator(".room-pane input[type=file]").set_input_files([picture])
    chosen = chat.page.get_by_role("list", name="Files to be sent")
    await expect(chosen.get_by_role("listitem")).to_have_count(1)
    await chat.type_and_send("what is **this**?")
    own = chat.page.locator("article.own")
    await expect(own.locator(".caption strong")).to_have_text("this")
    await expect(own.locator(".picture img")).to_have_attribute("width", "60")
    await expect(chat.saying("I see image/")).to_be_visible()
