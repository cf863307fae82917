"""The REST API's reference in a real Chromium."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.async_api import Page, expect
from tests.browser.tabs import Tabs
from tests.builders import config_for
from tests.servers import free_port

from letta_matrix.api.app import make_app
from letta_matrix.connections.admission import Connections
from letta_matrix.web.front import Front
from letta_matrix.web.pages import chat_routes, docs_routes
from letta_matrix.web.server import AsgiServer


@pytest.fixture(scope="module")
async def docs_url() -> AsyncIterator[str]:
    services: Any = SimpleNamespace(config=config_for(Path()), homeserver=None)
    pages = [*chat_routes("http://127.0.0.1:9", "@letta:test"), *docs_routes()]
    server = AsgiServer(Front(pages, make_app(services)), Connections(100))
    port = free_port()
    await server.start("127.0.0.1", port)
    yield f"http://127.0.0.1:{port}/docs"
    await server.close()


@pytest.fixture
async def page(tabs: Tabs, docs_url: str) -> AsyncIterator[Page]:
    """The page, open; checked for faults at the end."""
    page = await tabs.open(docs_url)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    await page.goto(docs_url)
    yield page
    await tabs.close(page)
    assert faults == []


async def test_it_shows_an_operation(page: Page) -> None:
    operation = page.locator("#call_tool")
    await operation.locator("summary").click()
    await expect(operation).to_contain_text('curl -X POST -H "Authorization: Bearer $TOKEN"')
    await expect(operation).to_contain_text("/api/v1/tools/matrix_send_message")
    await expect(operation).to_contain_text("Idempotency-Key")
    await expect(operation).to_contain_text("429 rate-limited")


async def test_it_finds_operations(page: Page) -> None:
    await page.locator("#find").fill("TOKENS")
    await expect(page.locator("#create_token")).to_be_visible()
    await expect(page.locator("#call_tool")).to_be_hidden()


async def test_every_operation_can_be_opened(page: Page) -> None:
    await expect(page.locator("details").first).to_be_visible()
    opened = await page.evaluate(
        """() => {
            const all = [...document.querySelectorAll("details")];
            for (const one of all) one.open = true;
            return all.length;
        }"""
    )
    assert opened > 30
    await expect(page.locator("details:has(pre)")).to_have_count(opened)
