"""Signing in, reading, writing: the chat page in Chromium against Synapse."""

import re
from urllib.parse import unquote

from playwright.async_api import Route, expect
from tests.browser.chat_page import OpenPage, opened
from tests.browser.furniture import AgentRoom, NewUser, agent_room, agents_space
from tests.browser.matrix_user import Json
from tests.waiting import eventually

LIVE: Json = {"org.matrix.msc4357.live": {}}
PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}


async def test_link_signs_in_once(open_page: OpenPage, room: AgentRoom) -> None:
    link = await room.person.login_token()
    chat = await open_page()
    await chat.page.goto(f"{chat.url}#token={link}")
    await expect(chat.page.locator(".room-name")).to_have_text("Meridian")
    assert "token" not in chat.page.url
    assert link not in await chat.page.evaluate("JSON.stringify([...Object.values(localStorage)])")

    stranger = await open_page()
    await stranger.page.goto(f"{stranger.url}#token={link}")
    await expect(stranger.page.get_by_role("alert")).to_contain_text("already used or has expired")
    await expect(stranger.page.get_by_label("Password")).to_be_visible()
    assert "token" not in stranger.page.url

    await chat.page.goto(f"{chat.url}#token={link}")
    await chat.page.get_by_role("button", name="Sign in with the link").click()
    await expect(chat.page.locator(".toast")).to_contain_text("You are still signed in")
    await expect(chat.page.locator(".room-name")).to_have_text("Meridian")


async def test_link_replaces_a_session_only_when_told(
    open_page: OpenPage, room: AgentRoom, new_user: NewUser
) -> None:
    chat = await opened(open_page, room)
    kept = "JSON.parse(localStorage.getItem('letta-matrix.chat.session')).userId"
    other = await new_user("other")
    link = f"{chat.url}#token={await other.login_token()}"
    await chat.page.goto(link)
    question = chat.page.get_by_role("heading", name="Sign in with this link instead?")
    await expect(question).to_be_visible()
    await expect(chat.page.locator("main")).to_contain_text(room.person.user_id)
    assert "token" not in chat.page.url
    await expect(chat.page.get_by_role("button", name="Stay signed in")).to_be_focused()
    await chat.page.keyboard.press("Enter")
    await expect(chat.page.locator(".room-name")).to_have_text("Meridian")
    assert await chat.page.evaluate(kept) == room.person.user_id

    await chat.page.goto(link)
    await chat.page.get_by_role("button", name="Sign in with the link").click()
    await chat.page.locator(".shell").wait_for()
    assert await chat.page.evaluate(kept) == other.user_id


async def test_password_sign_in_and_out(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await open_page()
    await chat.page.goto(chat.url)
    await chat.page.get_by_label("User name").fill(room.person.localpart)
    await chat.page.get_by_label("Password").fill("wrong")
    await chat.page.keyboard.press("Enter")
    await expect(chat.page.get_by_role("alert")).to_have_text("User name or password is wrong.")
    await chat.enter(room.person)
    await chat.page.reload()
    await expect(chat.page.locator(".room-name")).to_have_text("Meridian")
    await expect(chat.composer).to_be_focused()
    await room.agent.say(room.id, "a secret")
    await expect(chat.page.locator("#announcer")).to_contain_text("a secret")
    await chat.page.get_by_role("button", name="Sign out").click()
    await expect(chat.page.get_by_role("button", name="Cancel")).to_be_focused()
    await chat.page.keyboard.press("Escape")
    await expect(chat.page.get_by_role("button", name="Sign out")).to_be_focused()
    await chat.sign_out()
    assert await chat.page.evaluate("localStorage.length") == 0
    await expect(chat.page.locator("#announcer")).to_be_empty()


async def test_ended_session_says_why(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    await room.person.call("POST", "/v3/logout/all", {})
    await expect(chat.page.get_by_role("alert")).to_contain_text("signed out")


async def test_edits_grow_in_place(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    event = await room.agent.say(room.id, "One ▍", "<p>One ▍</p>", **LIVE)
    message = chat.message(event)
    await expect(message.locator(".content")).to_have_text("One")
    await expect(message.locator(".caret")).to_be_visible()
    await message.evaluate("element => { element.dataset.mark = 'same' }")
    details = "<details><summary>Thoughts</summary><p>deep</p></details>"
    await room.agent.edit(room.id, event, "One two ▍", f"{details}<p>One two ▍</p>", **LIVE)
    await expect(message.locator(".content")).to_contain_text("One two")
    await message.locator("summary").click()
    await room.agent.edit(room.id, event, "One two three", f"{details}<p>One two three</p>")
    await expect(message.locator(".content")).to_contain_text("One two three")
    await expect(message.locator(".caret")).to_have_count(0)
    await expect(message.get_by_text("deep")).to_be_visible()
    await expect(message).to_have_attribute("data-mark", "same")
    await expect(chat.page.locator("article")).to_have_count(1)
    await expect(chat.page.locator("#announcer")).to_contain_text("One two three")


async def test_old_stream_shows_its_last_edit(open_page: OpenPage, room: AgentRoom) -> None:
    event = await room.agent.say(room.id, "0")
    for step in range(1, 32):
        await room.agent.edit(room.id, event, f"step {step}")
    chat = await opened(open_page, room)
    await expect(chat.message(event).locator(".content")).to_have_text("step 31")
    await expect(chat.page.locator("article")).to_have_count(1)


async def test_tables_code_and_plain_text(open_page: OpenPage, room: AgentRoom) -> None:
    table = "<table><thead><tr><th>A</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>"
    code = '<pre><code class="language-python">print(1)\n</code></pre>'
    event = await room.agent.say(room.id, "x", f"{table}{code}")
    wide = "x = 1  # " + "very long " * 40
    unnamed = await room.agent.say(room.id, "x", f"<pre><code>{wide}\n</code></pre>")
    plain = await room.agent.say(room.id, "two\nlines <b> https://matrix.org/x.")
    bare = "<p>https://matrix.org/y <code>https://code.test</code></p>"
    formatted = await room.agent.say(room.id, "x", bare)
    notice = await room.agent.say(room.id, "a notice", msgtype="m.notice")
    chat = await opened(open_page, room)
    await expect(chat.message(event).get_by_role("cell")).to_have_text("1")
    await expect(chat.message(event).locator("pre code.language-python")).to_have_text("print(1)\n")
    frame = chat.message(unnamed).locator(".code-frame")
    await expect(frame.locator(".code-bar")).to_have_count(0)
    await frame.hover()
    await expect(frame.get_by_role("button", name="Copy")).to_have_css("opacity", "1")
    background = "element => getComputedStyle(element).backgroundImage"
    assert "gradient" in await frame.locator("pre").evaluate(background)
    await expect(chat.message(plain).locator("a")).to_have_attribute("href", "https://matrix.org/x")
    link = chat.message(formatted).locator("a")
    await expect(link).to_have_attribute("href", "https://matrix.org/y")
    await expect(chat.message(plain).locator(".content")).to_contain_text("lines <b>")
    await expect(chat.message(notice)).to_have_class(re.compile("notice"))


async def test_reactions(open_page: OpenPage, room: AgentRoom) -> None:
    event = await room.agent.say(room.id, "Shall I?")
    by_agent = await room.agent.react(room.id, event, "👍")
    chat = await opened(open_page, room)
    chip = chat.message(event).locator(".chip", has_text="👍")
    await expect(chip.locator(".count")).to_have_text("1")
    await chat.message(event).hover()
    await chat.message(event).get_by_role("button", name="Add a reaction").click()
    await chat.page.get_by_role("menuitem", name="👍").click()
    await expect(chip.locator(".count")).to_have_text("2")
    await expect(chip).to_have_attribute("aria-pressed", "true")
    await chip.click()
    await expect(chip.locator(".count")).to_have_text("1")
    await room.agent.redact(room.id, by_agent)
    await expect(chip).to_have_count(0)


async def test_redaction_and_reply(open_page: OpenPage, room: AgentRoom) -> None:
    first = await room.agent.say(room.id, "The first word")
    gone = await room.agent.say(room.id, "Oops")
    relation = {"m.in_reply_to": {"event_id": first}}
    body = "> <@x:y> The first word\n\nIndeed"
    html = "<mx-reply><blockquote>The first word</blockquote></mx-reply><p>Indeed</p>"
    reply = await room.agent.say(room.id, body, html, **{"m.relates_to": relation})
    chat = await opened(open_page, room)
    await expect(chat.message(reply).locator(".quote")).to_have_text("Meridian The first word")
    await expect(chat.message(reply).locator(".content")).to_have_text("Indeed")
    await room.agent.redact(room.id, gone)
    await expect(chat.message(gone).locator(".content")).to_have_text("This message was deleted.")


async def test_typing(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    await room.agent.typing(room.id, True)
    await expect(chat.page.locator(".room-pane .typing")).to_have_text("Meridian is writing …")
    await room.agent.typing(room.id, False)
    await expect(chat.page.locator(".room-pane .typing")).to_be_hidden()


_SCROLL_UP = """(pane, id) => {
    pane.scrollTop = 200;
    return pane.querySelector(`[data-id="${id}"]`).getBoundingClientRect().top;
}"""


async def test_paging_back_keeps_the_place(open_page: OpenPage, room: AgentRoom) -> None:
    for number in range(75):
        await room.agent.say(room.id, f"message {number} " + "and words " * 20)
    chat = await opened(open_page, room)
    await expect(chat.saying("message 74 ")).to_be_in_viewport()
    pane = chat.page.locator(".room-pane .timeline")
    loaded = await chat.page.locator("article").count()
    shown = await chat.page.locator("article").nth(6).get_attribute("data-id") or ""
    place = await pane.evaluate(_SCROLL_UP, shown)
    await expect(chat.page.locator("article").nth(loaded)).to_be_attached()
    after = await chat.message(shown).evaluate("element => element.getBoundingClientRect().top")
    assert abs(after - place) < 2
    await room.agent.say(room.id, "something new")
    await expect(chat.page.locator(".room-pane .jump")).to_contain_text("1 new message")
    await chat.page.locator(".room-pane .jump").click()
    await expect(chat.saying("something new")).to_be_in_viewport()

    async def at_the_beginning() -> int:
        await pane.evaluate("element => { element.scrollTop = 0 }")
        return await chat.saying("message 0 ").count()

    await eventually(at_the_beginning)
    await expect(chat.page.locator("article")).to_have_count(76)


async def test_rooms_appear_and_are_renamed_live(
    open_page: OpenPage, room: AgentRoom, new_agent: NewUser
) -> None:
    space = await agents_space(room.person, [room.id])
    chat = await opened(open_page, room)
    section = chat.page.get_by_role("region", name="Letta Agents")
    await expect(section.locator(".room-name")).to_have_text(["Meridian"])
    ada = await agent_room(room.person, await new_agent("ada"), "Ada")
    await room.person.state(space, "m.space.child", {"via": ["localhost"]}, ada.id)
    entry = section.locator(f'.room[data-room="{ada.id}"]')
    await expect(entry).to_contain_text("Ada")
    await ada.agent.state(ada.id, "m.room.name", {"name": "Grace - Letta Agent Chat"})
    await expect(entry.locator(".room-name")).to_have_text("Grace")
    await ada.agent.say(ada.id, "psst")
    await expect(entry.locator(".unread")).to_have_text("1")
    await expect(chat.page).to_have_title(re.compile(r"^\(1\) Meridian"))
    await entry.click()
    await expect(entry.locator(".unread")).to_have_count(0)


async def test_invitations(open_page: OpenPage, room: AgentRoom) -> None:
    """The homeserver accepts local invitations by itself, so these are written into a sync."""
    invited = {
        "!trusted:localhost": _invitation(room, room.agent.user_id, "By an agent"),
        "!strange:localhost": _invitation(room, "@mo:localhost", "By Mo"),
        "!foreign:evil": _invitation(room, "@agent_x:evil", "By a foreigner"),
    }
    asked: list[str] = []
    chat = await open_page()
    await chat.page.route("**/sync?**", lambda route: _add_invitations(route, invited))
    await chat.page.route("**/join/**", lambda route: _answer_join(route, asked))
    await chat.page.route("**/leave", lambda route: _answer_join(route, asked))
    await chat.resume(room.person)
    invitations = chat.page.locator(".invitation")
    await expect(invitations).to_have_count(3)
    await invitations.filter(has_text="By Mo").get_by_role("button", name="Join").click()
    await eventually(lambda: len(asked) == 2, what="it is joined")
    await invitations.filter(has_text="foreigner").get_by_role("button", name="Decline").click()
    await expect(invitations).to_have_count(2)
    assert asked == [
        "/join/!trusted:localhost",
        "/join/!strange:localhost",
        "/rooms/!foreign:evil/leave",
    ]


def _invitation(room: AgentRoom, inviter: str, name: str) -> Json:
    member = {"membership": "invite"}
    events: list[Json] = [
        {
            "type": "m.room.member",
            "sender": inviter,
            "state_key": room.person.user_id,
            "content": member,
        },
        {"type": "m.room.name", "sender": inviter, "state_key": "", "content": {"name": name}},
    ]
    return {"invite_state": {"events": events}}


async def _add_invitations(route: Route, invited: Json) -> None:
    if "since=" in route.request.url:
        return await route.continue_()
    answer = await route.fetch()
    body = await answer.json()
    body.setdefault("rooms", {})["invite"] = invited
    return await route.fulfill(response=answer, json=body)


async def _answer_join(route: Route, asked: list[str]) -> None:
    if route.request.method == "POST":
        asked.append(unquote(route.request.url.partition("/v3")[2]))
    await route.fulfill(json={}, headers={"Access-Control-Allow-Origin": "*", **_ALLOW})


_ALLOW = {"Access-Control-Allow-Headers": "Authorization, Content-Type"}


async def test_writing_by_keyboard_alone(
    open_page: OpenPage, room: AgentRoom, new_agent: NewUser
) -> None:
    ada = await agent_room(room.person, await new_agent("ada"), "Ada")
    await ada.agent.say(ada.id, "hello")
    chat = await opened(open_page, ada)
    await chat.page.locator("body").press("Alt+ArrowDown")
    await expect(chat.page.locator("main h1")).to_have_text("Meridian")
    await expect(chat.page.get_by_text("Say hello to Meridian")).to_be_visible()
    keyboard = chat.page.keyboard
    await keyboard.type("**Bold** and `code`")
    await keyboard.press("Shift+Enter")
    await keyboard.type("- a list <b>")
    await keyboard.press("Enter")
    message = chat.page.locator("article.own")
    await expect(message.locator("strong")).to_have_text("Bold")
    await expect(message).to_have_attribute("data-state", "sent")
    await expect(message).to_have_attribute("data-id", re.compile(r"^\$"))
    await expect(message).to_have_count(1)
    (sent,) = await room.agent.messages(room.id)
    assert sent["content"]["body"] == "**Bold** and `code`\n- a list <b>"
    assert sent["content"]["formatted_body"] == (
        "<p><strong>Bold</strong> and <code>code</code></p>\n<ul>\n<li>a list &lt;b&gt;</li>\n</ul>"
    )
    await chat.type_and_send("just words_with_underscores")
    await expect(chat.page.locator("article.own[data-state=sent]")).to_have_count(2)
    assert "formatted_body" not in (await room.agent.messages(room.id))[0]["content"]
    await keyboard.press("Escape")
    await expect(chat.page.locator(".room[aria-current]")).to_be_focused()


async def test_failed_message_is_tried_again_once(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    txn_ids: list[str] = []

    async def lose_the_answer(route: Route) -> None:
        txn_ids.append(route.request.url)
        if route.request.method == "PUT":
            await route.fetch()
        await route.abort()

    await chat.page.route("**/send/m.room.message/**", lose_the_answer)
    await chat.page.route("**/sync?**", lambda route: route.abort())
    await chat.page.context.set_offline(True)
    await chat.page.context.set_offline(False)
    await chat.type_and_send("hear me")
    message = chat.saying("hear me")
    await expect(message).to_contain_text("Not sent.")
    await expect(chat.page.locator(".offline")).to_be_visible()
    await chat.page.unroute("**/send/m.room.message/**")
    await chat.page.route("**/send/m.room.message/**", lambda route: _note(route, txn_ids))
    await message.get_by_role("button", name="Try again").click()
    await expect(message).to_have_attribute("data-state", "sent")
    await chat.page.unroute("**/sync?**")
    await chat.page.evaluate("dispatchEvent(new Event('online'))")
    await expect(chat.page.locator(".offline")).to_be_hidden()
    await expect(message).to_have_count(1)
    assert len(set(txn_ids)) == 1
    assert len(await room.agent.messages(room.id)) == 1


async def test_gap_after_an_outage(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    await room.agent.say(room.id, "before the outage")
    await expect(chat.saying("before the outage")).to_be_visible()
    await chat.page.route("**/sync?**", lambda route: route.abort())
    await chat.page.evaluate("dispatchEvent(new Event('offline'))")
    await expect(chat.page.locator(".offline")).to_be_visible()
    for number in range(30):
        await room.agent.say(room.id, f"meanwhile {number} happened")
    await chat.page.unroute("**/sync?**")
    await chat.page.evaluate("dispatchEvent(new Event('online'))")
    await expect(chat.saying("meanwhile 29 ")).to_be_in_viewport()
    await expect(chat.page.locator(".offline")).to_be_hidden()
    await chat.page.locator(".room-pane .timeline").evaluate("element => { element.scrollTop = 0 }")
    await expect(chat.page.locator("article")).to_have_count(31)
    await expect(chat.page.locator("article").first).to_contain_text("before the outage")


async def _note(route: Route, urls: list[str]) -> None:
    if route.request.method == "PUT":
        urls.append(route.request.url)
    await route.continue_()


async def test_pictures_and_files(open_page: OpenPage, room: AgentRoom) -> None:
    mxc = await room.agent.upload(_PIXEL, "image/png")
    await room.agent.set_avatar(mxc)
    info = {"w": 400, "h": 200, "mimetype": "image/png"}
    picture = await room.agent.say(room.id, "a.png", msgtype="m.image", url=mxc, info=info)
    page = await room.agent.upload(b"<script>alert(1)</script>", "text/html")
    file = await room.agent.say(room.id, "page.html", msgtype="m.file", url=page)
    fake = await room.agent.say(room.id, "b.png", msgtype="m.image", url=page)
    chat = await opened(open_page, room)
    image = chat.message(picture).locator(".picture img")
    await expect(image).to_have_attribute("src", re.compile("^blob:"))
    await image.click()
    await expect(chat.page.locator("dialog img")).to_be_visible()
    await chat.page.keyboard.press("Escape")
    await expect(chat.message(picture).locator(".gutter img")).to_have_count(1)
    async with chat.page.expect_download() as download:
        await chat.message(file).get_by_role("button", name="page.html").click()
    assert (await download.value).suggested_filename == "page.html"
    await expect(chat.message(fake).locator("img.broken")).to_have_count(1)


async def test_phone_has_two_screens(open_page: OpenPage, room: AgentRoom) -> None:
    await room.agent.say(room.id, "hello")
    chat = await open_page(**PHONE)
    await chat.resume(room.person)
    await expect(chat.page.locator(".sidebar")).to_be_visible()
    await expect(chat.page.locator("main.conversation")).to_be_hidden()
    await expect(chat.page.locator(".room")).to_be_focused()
    await chat.open_room(room.id)
    await expect(chat.saying("hello")).to_be_visible()
    await expect(chat.page.locator(".sidebar")).to_be_hidden()
    width = await chat.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    await chat.page.get_by_role("button", name="Back to the rooms").tap()
    await expect(chat.page.locator(".sidebar")).to_be_visible()
    await chat.page.go_back()
    await expect(chat.saying("hello")).to_be_visible()


async def test_encrypted_rooms_are_left_alone(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    await expect(chat.composer).to_be_enabled()
    await room.agent.state(room.id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    await expect(chat.composer).to_be_disabled()


_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c4944415408d763a8f7ff0f0003fe01fe3b1d1c9c0000000049454e44ae426082"
)
