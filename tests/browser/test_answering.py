"""Questions of agents, the tools they use, and stopping them; the agents are played by the test."""

from playwright.async_api import Locator, expect
from tests.browser.chat_page import ChatPage, OpenPage, opened
from tests.browser.furniture import AgentRoom
from tests.browser.matrix_user import Json

QUESTION = "<p>May I run <code>Bash</code>?</p><pre><code>date\n</code></pre>"
DETAILS = "<details><summary>🔧 {} tools</summary><p>✓ <code>Bash</code> ok</p></details>"


def beside(kind: str) -> Json:
    """What the bridge's notices beside a reply carry."""
    return {"msgtype": "m.notice", "org.letta.matrix": {"agent_id": "agent-1", "beside": kind}}


async def ask(room: AgentRoom) -> str:
    """The agent's question, with its offers; returns the event id."""
    event = await room.agent.say(room.id, "May I run `Bash`?", QUESTION, **beside("approval"))
    for key in ("✅", "❌"):
        await room.agent.react(room.id, event, key)
    return event


async def reactions(room: AgentRoom) -> list[str]:
    """What the person has reacted with."""
    path = f"/v3/rooms/{room.id}/messages?dir=b&limit=50"
    events = (await room.person.call("GET", path))["chunk"]
    mine = [e for e in events if e["sender"] == room.person.user_id and e["type"] == "m.reaction"]
    return [e["content"]["m.relates_to"]["key"] for e in mine if e["content"]]


async def test_an_answer_is_sent_once_and_can_be_taken_back(
    open_page: OpenPage, room: AgentRoom
) -> None:
    chat = await opened(open_page, room)
    question = chat.message(await ask(room))
    allow = question.get_by_role("button", name="Allow")
    await expect(allow).to_have_attribute("aria-pressed", "false")
    await expect(question.get_by_role("button", name="Always allow")).to_have_count(0)
    await allow.dblclick()
    await expect(allow).to_have_attribute("aria-pressed", "true")
    assert await reactions(room) == ["✅"]
    await allow.click()
    await expect(allow).to_have_attribute("aria-pressed", "false")
    assert await reactions(room) == []


async def test_a_settled_question_stays_settled(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    event = await ask(room)
    await chat.message(event).get_by_role("button", name="Deny").click()
    await room.agent.edit(room.id, event, "❌ `Bash` denied by `sam`", **beside("approval"))
    chip = chat.message(event).locator(".chip")
    await expect(chip).to_have_text("❌1")
    await expect(chip).to_be_disabled()
    await expect(chat.message(event).locator(".answer")).to_have_count(0)


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
    await room.person.say(room.id, "three")
    chat = await opened(open_page, room)
    await expect(_stop(chat, "Stop")).to_have_count(0)
    await room.agent.typing(room.id, True)
    await _stop(chat, "Stop").click()
    await expect(chat.message(running).locator(".chip")).to_have_text("🛑1")
    await expect(_stop(chat, "Stopping …")).to_be_disabled()
    await room.agent.typing(room.id, False)
    await expect(_stop(chat, "Stop")).to_have_count(0)


def _stop(chat: ChatPage, name: str) -> Locator:
    return chat.page.locator(".room-pane").get_by_role("button", name=name)
