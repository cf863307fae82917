"""The documentation as a site: its pages of the code are new, its links lead somewhere, and a
reader needs nobody else."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from docsite.pages import DOCS, PAGES
from tests.doc_blocks import ROOT


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_is_made_of_the_code_is_as_the_code_is_now(name: str) -> None:
    stands = (DOCS / name).read_text(encoding="utf-8")
    assert stands == PAGES[name](), "write it anew by `make docs`, and commit it"


def test_nothing_else_stands_beside_them() -> None:
    found = {path.relative_to(DOCS).as_posix() for path in (DOCS / "reference").iterdir()}
    assert found == PAGES.keys()


_NO_WORDS = re.compile(r"<(pre|code|script)\b.*?</\1>|<[^>]+>", re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does, with nobody to ask."""
    directory = tmp_path_factory.mktemp("site")
    # With --quiet warnings would not be counted.
    words = ("build", "--strict", "--site-dir", str(directory))
    # Whoever wants something of the internet asks a proxy that is not there.
    nobody = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        (sys.executable, "-m", "mkdocs", *words),
        cwd=ROOT,
        env={**os.environ, **nobody, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


class _Page(HTMLParser):
    """What a page leads to, what it fetches, and what is named in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.fetched, self.names = set[str](), set[str](), set[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.names |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif "src" in given or "href" in given:
            self.fetched.add(given.get("src") or given["href"])


def pages_of(site: Path) -> Iterator[tuple[Path, _Page]]:
    for file in site.rglob("*.html"):
        # It is shown at any address, and so has links from the root on.
        if file.name != "404.html":
            yield file, _Page(file.read_text(encoding="utf-8"))


def test_every_link_and_picture_of_the_site_is_there(site: Path) -> None:
    pages = dict(pages_of(site))
    assert len(pages) > 30
    for file, page in pages.items():
        for link in page.links | page.fetched:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            assert there.exists(), (file.name, link)
            if parts.fragment and there in pages:
                assert unquote(parts.fragment) in pages[there].names, (file.name, link)


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for file, page in pages_of(site):
        assert [one for one in page.fetched if urlsplit(one).netloc] == [], file.name
    for file in site.rglob("*.css"):
        text = file.read_text(encoding="utf-8")
        assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", text) == [], file.name


def test_what_a_page_writes_stands_there_as_it_is_meant(site: Path) -> None:
    """Markdown that only some readers know would show its signs."""
    for file, _ in pages_of(site):
        text = re.sub(
            r"<(pre|code|script)\b.*?</\1>", "", file.read_text(encoding="utf-8"), flags=re.DOTALL
        )
        shown = re.sub(r"<[^>]+>", "", text)
        assert re.findall(r"\*\*|```|^\|.*\|$|\]\(", shown, re.MULTILINE) == [], file.name
