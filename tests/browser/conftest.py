"""The pages in a real Chromium, against a real Synapse."""

import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import async_playwright, expect
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.browser.chat_page import ChatPage, OpenPage
from tests.browser.furniture import AgentRoom, NewUser, agent_room
from tests.browser.matrix_user import MatrixUser
from tests.browser.newcomer_script import careful_script
from tests.browser.tabs import Tabs
from tests.deaf_appservice import DeafAppservice
from tests.integration.bridge_world import Person, World, bridge_on
from tests.servers import Homeserver, free_port
from tests.waiting import DEADLINE

from letta_matrix.common.connections.admission import Connections
from letta_matrix.doors.chat.registry import all_commands, listed
from letta_matrix.doors.web.pages import chat_routes
from letta_matrix.doors.web.server import AsgiServer
from letta_matrix.runtimes.memory import MemoryRuntime

# The first is the same without windows: a sixth of the tests' time less.
_CHROMIUM = (Path("/usr/bin/chromium-headless-shell"), Path("/usr/bin/chromium"))
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Fewer processes to start and to talk to: one draws all of a profile's tabs, and what puts
    # their pictures together or fetches something needs none of its own. The first feature is one
    # of Playwright's, whose list the last one given replaces.
    "--process-per-site",
    "--in-process-gpu",
    "--enable-features=CDPScreenshotNewSurface,NetworkServiceInProcess2",
]
_numbers = itertools.count(1)

expect.set_options(timeout=DEADLINE * 1000)


@pytest.fixture(scope="module")
async def no_bridge(homeserver: Homeserver) -> AsyncIterator[DeafAppservice]:
    """In a bridge's place."""
    async with DeafAppservice(homeserver.appservice_port) as nobody:
        yield nobody


@pytest.fixture(scope="session")
async def chat_url(homeserver: Homeserver) -> AsyncIterator[str]:
    bot = f"@letta:{homeserver.server_name}"
    app = Starlette(routes=chat_routes(homeserver.url, bot, listed(all_commands())))
    server = AsgiServer(_kept(app), Connections(2_000))
    port = free_port()
    await server.start("127.0.0.1", port)
    yield f"http://127.0.0.1:{port}/chat"
    await server.close()


def _kept(app: ASGIApp) -> ASGIApp:
    """Browsers keep what they get of it: they would ask for sixty files at each page, whether they
    have changed."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("Cache-Control") == "no-cache":
                    headers["Cache-Control"] = "max-age=3600"
            await send(message)

        await app(scope, receive, keep)

    return answer


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's Chromium."""
    installed = [path for path in _CHROMIUM if path.exists()]
    if not installed:
        pytest.skip("Debian's chromium is not installed")
    return str(installed[0])


@pytest.fixture(scope="session")
async def tabs(chromium: str) -> AsyncIterator[Tabs]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield Tabs(browser)
        await browser.close()


@pytest.fixture
def new_user(
    homeserver: Homeserver, http: aiohttp.ClientSession, no_bridge: DeafAppservice
) -> NewUser:
    """Makes an account for a person; its local part is the given one and a number."""

    async def register(prefix: str) -> MatrixUser:
        account = await homeserver.register(f"{prefix}{next(_numbers)}")
        return MatrixUser(http, homeserver.url, *account)

    return register


@pytest.fixture
def new_agent(homeserver: Homeserver, http: aiohttp.ClientSession) -> NewUser:
    """Makes the ghost of an agent; its local part is `agent_`, the given one and a number."""

    async def register(name: str) -> MatrixUser:
        localpart = f"agent_{name}{next(_numbers)}"
        user_id = f"@{localpart}:{homeserver.server_name}"
        token = homeserver.as_token
        ghost = MatrixUser(http, homeserver.url, user_id, token, impersonated=True)
        login = {"type": "m.login.application_service", "inhibit_login": True}
        await ghost.call("POST", "/v3/register", {**login, "username": localpart})
        return ghost

    return register


@pytest.fixture
async def room(new_user: NewUser, new_agent: NewUser) -> AgentRoom:
    """A person and the agent Meridian in a room."""
    return await agent_room(await new_user("sam"), await new_agent("meridian"), "Meridian")


@pytest.fixture
async def open_page(tabs: Tabs, chat_url: str) -> AsyncIterator[OpenPage]:
    """Opens the chat page in a tab that knows nothing of others; checks it for faults at the
    end."""
    pages: list[ChatPage] = []

    async def open_(**options: Any) -> ChatPage:
        page = ChatPage(await tabs.open(chat_url, **options), chat_url)
        await page.watch()
        pages.append(page)
        return page

    yield open_
    for page in pages:
        await tabs.close(page.page)
    faults = [fault for page in pages for fault in page.faults]
    assert not faults


@pytest.fixture(scope="module")
async def account(homeserver: Homeserver, http: aiohttp.ClientSession) -> MatrixUser:
    """Of the person in the world."""
    return MatrixUser(http, homeserver.url, *await homeserver.register(f"newcomer{next(_numbers)}"))


@pytest.fixture(scope="module")
async def world(
    homeserver: Homeserver,
    http: aiohttp.ClientSession,
    account: MatrixUser,
    no_bridge: DeafAppservice,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[World]:
    """A bridge whose agents follow a script; the account's owner is its admin."""
    person = Person(http, homeserver.url, account.user_id, account.token)
    runtime = MemoryRuntime(script=careful_script)
    directory = tmp_path_factory.mktemp("newcomer")
    await no_bridge.stop()
    async with bridge_on(homeserver, directory, person, runtime) as running:
        yield running
    await no_bridge.start()
