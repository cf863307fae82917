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

from letta_matrix.common.connections.admission import Connections
from letta_matrix.doors.rest.app import make_app
from letta_matrix.doors.web.front import Front
from letta_matrix.doors.web.pages import chat_routes, docs_routes
from letta_matrix.doors.web.server import AsgiServer


@pytest.fixture(scope="module")
async def docs_url() -> AsyncIterator[str]:
    services: Any = SimpleNamespace(config=config_for(Path()), homeserver=None)
    pages = [*chat_routes("http://127.0.0.1:9", "@letta:test"), *docs_routes()]
    server = AsgiServer(Front(pages, make_app(services)), Connections(100))
    port = free_port()
    await server.start("127.0.0.1", port)
    yield f"http://127.0.0.1:{port}/docs"
    await server.close()


@pytest.fixture(scope="module")
async def page(tabs: Tabs, docs_url: str) -> AsyncIterator[Page]:
    """The page, open; checked for faults at the end. Drawing all operations takes it seconds."""
    page = await tabs.open(docs_url)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    await page.goto(docs_url)
    yield page
    await tabs.close(page)
    assert faults == []


async def test_it_finds_operations(page: Page) -> None:
    """The others go on from here: each click draws all that is shown once more."""
    await page.get_by_placeholder("Filter by tag or path").fill("tools")
    await expect(page.locator("#operations-tools-call_tool")).to_be_visible()
    await expect(page.locator("#operations-tokens-create_token")).to_have_count(0)


async def test_an_operation_is_tried_with_a_token(page: Page) -> None:
    await page.get_by_role("button", name="Authorize").click()
    await page.get_by_label("auth-bearer-value").fill("lm_1_secret")
    await page.locator(".auth-btn-wrapper .authorize").click()
    await page.locator(".auth-btn-wrapper .btn-done").click()
    operation = page.locator("#operations-tools-list_tools")
    await operation.locator(".opblock-summary-control").click()
    answer = {"tools": [{"name": "matrix_send_message"}]}
    await page.route("**/api/v1/tools", lambda route: route.fulfill(json=answer))
    async with page.expect_request("**/api/v1/tools") as asked:
        await operation.get_by_role("button", name="Execute").click()
    await expect(operation.locator(".curl")).to_contain_text("Authorization: Bearer lm_1_secret")
    await expect(operation.locator(".live-responses-table")).to_contain_text("matrix_send")
    assert (await asked.value).headers["authorization"] == "Bearer lm_1_secret"


async def test_it_tells_what_an_operation_takes_and_answers(page: Page) -> None:
    operation = page.locator("#operations-tools-call_tool")
    await operation.locator(".opblock-summary-control").click()
    await expect(operation).to_contain_text("/api/v1/tools/{name}")
    await expect(operation).to_contain_text("Idempotency-Key")
    await expect(operation).to_contain_text("rate-limited")
