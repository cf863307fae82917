"""What counts as read, and what the list does meanwhile."""

import re

from playwright.async_api import Route, expect
from tests.browser.chat_page import OpenPage, opened
from tests.browser.furniture import AgentRoom, NewUser, agent_room
from tests.browser.matrix_user import Json
from tests.waiting import eventually

LIVE: Json = {"org.matrix.msc4357.live": {}}
PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}


async def test_a_room_one_looks_at_has_no_badge(open_page: OpenPage, room: AgentRoom) -> None:
    """The receipt is held back, so that every sync brings the homeserver's stale count."""
    chat = await opened(open_page, room)
    await chat.page.route("**/read_markers", lambda route: route.abort())
    event = await room.agent.say(room.id, "One ▍", **LIVE)
    await expect(chat.message(event).locator(".content")).to_have_text("One")
    for text in ("One two", "One two three"):
        async with chat.page.expect_response("**/sync?**"):
            await room.agent.edit(room.id, event, text)
        await expect(chat.message(event).locator(".content")).to_have_text(text)
        await expect(chat.page.locator(".unread")).to_have_count(0)
        await expect(chat.page).to_have_title("Meridian · Letta chat")


async def test_badge_goes_once_the_room_is_read_elsewhere(
    open_page: OpenPage, room: AgentRoom, new_agent: NewUser
) -> None:
    ada = await agent_room(room.person, await new_agent("ada"), "Ada")
    chat = await opened(open_page, room)
    event = await ada.agent.say(ada.id, "psst")
    badge = chat.page.locator(f'.room[data-room="{ada.id}"] .unread')
    await expect(badge).to_have_text("1")
    await expect(chat.page).to_have_title(re.compile(r"^\(1\) "))
    await room.person.mark_read(ada.id, event)
    await expect(badge).to_have_count(0)
    await expect(chat.page).to_have_title("Meridian · Letta chat")


async def test_badge_leaves_out_what_an_open_thread_shows(
    open_page: OpenPage, room: AgentRoom
) -> None:
    """On the phone the thread lies on the room, whose own news nobody sees meanwhile."""
    root = await room.person.say(room.id, "A question")
    thread: Json = {
        "m.relates_to": {"rel_type": "m.thread", "event_id": root, "is_falling_back": True}
    }
    await room.agent.say(room.id, "A reply", **thread)
    chat = await opened(open_page, room, **PHONE)
    await chat.page.locator(".thread-chip").tap()
    panel = chat.page.get_by_role("complementary", name="Thread")
    await expect(panel.get_by_text("A reply")).to_be_visible()
    await room.agent.say(room.id, "In the thread", **thread)
    await expect(panel.get_by_text("In the thread")).to_be_visible()
    await expect(chat.page).to_have_title("Meridian · Letta chat")
    await room.agent.say(room.id, "In the room")
    await expect(chat.page).to_have_title("(1) Meridian · Letta chat")
    async with chat.page.expect_response("**/read_markers") as answer:
        await panel.get_by_role("button", name="Close the thread").tap()
    assert (await answer.value).status == 200
    await expect(chat.page).to_have_title("Meridian · Letta chat")


async def test_reload_posts_no_receipt_for_what_was_read(
    open_page: OpenPage, room: AgentRoom
) -> None:
    event = await room.agent.say(room.id, "One")
    await room.agent.edit(room.id, event, "One two")
    newest = (await room.person.messages(room.id))[0]["event_id"]
    await room.person.mark_read(room.id, newest)
    posted: list[str] = []

    async def note(route: Route) -> None:
        if route.request.method == "POST":
            receipt: Json = route.request.post_data_json or {}
            posted.append(receipt["m.read"])
        await route.continue_()

    chat = await open_page()
    await chat.page.clock.install()
    await chat.page.route("**/read_markers", note)
    await chat.resume(room.person)
    await expect(chat.saying("One two")).to_be_visible()
    await chat.page.reload()
    await expect(chat.saying("One two")).to_be_visible()
    await chat.page.clock.run_for(1000)
    await expect(chat.page.locator(".unread")).to_have_count(0)

    unread = await room.agent.say(room.id, "Three")
    await expect(chat.saying("Three")).to_be_visible()
    await chat.page.clock.run_for(1000)
    await eventually(lambda: posted)
    assert posted == [unread]


async def test_stale_count_of_a_read_room_is_not_shown(
    open_page: OpenPage, room: AgentRoom, new_agent: NewUser
) -> None:
    ada = await agent_room(room.person, await new_agent("ada"), "Ada")
    event = await ada.agent.say(ada.id, "psst")
    await room.person.mark_read(ada.id, event)
    await room.agent.say(room.id, "newer")

    async def count_one(route: Route) -> None:
        if "since=" in route.request.url:
            return await route.continue_()
        answer = await route.fetch()
        body = await answer.json()
        for joined in body.get("rooms", {}).get("join", {}).values():
            joined["unread_notifications"] = {"notification_count": 1, "highlight_count": 0}
        return await route.fulfill(response=answer, json=body)

    chat = await open_page()
    await chat.page.route("**/sync?**", count_one)
    await chat.resume(room.person)
    await expect(chat.page.locator(f'.room[data-room="{ada.id}"]')).to_be_visible()
    await expect(chat.page.locator(".unread")).to_have_count(0)


async def test_list_stays_in_order_under_the_pointer(
    open_page: OpenPage, room: AgentRoom, new_agent: NewUser
) -> None:
    ada = await agent_room(room.person, await new_agent("ada"), "Ada")
    await room.agent.say(room.id, "first")
    chat = await opened(open_page, room)
    names = chat.page.locator(".room .room-name")
    await chat.page.locator(".room").first.hover()
    await ada.agent.say(ada.id, "psst")
    await expect(chat.page.locator(".unread")).to_have_text("1")
    await expect(names).to_have_text(["Meridian", "Ada"])
    await chat.composer.hover()
    await expect(names).to_have_text(["Ada", "Meridian"])


async def test_renaming_is_quiet(open_page: OpenPage, room: AgentRoom, new_agent: NewUser) -> None:
    ada = await agent_room(room.person, await new_agent("ada"), "Ada")
    await ada.agent.say(
        ada.id, "| a | b |\n|---|---|\n# *So* [it](https://matrix.org) is", "<p>x</p>"
    )
    await room.agent.say(room.id, "newest")
    chat = await opened(open_page, room)
    await chat.composer.hover()
    await ada.agent.state(ada.id, "m.room.name", {"name": "Grace - Letta Agent Chat"})
    await expect(chat.page.locator(".room-name")).to_have_text(["Meridian", "Grace"])
    await expect(chat.page.locator(".preview").last).to_have_text("a b So it is")
    await chat.open_room(ada.id)
    await expect(chat.page.locator(".note")).to_have_text("Ada renamed the room to “Grace”")
    await expect(chat.page.locator("#announcer")).not_to_contain_text("Renamed")
