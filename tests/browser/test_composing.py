"""Mentions, commands, and what a message's menu offers: replies, edits, deleting."""

from playwright.async_api import expect
from tests.browser.chat_page import OpenPage, opened
from tests.browser.furniture import AgentRoom, NewUser, group, newest
from tests.browser.matrix_user import Json, MatrixUser
from tests.browser.pictures import red_png
from tests.waiting import eventually

PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}


def pill(user: MatrixUser, name: str) -> str:
    return f'<a href="https://matrix.to/#/{user.user_id}">@{name}</a>'


async def test_names_are_completed_and_mentioned(
    open_page: OpenPage, room: AgentRoom, new_user: NewUser, new_agent: NewUser
) -> None:
    ada, mo = await new_agent("ada"), await new_user("mo")
    people = {"Ada Lovelace": ada, "Meridian": room.agent, "Mo": mo}
    await ada.set_avatar(await ada.upload(red_png(8, 8), "image/png"))
    kitchen = await group(room.person, people)
    chat = await open_page()
    await chat.resume(room.person)
    await chat.open_room(kitchen)
    keyboard = chat.page.keyboard
    options = chat.page.get_by_role("listbox", name="Suggestions").get_by_role("option")

    await chat.composer.press_sequentially("Dear @")
    await expect(options.locator(".label")).to_have_text(["Ada Lovelace", "Meridian", "Mo"])
    await expect(options.locator("img")).to_have_count(1)
    # A group has no one's face.
    await expect(chat.page.locator(".room-header .avatar img")).to_have_count(0)
    await keyboard.press("ArrowDown")
    await expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    active = await options.nth(1).get_attribute("id")
    await expect(chat.composer).to_have_attribute("aria-activedescendant", active or "")
    await keyboard.press("Tab")
    await expect(chat.composer).to_have_value("Dear @Meridian ")
    await expect(options).to_have_count(0)
    await chat.composer.press_sequentially("and @lov")
    await options.click()
    await expect(chat.composer).to_be_focused()
    await chat.composer.press_sequentially("ask @m")
    await keyboard.press("Escape")
    await expect(options).to_have_count(0)
    await chat.composer.press_sequentially("o, not `@Mo` or me@mo.example")
    await keyboard.press("Enter")

    sent = await newest(kitchen, mo, 1)
    assert sent["m.mentions"] == {"user_ids": [room.agent.user_id, ada.user_id, mo.user_id]}
    assert sent["body"] == "Dear @Meridian and @Ada Lovelace ask @mo, not `@Mo` or me@mo.example"
    assert sent["formatted_body"] == (
        f"<p>Dear {pill(room.agent, 'Meridian')} and {pill(ada, 'Ada Lovelace')} "
        f"ask {pill(mo, 'mo')}, not <code>@Mo</code> or me@mo.example</p>"
    )
    own = chat.page.locator("article.own")
    await expect(own.locator(".mention")).to_have_text(["@Meridian", "@Ada Lovelace", "@mo"])


async def test_the_box_says_how_an_agent_is_asked_in_a_group(
    open_page: OpenPage, room: AgentRoom, new_user: NewUser
) -> None:
    kitchen = await group(room.person, {"Meridian": room.agent, "Mo": await new_user("mo")})
    nobodys = await group(room.person, {"Mo": await new_user("mo")})
    chat = await opened(open_page, room, **PHONE)
    await expect(chat.composer).to_have_attribute("placeholder", "Message Meridian")
    for place, said in ((kitchen, "Message: @ names an agent"), (nobodys, "Message Kitchen")):
        await chat.page.get_by_role("button", name="Back").click()
        await chat.open_room(place)
        await expect(chat.composer).to_have_attribute("placeholder", said)


async def test_commands_are_listed(open_page: OpenPage, room: AgentRoom) -> None:
    kitchen = await group(room.person, {"Meridian": room.agent})
    chat = await opened(open_page, room)
    options = chat.page.get_by_role("option")
    await chat.composer.press_sequentially("!")
    await expect(options.filter(has_text="!help [NAME]lists what you can tell me")).to_have_count(1)
    await expect(options.filter(has_text="!pause").filter(has_text="For admins.")).to_have_count(1)
    await chat.composer.press_sequentially("den")
    await expect(options).to_have_count(1)
    await chat.page.keyboard.press("Enter")
    await expect(chat.composer).to_have_value("!deny ")
    # A word that is whole already is sent at once.
    await chat.composer.fill("")
    await chat.composer.press_sequentially("/status")
    await expect(options).to_have_count(1)
    await chat.page.keyboard.press("Enter")
    assert (await newest(room.id, room.agent, 1))["body"] == "!status"
    await chat.type_and_send("/home is no command")
    assert (await newest(room.id, room.agent, 2))["body"] == "/home is no command"
    await chat.open_room(kitchen)
    await chat.type_and_send("/help tools")
    assert (await newest(kitchen, room.agent, 1))["body"] == "!letta help tools"


async def test_replies_edits_and_deleting(open_page: OpenPage, room: AgentRoom) -> None:
    asked = await room.agent.say(room.id, "Which day?")
    chat = await opened(open_page, room)
    own = chat.page.locator("article.own")
    about = chat.page.locator(".room-pane .reference")
    await chat.choose(asked, "Reply")
    await expect(about).to_contain_text("Replying to Meridian")
    await chat.page.keyboard.press("Escape")
    await expect(about).to_be_hidden()
    await chat.choose(asked, "Reply")
    await expect(chat.composer).to_be_focused()
    await chat.page.keyboard.type("Thursday")
    await chat.page.keyboard.press("Enter")
    await expect(own.locator(".quote")).to_have_text("Meridian Which day?")
    reply = await newest(room.id, room.agent, 2)
    assert reply["m.relates_to"] == {"m.in_reply_to": {"event_id": asked}}

    mine = (await room.agent.messages(room.id))[0]["event_id"]
    await chat.composer.fill("a draft")
    await chat.choose(mine, "Edit")
    await expect(chat.composer).to_have_value("Thursday")
    # Their clock is an hour fast: what they say elsewhere afterwards is newer all the same.
    await chat.page.evaluate("{ const now = Date.now; Date.now = () => now() + 3.6e6 }")
    await chat.composer.fill("**Friday**")
    await chat.page.keyboard.press("Enter")
    await expect(own.locator(".content strong")).to_have_text("Friday")
    await expect(own.locator(".edited")).to_have_text("(edited)")
    await expect(own.locator(".quote")).to_be_visible()
    await expect(chat.composer).to_have_value("a draft")
    edit = await newest(room.id, room.agent, 3)
    assert edit["m.relates_to"] == {"rel_type": "m.replace", "event_id": mine}
    assert edit["m.new_content"]["body"] == "**Friday**"
    assert edit["body"] == "* **Friday**"
    await room.person.edit(room.id, mine, "Sunday", "<strong>Sunday</strong>")
    await expect(own.locator(".content strong")).to_have_text("Sunday")

    await chat.message(asked).get_by_role("button", name="More").click()
    await expect(chat.page.get_by_role("menuitem")).to_have_text(["Reply", "Copy text"])
    await chat.page.keyboard.press("Escape")
    await chat.choose(mine, "Delete")
    question = chat.page.get_by_role("alertdialog", name="Delete this message?")
    await question.get_by_role("button", name="Cancel").click()
    await expect(own.locator(".content strong")).to_have_text("Sunday")
    await chat.choose(mine, "Delete")
    await question.get_by_role("button", name="Delete").click()
    await expect(own.locator(".content")).to_have_text("This message was deleted.")
    await expect(
        own.locator(".quote, .edited, .actions button").locator("visible=true")
    ).to_have_count(0)

    async def content() -> Json:
        return (await room.agent.event(room.id, mine))["content"]

    await eventually(content, lambda left: not left)


async def test_replying_in_a_thread_on_the_phone(open_page: OpenPage, room: AgentRoom) -> None:
    root = await room.person.say(room.id, "A question")
    thread: Json = {"rel_type": "m.thread", "event_id": root}
    below: Json = {"m.relates_to": thread}
    first = await room.agent.say(room.id, "One", **below)
    await room.agent.say(room.id, "Two", **below)
    chat = await opened(open_page, room, **PHONE)
    await chat.page.clock.install()
    await chat.page.locator(".thread-chip").tap()
    bubble = chat.message(first).locator(".content")
    await bubble.dispatch_event("pointerdown", {"pointerType": "touch", "bubbles": True})
    await chat.page.clock.run_for(600)
    await chat.page.get_by_role("menuitem", name="Reply").click()
    box = chat.page.get_by_role("textbox", name="Reply in the thread")
    await box.fill("To the first")
    await box.press("Enter")
    sent = await newest(room.id, room.agent, 4)
    relation = {"m.in_reply_to": {"event_id": first}, "is_falling_back": False}
    assert sent["m.relates_to"] == {**thread, **relation}
