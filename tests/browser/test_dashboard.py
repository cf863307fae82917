"""The dashboard of a bridge with agents at work."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Locator, Page, expect
from tests.browser.chat_page import ChatPage
from tests.browser.matrix_user import MatrixUser
from tests.browser.newcomer_script import LONG_COMMAND
from tests.browser.tabs import Tabs
from tests.browser.test_accessibility import PHONE, faults
from tests.browser.test_answering import OUT_OF_SIGHT
from tests.integration.bridge_world import Room, World, new_agent
from tests.waiting import eventually

from letta_matrix.access.principal import Scope
from letta_matrix.access.secrets import issue

SECTIONS = ("agents", "turns", "approvals", "health", "tokens", "phone")


class Dashboard(ChatPage):
    """A tab with the dashboard, and what went wrong in it."""

    async def show(self, section: str) -> None:
        await self.page.goto(f"{self.url}#/{section}")
        await expect(self.page.locator(f".sections a[href='#/{section}']")).to_have_class("current")

    async def with_token(self, token: str) -> None:
        """Signs in with a token."""
        await self.page.goto(self.url)
        await self.page.get_by_role("button", name="Use a token instead").click()
        await self.page.get_by_label("Token").fill(token)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.page.locator(".tiles").wait_for()

    def row(self, text: str) -> Locator:
        # Not in any case of its letters: ids, too, are in a row.
        return self.page.locator("li.row", has_text=re.compile(re.escape(text)))

    async def token(self) -> str:
        """The one that this page keeps."""
        script = "JSON.parse(localStorage.getItem('letta-matrix.dashboard.session')).token"
        return str(await self.page.evaluate(script))


def url_of(world: World) -> str:
    return f"http://127.0.0.1:{world.config.api.port}/dashboard"


async def status_of(world: World, token: str) -> int:
    """What the bridge answers to a token."""
    headers = {"Authorization": f"Bearer {token}"}
    url = url_of(world).replace("/dashboard", "/api/v1/whoami")
    async with world.person.http.get(url, headers=headers) as answer:
        return answer.status


@pytest.fixture(scope="module")
async def ada(world: World) -> Room:
    return await world.meet(new_agent("Ada"))


@pytest.fixture(scope="module")
async def dashboard(world: World, tabs: Tabs, account: MatrixUser) -> AsyncIterator[Dashboard]:
    """Signed in with the account of an admin; checked for faults at the end."""
    opened = Dashboard(await tabs.open(url_of(world)), url_of(world))
    await opened.watch()
    opened.watch_hosts()
    page: Page = opened.page
    await page.goto(opened.url)
    await page.get_by_label("User name").fill(account.localpart)
    await page.get_by_label("Password").fill(account.password)
    await page.get_by_role("button", name="Sign in").click()
    await page.locator(".tiles").wait_for()
    yield opened
    await tabs.close(page)
    assert opened.faults == []
    assert opened.hosts == {"127.0.0.1"}


@pytest.fixture
async def by_token(world: World, tabs: Tabs) -> AsyncGenerator[Dashboard]:
    """On a phone, signed in with a token."""
    secret, stored = issue(agent_id="", scopes=frozenset(Scope), label="a phone")
    await world.bridge.app.stores.tokens.add(stored)
    phone = Dashboard(await tabs.open(url_of(world), **PHONE), url_of(world))
    await phone.watch()
    await phone.with_token(secret)
    yield phone
    await tabs.close(phone.page)
    assert phone.faults == []


async def test_an_agent_is_seen_at_work_and_stopped(
    dashboard: Dashboard, world: World, ada: Room
) -> None:
    await dashboard.show("agents")
    agent = dashboard.row("Ada")
    await expect(agent.locator(".state")).to_have_text("ready")
    await world.person.say(ada, "count")
    await expect(agent.locator(".state")).to_have_text("at work")
    await dashboard.show("turns")
    turn = dashboard.row("writing")
    await turn.locator("summary").click()
    # It is another row's text from then on.
    turns = dashboard.page.locator("li.row")
    turn = turns.first
    await expect(turn.locator("blockquote")).to_contain_text("1 2 3")
    await expect(turn.locator(".moments li")).to_have_count(3)
    await turn.get_by_role("button", name="Stop it").click()
    await expect(turn.locator(".state")).to_have_text("answered")
    await expect(turn.locator("details")).to_have_attribute("open", "")
    await world.person.say(ada, "hello")
    await expect(turns).to_have_count(2)
    answered = turns.first
    await expect(answered.locator(".state")).to_have_text("answered")
    await answered.locator("summary").click()
    await expect(answered.locator("blockquote")).to_have_text("echo: hello")
    told = answered.locator(".large")
    await expect(told).to_have_attribute("aria-label", re.compile("in all"))
    await expect(dashboard.page.locator(".plot").first).to_be_visible()


async def test_a_tool_is_approved(dashboard: Dashboard, world: World, ada: Room) -> None:
    await dashboard.show("approvals")
    await expect(dashboard.page.get_by_text("Nothing waits for an answer.")).to_be_visible()
    await world.person.say(ada, "please run it")
    card = dashboard.page.locator("li.card")
    await expect(card.get_by_role("heading")).to_have_text("May Ada run Bash?")
    await expect(card.locator("figcaption")).to_have_text("command")
    await expect(card.locator("pre")).to_have_text("ls notes")
    await expect(dashboard.page.locator("#announcer")).to_contain_text("Ada asks")
    await expect(dashboard.page.locator("a[href='#/approvals'] .badge")).to_contain_text("1")
    await card.get_by_role("button", name="Allow", exact=True).click()
    await expect(card).to_have_count(0)

    async def said() -> list[str]:
        return await world.person.bodies(ada.room_id, ada.ghost)

    await eventually(said, lambda texts: "One note." in texts)


async def test_a_long_command_is_seen_in_full_on_a_phone(
    by_token: Dashboard, world: World, ada: Room
) -> None:
    await by_token.show("approvals")
    await world.person.say(ada, "please run it in full")
    card = by_token.page.locator("li.card")
    await expect(card.locator("pre")).to_have_text(LONG_COMMAND)
    assert await card.evaluate(OUT_OF_SIGHT) == []
    await card.get_by_role("button", name="Deny", exact=True).click()
    await expect(card).to_have_count(0)


class Seat:
    """Where this bridge is one of three: one is not heard of, one does not reach the homeserver."""

    holds = True
    epoch = 2

    def told(self) -> dict[str, object]:
        here = {"replica": "one", "address": "bridge-1:8004", "version": "0.1.0"}
        there = {"replica": "two", "address": "bridge-2:8004", "version": "0.1.0"}
        here |= {"state": "active", "seen_seconds_ago": 0.1}
        there |= {"state": "silent", "seen_seconds_ago": 90.0}
        cut = {**here, "replica": "three", "address": "bridge-3:8004"}
        cut |= {"state": "standby", "reaches_homeserver": False}
        return {"replica": "one", "state": "active", "epoch": 2, "replicas": [here, there, cut]}


async def test_replicas_are_listed(
    dashboard: Dashboard, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await dashboard.show("health")
    checks = dashboard.page.locator("li.check")
    await expect(checks.filter(has_text="database")).to_be_visible()
    await expect(checks.filter(has_text="bridge-1")).to_have_count(0)
    monkeypatch.setattr(world.bridge.app, "seat", Seat())
    await expect(checks.filter(has_text="bridge-1:8004")).to_contain_text("active, version 0.1.0")
    silent = checks.filter(has_text="bridge-2:8004")
    await expect(silent).to_contain_text("silent, version 0.1.0, last heard of")
    await expect(silent).to_have_class("check warning")
    cut = checks.filter(has_text="bridge-3:8004")
    await expect(cut).to_contain_text("standby, does not reach the homeserver, version 0.1.0")
    await expect(cut).to_have_class("check warning")


async def test_a_token_is_made_and_revoked(dashboard: Dashboard, world: World) -> None:
    page = dashboard.page
    await dashboard.show("tokens")
    await page.get_by_role("button", name="New token").click()
    boxes = page.locator("input[name='scopes']")
    await expect(boxes).to_have_count(len(Scope))
    assert {await one.get_attribute("value") for one in await boxes.all()} == {*Scope}
    await page.get_by_label("What it is for").fill("the kitchen")
    await page.get_by_role("button", name="Make it").click()
    secret = await page.get_by_label("The token").input_value()
    await page.get_by_role("button", name="Done").click()
    assert await status_of(world, secret) == 200
    await dashboard.row("the kitchen").get_by_role("button", name="Revoke").click()
    await page.get_by_role("alertdialog").get_by_role("button", name="Revoke").click()
    await expect(page.locator(".count")).to_have_text("1 revoked or ended")
    assert await status_of(world, secret) == 401


async def test_an_agent_is_created_and_renamed(dashboard: Dashboard) -> None:
    page = dashboard.page
    await dashboard.show("agents")
    await page.get_by_role("button", name="New agent").click()
    await page.get_by_label("Name", exact=True).fill("Bo Peep")
    await page.get_by_role("button", name="Create").click()
    row = dashboard.row("Bo Peep")
    await row.locator("summary").click()
    await row.get_by_role("button", name="Rename").click()
    name = page.get_by_label("Name", exact=True)
    await expect(name).to_have_value("Bo Peep")
    await name.fill("Bo Peeps")
    await name.press("Enter")
    await expect(row.locator("strong").first).to_have_text("Bo Peeps")


async def test_axe_finds_nothing(
    dashboard: Dashboard, by_token: Dashboard, world: World, ada: Room
) -> None:
    await world.person.say(ada, "please run it")
    await by_token.page.emulate_media(color_scheme="dark")
    found: list[object] = []
    for one, kind in ((dashboard, "by day"), (by_token, "on a phone, by night")):
        await expect(one.page.locator("a[href='#/approvals'] .badge")).to_contain_text("1")
        for section in SECTIONS:
            await one.show(section)
            if section in ("agents", "turns"):
                await one.page.locator("li.row details:not([open]) summary").first.click()
            found += await faults(one, f"{section}, {kind}")
    assert not found


async def test_the_front_door_leads_there_until_one_signs_out(
    by_token: Dashboard, world: World
) -> None:
    page, home = by_token.page, by_token.url.replace("/dashboard", "/")
    token = await by_token.token()
    await page.goto(home)
    assert urlsplit(page.url).path == "/dashboard"
    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_role("alertdialog").get_by_role("button", name="Sign out").click()
    await page.get_by_label("User name").wait_for()
    await page.goto(home)
    assert urlsplit(page.url).path == "/chat"
    # It was not made for this page.
    assert await status_of(world, token) == 200


async def test_a_revoked_token_leads_to_signing_in(by_token: Dashboard, world: World) -> None:
    tokens = world.bridge.app.stores.tokens
    token_id = (await by_token.token()).split("_")[1]
    await tokens.revoke(token_id, 1.0)
    await by_token.page.locator("a[href='#/tokens']").click()
    await expect(by_token.page.get_by_role("alert")).to_contain_text("Sign in again")
