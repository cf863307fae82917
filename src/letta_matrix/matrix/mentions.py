"""Who a message is meant for, and whom an agent's own words may ping. Pure functions."""

import re
from collections.abc import Collection, Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote

from letta_matrix.matrix.content import without_reply_fallback
from letta_matrix.matrix.events import items, mapping

_USER = re.compile(
    r"(?<![\w@./:=+-])@(?P<localpart>[\w.=/+-]+)(?::(?P<server>[\w.-]+(?::\d+)?))?(?![\w@])"
)
_TRAILING = ".-/+=:"
_CODE = re.compile(
    r"^ {0,3}(?P<fence>`{3,}|~{3,}).*?(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z)"
    r"|(?<!`)(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)",
    re.DOTALL | re.MULTILINE,
)
_PILLS = ("https://matrix.to/#/", "http://matrix.to/#/")
_NOT_SPOKEN = {"mx-reply", "code", "pre", "blockquote"}
_LONGEST = 65_536
_MOST_BYTES = 1_000


def mentioned(content: Mapping[str, Any], candidates: Collection[str]) -> set[str]:
    """Which of `candidates` (user ids) a message's content mentions.

    `m.mentions` decides where it is there (spec: User and room mentions). Without it pills of
    the formatted body count (links to matrix.to, `matrix:` URIs), else user ids or `@localpart`
    as words of the body. A quoted reply and code never count.
    """
    if "m.mentions" in content:
        named = items(mapping(content["m.mentions"]).get("user_ids")) or []
        return {user_id for user_id in candidates if user_id in named}
    html = content.get("formatted_body")
    pills = _pills(html[:_LONGEST]) if isinstance(html, str) else set[str]()
    if pills:
        return {user_id for user_id in candidates if user_id in pills}
    body = content.get("body")
    return _words(body[:_LONGEST], candidates) if isinstance(body, str) else set[str]()


def named_by_agent(markdown: str, members: Collection[str]) -> tuple[str, ...]:
    """The members of a room whose whole user id an agent wrote, to be pinged by its words.

    Never the room, never by a name alone, nothing in code or quotes; together at most 1,000
    bytes of ids, so that every event stays within its limit.
    """
    known = set(members)
    spoken = "\n".join(
        line for line in _CODE.sub(" ", markdown).split("\n") if not line.lstrip().startswith(">")
    )
    named: dict[str, None] = {}
    size = 0
    for user_id in _ids(spoken):
        if user_id in known and user_id not in named:
            size += len(user_id.encode()) + 3
            if size > _MOST_BYTES:
                break
            named[user_id] = None
    return tuple(named)


def _words(body: str, candidates: Collection[str]) -> set[str]:
    spoken = _CODE.sub(" ", without_reply_fallback(body))
    words = set(_ids(spoken))
    return {
        user_id for user_id in candidates if user_id in words or user_id.partition(":")[0] in words
    }


def _ids(text: str) -> list[str]:
    """User ids and `@localpart`s that stand in `text` as words of their own, in order."""
    found: list[str] = []
    for match in _USER.finditer(text):
        localpart, server = match["localpart"], match["server"]
        if server is None:
            found.append("@" + localpart.rstrip(_TRAILING))
        else:
            found.append(f"@{localpart}:{server.rstrip(_TRAILING)}")
    return found


def _pills(html: str) -> set[str]:
    reader = _PillReader()
    reader.feed(html)
    return reader.user_ids


class _PillReader(HTMLParser):
    """Collects the users that links outside of quotes and code lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.user_ids: set[str] = set()
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _NOT_SPOKEN:
            self._silent.append(tag)
        elif tag == "a" and not self._silent:
            user_id = _linked_user(dict(attrs).get("href") or "")
            if user_id:
                self.user_ids.add(user_id)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._silent:
            while self._silent.pop() != tag:
                pass


def _linked_user(url: str) -> str:
    """The user id behind a matrix.to link or a `matrix:` URI (spec appendices), else ""."""
    for prefix in _PILLS:
        if url.startswith(prefix):
            target = unquote(url.removeprefix(prefix).partition("?")[0])
            return target if target.startswith("@") else ""
    if url.startswith("matrix:u/"):
        return "@" + unquote(url.removeprefix("matrix:u/").partition("?")[0])
    return ""
