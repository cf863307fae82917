"""What mkdocs is told besides mkdocs.yml: files of the repository that pages lead to are on the
site too, below `project/`, and links to them lead there.

In the files themselves links are as where the repository is looked at, `../SECURITY.md`.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_DOCS, _PROJECT = "docs/", "project/"
_OF_THE_PROJECT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^()\s#]+)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add what pages lead to."""
    pages = [*(_DOCS + one.src_uri for one in files.documentation_pages()), *_OF_THE_PROJECT]
    wanted = {link for page in pages for link in _led_to(page) if not link.startswith(_DOCS)}
    for path in sorted({*wanted, *_OF_THE_PROJECT}):
        files.append(File.generated(config, _on_site(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where the files are on the site."""
    here = _in_repository(page.file.src_uri)

    def led(match: re.Match[str]) -> str:
        path = _meant(here, match[1])
        there = path.startswith(_DOCS) and here.startswith(_DOCS)
        if there or not (ROOT / path).is_file():
            return match[1]
        return posixpath.relpath(_on_site(path), posixpath.dirname(page.file.src_uri))

    return _LINK.sub(led, markdown)


def _led_to(page: str) -> Iterator[str]:
    """The files of the repository that a page has links to."""
    for link in _LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        path = _meant(page, link)
        if (ROOT / path).is_file():
            yield path


def _meant(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _on_site(path: str) -> str:
    return path.removeprefix(_DOCS) if path.startswith(_DOCS) else _PROJECT + path


def _in_repository(uri: str) -> str:
    return uri.removeprefix(_PROJECT) if uri.startswith(_PROJECT) else _DOCS + uri
