"""Questions of agents, the tools they use, and stopping them; the agents are played by the test."""

import asyncio

from playwright.async_api import Locator, Request, Route, expect
from tests.browser.chat_page import ChatPage, OpenPage, opened
from tests.browser.furniture import AgentRoom
from tests.browser.matrix_user import Json
from tests.browser.newcomer_script import LONG_COMMAND
from tests.waiting import eventually

from letta_matrix.conversations import notices
from letta_matrix.matrix.content import edit_content, text_content
from letta_matrix.operations.toolbox.question_text import how_to_answer, question_text

PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}
QUESTION = "<p>May I run <code>Bash</code>?</p><pre><code>date\n</code></pre>"
DETAILS = "<details><summary>🔧 {} tools</summary><p>✓ <code>Bash</code> ok</p></details>"

OUT_OF_SIGHT = """(question) => {
  const inner = [...question.querySelectorAll("pre, pre *")];
  const hidden = inner.filter((one) => one.scrollWidth > one.clientWidth && one.clientWidth)
    .map((one) => `${one.nodeName} is ${one.scrollWidth} wide and shows ${one.clientWidth}`);
  for (const code of question.querySelectorAll("pre")) {
    const range = document.createRange();
    range.selectNodeContents(code);
    const lines = [...range.getClientRects()];
    if (!lines.every(({ right }) => right <= innerWidth)) hidden.push("off the screen");
    for (const button of question.querySelectorAll("button")) {
      const box = button.getBoundingClientRect();
      const covers = ({ left, right, top, bottom }) =>
        box.left < right && left < box.right && box.top < bottom && top < box.bottom;
      if (lines.some(covers)) hidden.push(`under ${button.className}`);
    }
  }
  return hidden;
}"""
"""What of the code in a question cannot be seen."""


def beside(kind: str) -> Json:
    """What the bridge's notices beside a reply carry."""
    return {"msgtype": "m.notice", "org.letta.matrix": {"agent_id": "agent-1", "beside": kind}}


async def ask(room: AgentRoom, **more: object) -> str:
    """The agent's question, with its offers; returns the event id."""
    content = {**beside("approval"), **more}
    event = await room.agent.say(room.id, "May I run `Bash`?", QUESTION, **content)
    for key in ("✅", "❌"):
        await room.agent.react(room.id, event, key)
    return event


async def reacted(room: AgentRoom, *keys: str) -> None:
    """Wait until the person has reacted with these, as the homeserver knows it: the page shows
    it before."""
    path = f"/v3/rooms/{room.id}/messages?dir=b&limit=50"

    async def reactions() -> list[str]:
        events = (await room.person.call("GET", path))["chunk"]
        mine = [e for e in events if e["sender"] == room.person.user_id and e["content"]]
        return [e["content"]["m.relates_to"]["key"] for e in mine if e["type"] == "m.reaction"]

    await eventually(reactions, lambda found: found == [*keys], "the reactions")


async def test_all_of_a_command_is_seen_before_it_is_allowed(
    open_page: OpenPage, room: AgentRoom
) -> None:
    chat = await opened(open_page, room, **PHONE)
    code = f"<p>May I run <code>Bash</code>?</p><pre><code>{LONG_COMMAND}\n</code></pre>"
    in_json = f'<pre><code class="language-json">{{"command": "{LONG_COMMAND}"}}</code></pre>'
    event = await room.agent.say(room.id, "May I?", code + in_json, **beside("approval"))
    question = chat.message(event)
    await expect(question.locator(".copy")).to_have_count(2)
    await question.locator("p").tap()
    assert await question.evaluate(OUT_OF_SIGHT) == []


async def test_an_answer_is_sent_once_and_can_be_taken_back(
    open_page: OpenPage, room: AgentRoom
) -> None:
    chat = await opened(open_page, room)
    question = chat.message(await ask(room))
    allow = question.get_by_role("button", name="Allow")
    await expect(allow).to_have_attribute("aria-pressed", "false")
    await expect(question.get_by_role("button", name="Always allow")).to_have_count(0)
    made: list[str] = []
    held = asyncio.Event()

    def note(request: Request) -> None:
        made.extend(kind for kind in ("/send/m.reaction/", "/redact/") if kind in request.url)

    async def hold(route: Route) -> None:
        await held.wait()
        await route.continue_()

    await chat.page.route("**/send/m.reaction/**", hold)
    await allow.click()
    await allow.click()
    held.set()
    await expect(allow).to_have_attribute("aria-pressed", "true")
    await reacted(room, "✅")
    await chat.page.unroute("**/send/m.reaction/**")
    chat.page.on("request", note)
    await allow.click()
    await expect(allow).to_have_attribute("aria-pressed", "false")
    await reacted(room)
    # A double click is one, however soon the homeserver has answered to the first half of it.
    await allow.hover()
    for half in (1, 2):
        await chat.page.mouse.down(click_count=half)
        await chat.page.mouse.up(click_count=half)
        await expect(allow).to_have_attribute("aria-pressed", "true")
    await reacted(room, "✅")
    assert made == ["/redact/", "/send/m.reaction/"]


async def test_what_a_sync_has_shown_can_be_taken_back_before_the_answer_came(
    open_page: OpenPage, room: AgentRoom
) -> None:
    chat = await opened(open_page, room)
    allow = chat.message(await ask(room)).get_by_role("button", name="Allow")
    late = asyncio.Event()

    async def delay(route: Route) -> None:
        answer = await route.fetch()
        await late.wait()
        await route.fulfill(response=answer)

    await chat.page.route("**/send/m.reaction/**", delay)
    await allow.click()
    await expect(allow).to_have_attribute("aria-pressed", "true")
    await allow.click()
    await expect(allow).to_have_attribute("aria-pressed", "false")
    await reacted(room)
    async with chat.page.expect_response("**/send/m.reaction/**") as sent:
        late.set()
    await (await sent.value).finished()
    await expect(allow).to_have_attribute("aria-pressed", "false")


async def test_only_agents_ask(open_page: OpenPage, room: AgentRoom) -> None:
    fake = await room.person.say(room.id, "May I run `rm`?", QUESTION, **beside("approval"))
    await room.person.react(room.id, fake, "✅")
    plain = await room.agent.say(room.id, "May I?", QUESTION)
    await room.agent.react(room.id, plain, "✅")
    chat = await opened(open_page, room)
    await expect(chat.message(fake).locator(".chip")).to_have_count(1)
    await expect(chat.message(plain).locator(".chip")).to_have_count(1)
    await expect(chat.page.locator(".answer, article.approval")).to_have_count(0)


async def test_a_trace_is_a_line_that_stays_open(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    await room.agent.say(room.id, "Before")
    event = await room.agent.say(room.id, "🔧 Bash · 3 s", **beside("trace"))
    after = await room.agent.say(room.id, "After")
    trace = chat.message(event)
    await expect(trace.locator(".content")).to_have_text("🔧 Bash · 3 s")
    await expect(chat.message(after).locator("header")).to_be_hidden()
    await expect(chat.page.locator(".preview")).to_have_text("After")
    await room.agent.edit(room.id, event, "2 tools", DETAILS.format(2), **beside("trace"))
    hidden = trace.get_by_text("ok")
    await expect(trace.locator("summary")).to_have_text("🔧 2 tools")
    await expect(hidden).to_be_hidden()
    await trace.locator("summary").focus()
    await chat.page.keyboard.press("Enter")
    await expect(hidden).to_be_visible()
    await room.agent.edit(room.id, event, "3 tools", DETAILS.format(3), **beside("trace"))
    await expect(trace.locator("summary")).to_have_text("🔧 3 tools")
    await expect(hidden).to_be_visible()
    await expect(trace.locator(".actions button:visible")).to_have_count(0)
    await expect(chat.page.locator("#announcer")).to_have_text("Meridian: After")


async def test_stop_means_the_question_that_is_worked_on(
    open_page: OpenPage, room: AgentRoom
) -> None:
    done = await room.person.say(room.id, "one")
    marker: Json = {"org.letta.matrix": {"agent_id": "agent-1", "in_reply_to": done}}
    await room.agent.say(room.id, "echo: one", **marker)
    running = await room.person.say(room.id, "two")
    waiting = await room.person.say(room.id, "three")
    await room.person.say(room.id, "!status")
    chat = await opened(open_page, room)
    queued = chat.page.locator("article", has=chat.page.get_by_text("queued", exact=True))
    await expect(_stop(chat, "Stop")).to_have_count(0)
    await expect(queued).to_have_count(0)
    await room.agent.typing(room.id, True)
    await expect(queued).to_have_attribute("data-id", waiting)
    await _stop(chat, "Stop").click()
    await expect(chat.message(running).locator(".chip")).to_have_text("🛑1")
    await expect(_stop(chat, "Stopping …")).to_be_disabled()
    await room.agent.typing(room.id, False)
    await expect(_stop(chat, "Stop")).to_have_count(0)
    await expect(queued).to_have_count(0)


async def test_one_stop_for_what_runs_in_a_thread(open_page: OpenPage, room: AgentRoom) -> None:
    done = await room.person.say(room.id, "one")
    marker: Json = {"org.letta.matrix": {"agent_id": "agent-1", "in_reply_to": done}}
    root = await room.agent.say(room.id, "echo: one", **marker)
    thread: Json = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    aside = await room.person.say(room.id, "aside", **thread)
    chat = await opened(open_page, room)
    await chat.message(root).locator(".thread-chip").click()
    await room.agent.typing(room.id, True)
    stop = chat.page.get_by_role("button", name="Stop")
    await expect(stop).to_have_count(1)
    await expect(chat.page.locator(".room-pane .typing")).to_be_hidden()
    await stop.click()
    await expect(chat.message(aside).locator(".chip")).to_have_text("🛑1")


async def test_a_bar_leads_to_what_waits(open_page: OpenPage, room: AgentRoom) -> None:
    """The question is no notice, and names who may answer: then it reaches phones."""
    chat = await opened(open_page, room)
    asked = await ask(room, **_for(room.person.user_id))
    bar = chat.page.locator(".waiting:visible")
    # Whoever looks at it need not be told that it waits.
    await expect(chat.message(asked).get_by_role("button", name="Allow")).to_be_in_viewport()
    await expect(bar).to_have_count(0)
    for number in range(12):
        await room.agent.say(room.id, f"And {number}: " + "words " * 80)
    await expect(bar).to_have_text("Meridian waits for your answerShow")
    await expect(chat.message(asked)).not_to_be_in_viewport()
    await bar.click()
    await expect(chat.message(asked)).to_be_in_viewport()
    allow = chat.message(asked).get_by_role("button", name="Allow")
    await expect(allow).to_be_focused()
    await expect(bar).to_have_count(0)
    await chat.page.keyboard.press("Enter")
    await expect(allow).to_have_attribute("aria-pressed", "true")
    await room.agent.edit(room.id, asked, "✅ allowed", **beside("approval"))
    await expect(bar).to_be_hidden()
    root = await room.agent.say(room.id, "A thread begins")
    thread: Json = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    there = await ask(room, **_for("@someone:else"), **thread)
    await expect(bar).to_have_text("Meridian waits for an answerShow")
    await bar.click()
    panel = chat.page.get_by_role("complementary", name="Thread")
    await expect(panel.locator(f'article[data-id="{there}"]')).to_be_in_viewport()
    await expect(bar).to_have_count(0)


def _for(user_id: str) -> Json:
    return {"msgtype": "m.text", "m.mentions": {"user_ids": [user_id]}}


async def test_options_have_their_words(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    days = ["On Monday", "On Thursday"]
    asked = "Which *day*?"
    tool: Json = {"agent_id": "agent-1", "tool": "ask_human"}
    content = text_content(question_text(asked, days, how_to_answer(days)), marker=tool)
    event = await room.agent.send(room.id, dict(content))
    await room.agent.react(room.id, event, "1️⃣")
    question = chat.message(event)
    options = question.get_by_role("group", name="Answer the question").get_by_role("button")
    await expect(options).to_have_text(["1️⃣On Monday", "2️⃣On Thursday"])
    await expect(question.locator(".content")).to_have_text("Which day?")
    await options.last.click()
    await expect(options.last).to_have_attribute("aria-pressed", "true")
    await expect(options.first).to_be_disabled()
    await reacted(room, "2️⃣")
    over = question_text(asked, days, "*Answered.*")
    await room.agent.send(room.id, dict(edit_content(over, target_event_id=event, marker=tool)))
    await expect(question.locator(".answer")).to_have_count(0)
    await expect(question.locator(".content")).to_contain_text("1️⃣ On Monday")
    chip = question.locator(".chip")
    await expect(chip).to_have_text("2️⃣On Thursday1")
    await expect(chip).to_be_disabled()


async def test_what_failed_is_asked_again(open_page: OpenPage, room: AgentRoom) -> None:
    text = notices.lost("the model did not answer", tools_started=True)
    marker: Json = {"org.letta.matrix": {"agent_id": "agent-1", "turn_id": "t"}}
    event = await room.agent.say(room.id, text, msgtype="m.notice", **marker)
    reply = await room.agent.say(room.id, "🔁 is a sign", **marker)
    chat = await opened(open_page, room)
    await expect(chat.message(reply).get_by_role("button", name="Try again")).to_have_count(0)
    await chat.message(event).get_by_role("button", name="Try again").click()
    await expect(chat.message(event).locator(".chip")).to_have_text("🔁1")
    await expect(chat.page.get_by_role("button", name="Try again")).to_have_count(0)
    await reacted(room, "🔁")


async def test_an_edited_question_is_asked_again(open_page: OpenPage, room: AgentRoom) -> None:
    mine = await room.person.say(room.id, "what is two and three?")
    said = await room.agent.say(room.id, "five")
    for event in (mine, said):
        await room.agent.react(room.id, event, "🔁")
    chat = await opened(open_page, room)
    again = chat.page.get_by_role("button", name="Ask again")
    await expect(again).to_have_count(1)
    await chat.message(mine).get_by_role("button", name="Ask again").click()
    await expect(chat.message(mine).locator(".chip")).to_have_text("🔁2")
    await expect(again).to_have_count(0)
    await reacted(room, "🔁")


def _stop(chat: ChatPage, name: str) -> Locator:
    return chat.page.locator(".room-pane").get_by_role("button", name=name)
