"""The chat page as a person uses it."""

import json
from collections.abc import Awaitable, Callable

from playwright.async_api import ConsoleMessage, Locator, Page, Request
from tests.browser.furniture import AgentRoom
from tests.browser.matrix_user import MatrixUser
from tests.browser.tabs import home_of


class ChatPage:
    """A browser tab with the chat page, and what went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.faults: list[str] = []
        self.hosts: set[str] = set()

    async def watch(self) -> None:
        """Notes script errors and violations of the content security policy."""
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._on_console)

    def watch_hosts(self) -> None:
        """Notes every host that is asked, too: dozens of requests are told of for each page."""
        self.page.on("request", self._on_request)

    def _on_console(self, line: ConsoleMessage) -> None:
        if "Content Security Policy" in line.text:
            self.faults.append(line.text)

    def _on_request(self, request: Request) -> None:
        if request.url.startswith("http"):
            self.hosts.add(request.url.split("/")[2].partition(":")[0])

    async def enter(self, user: MatrixUser) -> None:
        """Signs in with the password."""
        await self.page.goto(self.url)
        await self.page.get_by_label("User name").fill(user.localpart)
        await self.page.get_by_label("Password").fill(user.password)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.page.locator(".shell").wait_for()

    async def resume(self, user: MatrixUser) -> None:
        """Has signed in before, in this browser: spares the homeserver hashing a password."""
        session = {
            "homeserver": user.homeserver_url,
            "userId": user.user_id,
            "accessToken": user.token,
        }
        await home_of(self.page).evaluate(
            "session => localStorage.setItem('letta-matrix.chat.session', session)",
            json.dumps(session),
        )
        await self.page.goto(self.url)
        await self.page.locator(".shell").wait_for()

    async def sign_out(self) -> None:
        await self.page.get_by_role("button", name="Sign out").click()
        await self.page.get_by_role("alertdialog").get_by_role("button", name="Sign out").click()
        await self.page.get_by_label("User name").wait_for()

    async def open_room(self, room: str) -> None:
        await self.page.locator(f'.room[data-room="{room}"]').click()

    def message(self, event: str) -> Locator:
        """A message by its event id."""
        return self.page.locator(f'article[data-id="{event}"]')

    def saying(self, text: str) -> Locator:
        """Messages with a text."""
        return self.page.locator("article", has_text=text)

    async def choose(self, event: str, action: str) -> None:
        """From a message's menu."""
        message = self.message(event)
        await message.hover()
        await message.get_by_role("button", name="More").click()
        await message.get_by_role("menuitem", name=action).click()

    @property
    def composer(self) -> Locator:
        return self.page.locator("#composer")

    async def type_and_send(self, text: str) -> None:
        await self.composer.fill(text)
        await self.composer.press("Enter")


OpenPage = Callable[..., Awaitable[ChatPage]]
"""Opens the chat page; takes Playwright's options of a browser context."""


async def opened(open_page: OpenPage, room: AgentRoom, **options: object) -> ChatPage:
    """The room's person has signed in and sees the room."""
    chat = await open_page(**options)
    await chat.resume(room.person)
    await chat.open_room(room.id)
    return chat
