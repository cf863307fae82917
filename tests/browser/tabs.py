"""Tabs of one browser."""

from collections import defaultdict
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, Page
from tests.waiting import DEADLINE


class Tabs:
    """Opens tabs in profiles that are used again and again: nothing takes the browser longer than
    a new one. Two tabs that are open at once have two."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._free: defaultdict[str, list[BrowserContext]] = defaultdict(list)
        self._kinds: dict[BrowserContext, str] = {}

    async def open(self, url: str, **options: Any) -> Page:
        """A tab, still empty, in which nobody has been at `url` before; takes Playwright's options
        of a browser context."""
        kind = repr(sorted(options.items()))
        free = self._free[kind]
        context = free.pop() if free else await self._profile(kind, options)
        page = await context.new_page()
        place = urlsplit(url)
        session = await context.new_cdp_session(page)
        forgotten = {"origin": f"{place.scheme}://{place.netloc}", "storageTypes": "local_storage"}
        await session.send("Storage.clearDataForOrigin", forgotten)
        await session.detach()
        return page

    async def close(self, page: Page) -> None:
        """Close a tab; its profile is for the next one."""
        context = page.context
        await page.unroute_all(behavior="ignoreErrors")
        await page.close()
        self._free[self._kinds[context]].append(context)

    async def _profile(self, kind: str, options: dict[str, Any]) -> BrowserContext:
        context = await self._browser.new_context(
            locale="en-GB", reduced_motion="reduce", **options
        )
        context.set_default_timeout(DEADLINE * 1000)
        self._kinds[context] = kind
        return context
