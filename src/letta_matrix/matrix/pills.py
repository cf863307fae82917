"""Mention pills: links to users in the HTML of a message, or as Markdown in its plain text."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote

_PLACES = ("https://matrix.to/#/", "http://matrix.to/#/")
_LINK = re.compile(
    r"\[(?P<label>[^\[\]\n]{1,200})\]"
    r"\((?P<url>(?:https?://matrix\.to/#/|matrix:u/)[^\s()<>]{1,600})\)"
)
_NOT_SPOKEN = {"mx-reply", "code", "pre", "blockquote"}
_LONGEST_LABEL = 300


def pills(html: str) -> dict[str, str]:
    """The users that links outside of quotes and code lead to, each with the first link's text."""
    reader = _PillReader()
    reader.feed(html)
    return reader.labels


def with_labels(body: str) -> str:
    """`body` with each Markdown link to a user as its text alone."""
    return _LINK.sub(lambda link: link["label"] if linked_user(link["url"]) else link[0], body)


def linked_user(url: str) -> str:
    """The user id behind a matrix.to link or a `matrix:` URI (spec appendices), else ""."""
    for prefix in _PLACES:
        if url.startswith(prefix):
            target = unquote(url.removeprefix(prefix).partition("?")[0])
            return target if target.startswith("@") else ""
    if url.startswith("matrix:u/"):
        return "@" + unquote(url.removeprefix("matrix:u/").partition("?")[0])
    return ""


class _PillReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.labels: dict[str, str] = {}
        self._silent: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _NOT_SPOKEN:
            self._silent.append(tag)
        elif tag == "a" and not self._silent:
            user_id = linked_user(dict(attrs).get("href") or "")
            self._inside = "" if user_id in self.labels else user_id
            if self._inside:
                self.labels[user_id] = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            label = self.labels[self._inside]
            self.labels[self._inside] = label + data[: _LONGEST_LABEL - len(label)]

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._inside = ""
        if tag in self._silent:
            while self._silent.pop() != tag:
                pass
