"""The chat page in a real Chromium, against a real Synapse."""

import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from chat_homeserver import Homeserver, start_synapse
from chat_page import ChatPage
from furniture import AgentRoom, NewUser, agent_room
from matrix_user import MatrixUser
from playwright.async_api import Browser, async_playwright

from letta_matrix.web.pages import chat_routes

_CHROMIUM = Path("/usr/bin/chromium")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_names = itertools.count(1)

OpenPage = Callable[..., Awaitable[ChatPage]]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest_asyncio.fixture(scope="session")
async def homeserver(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Homeserver]:
    port = _free_port()
    process = await start_synapse(tmp_path_factory.mktemp("synapse"), port)
    yield Homeserver(f"http://127.0.0.1:{port}", "localhost")
    process.terminate()
    await process.wait()


@pytest_asyncio.fixture(scope="session")
async def chat_url(homeserver: Homeserver) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(chat_routes(homeserver.url, f"@letta:{homeserver.server_name}"))
    runner = web.AppRunner(app)
    await runner.setup()
    port = _free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}/chat"
    await runner.cleanup()


@pytest_asyncio.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    if not _CHROMIUM.exists():
        pytest.skip("Debian's chromium is not installed")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(_CHROMIUM), args=_ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
def new_user(homeserver: Homeserver) -> NewUser:
    """Registers an account; its local part is the given one and a number."""

    async def register(prefix: str) -> MatrixUser:
        account = await homeserver.register(f"{prefix}{next(_names)}")
        return MatrixUser(homeserver.url, *account)

    return register


@pytest_asyncio.fixture
async def room(new_user: NewUser) -> AgentRoom:
    """A person and the agent Meridian in a room."""
    return await agent_room(await new_user("sam"), await new_user("agent_"), "Meridian")


@pytest_asyncio.fixture
async def open_page(browser: Browser, chat_url: str) -> AsyncIterator[OpenPage]:
    """Opens the chat page in a browser profile of its own; checks it for faults at the end."""
    pages: list[ChatPage] = []

    async def open_(**options: Any) -> ChatPage:
        context = await browser.new_context(locale="en-GB", **options)
        page = ChatPage(await context.new_page(), chat_url)
        await page.watch()
        pages.append(page)
        return page

    yield open_
    for page in pages:
        await page.page.context.close()
    faults = [fault for page in pages for fault in page.faults]
    assert not faults
