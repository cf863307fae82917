"""Tabs of one browser."""

from collections import defaultdict
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, Page
from tests.waiting import DEADLINE


def home_of(page: Page) -> Page:
    """The page beside a tab that sees what is stored at the tab's place."""
    return page.context.pages[0]


class Tabs:
    """Opens tabs in profiles that are used again and again: nothing takes the browser longer than
    a new one. Two tabs that are open at once have two.

    A profile's first page stays open at the place that its tabs go to, empty: the process that
    draws them all, with what it has compiled, lives on in between, and what is stored is there for
    `home_of` to change."""

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
        home = context.pages[0]
        if urlsplit(home.url).netloc != urlsplit(url).netloc:
            await home.goto(f"{url}/nothing-is-here")
        await home.evaluate("localStorage.clear()")
        return await context.new_page()

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
        await context.new_page()
        self._kinds[context] = kind
        return context
