"""Reactions by keyboard, what an empty room offers, narrow windows."""

from playwright.async_api import Locator, expect
from tests.browser.chat_page import OpenPage, opened
from tests.browser.furniture import AgentRoom
from tests.waiting import eventually


async def box(element: Locator) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of an element."""
    found = await element.bounding_box()
    assert found
    left, top = found["x"], found["y"]
    return left, top, left + found["width"], top + found["height"]


async def apart(one: Locator, other: Locator) -> bool:
    """Whether two elements cover nothing of each other."""
    a, b = await box(one), await box(other)
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


async def test_reaction_buttons_are_one_tab_stop(open_page: OpenPage, room: AgentRoom) -> None:
    for text in ("one", "two", "three"):
        await room.agent.say(room.id, text)
    chat = await opened(open_page, room)
    buttons = chat.page.locator(".add-reaction")
    await expect(buttons).to_have_count(3)
    await expect(chat.page.locator('.add-reaction[tabindex="0"]')).to_have_count(1)
    await chat.page.locator(".room-pane .timeline").focus()
    keyboard = chat.page.keyboard
    await keyboard.press("Tab")
    await expect(buttons.nth(2)).to_be_focused()
    await keyboard.press("ArrowUp")
    await expect(buttons.nth(1)).to_be_focused()
    await keyboard.press("Home")
    await expect(buttons.nth(0)).to_be_focused()
    await keyboard.press("Enter")
    await expect(chat.page.locator(".picker button").first).to_be_focused()
    await keyboard.press("Escape")
    await expect(buttons.nth(0)).to_be_focused()
    await keyboard.press("Tab")
    await expect(chat.page.locator(".reply-in-thread").nth(2)).to_be_focused()
    await keyboard.press("Tab")
    await expect(chat.page.locator(".more").nth(2)).to_be_focused()
    await keyboard.press("Tab")
    await expect(chat.page.get_by_role("button", name="Attach files").first).to_be_focused()
    await keyboard.press("Tab")
    await expect(chat.composer).to_be_focused()


async def test_picker_closes_when_focus_leaves(open_page: OpenPage, room: AgentRoom) -> None:
    event = await room.agent.say(room.id, "one")
    chat = await opened(open_page, room)
    picker = chat.page.locator(".picker")
    await chat.message(event).hover()
    await chat.message(event).locator(".add-reaction").click()
    await expect(picker).to_be_visible()
    await chat.composer.focus()
    await expect(picker).to_have_count(0)
    await chat.message(event).locator(".add-reaction").click()
    await expect(picker).to_be_visible()
    await chat.message(event).locator(".add-reaction").click()
    await expect(picker).to_have_count(0)


async def test_reactions_are_chosen_beside_their_bubble(
    open_page: OpenPage, room: AgentRoom
) -> None:
    long = "many words and then some more of them, " * 20
    events = [await room.agent.say(room.id, text) for text in ("short", long, "short again")]
    events += [await room.person.say(room.id, text) for text in ("mine", long)]
    chat = await opened(open_page, room)
    own = chat.message(events[3])
    await own.hover()
    bubble, button = await box(own.locator(".bubble")), await box(own.locator(".add-reaction"))
    assert 0 <= bubble[0] - button[2] < 12
    assert abs((button[1] + button[3]) - (bubble[1] + bubble[3])) < 4
    for width in (1180, 390):
        await chat.page.set_viewport_size({"width": width, "height": 900})
        for event in events:
            message = chat.message(event)
            await message.scroll_into_view_if_needed()
            await message.hover()
            await message.locator(".add-reaction").click()
            picker = message.locator(".picker")
            assert await apart(picker, message.locator(".bubble")), (width, event)
            left, _, right, _ = await box(picker)
            assert left >= 0
            assert right <= width
            await chat.page.keyboard.press("Escape")


async def test_empty_room_offers_openings(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    openings = chat.page.locator(".opening")
    await expect(openings).to_have_text(["hello", "write 200 words", "use Bash: date"])
    await openings.first.click()
    await expect(chat.composer).to_have_value("hello")
    await expect(chat.composer).to_be_focused()


async def test_two_panes_from_700_pixels(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    await room.agent.say(room.id, "hello")
    await expect(chat.page.locator("#announcer")).to_contain_text("hello")
    for width in (700, 800, 900):
        await chat.page.set_viewport_size({"width": width, "height": 700})
        await expect(chat.page.locator(".sidebar")).to_be_visible()
        await expect(chat.saying("hello")).to_be_visible()
        left, _, right, _ = await box(chat.page.locator(".room-pane .composer-box"))
        assert right - left > 400
        assert right <= width
        # The page itself never scrolls.
        height = "document.scrollingElement.scrollHeight - innerHeight"
        assert await chat.page.evaluate(height) == 0
    hidden = "box => box.scrollHeight - box.clientHeight"
    await chat.composer.fill("word " * 30)
    for width in (390, 900):
        await chat.page.set_viewport_size({"width": width, "height": 700})
        await eventually(lambda: chat.composer.evaluate(hidden), (0).__ge__)


async def test_a_draft_that_was_out_of_sight_is_whole(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await open_page()
    await chat.page.set_viewport_size({"width": 600, "height": 700})
    await chat.resume(room.person)
    await chat.open_room(room.id)
    await chat.composer.fill("word " * 30)
    await chat.page.locator(".room-header .back").click()
    await expect(chat.composer).to_be_hidden()
    await chat.page.set_viewport_size({"width": 390, "height": 700})
    await chat.open_room(room.id)
    hidden = "box => box.scrollHeight - box.clientHeight"
    await eventually(lambda: chat.composer.evaluate(hidden), lambda rest: rest <= 0)
