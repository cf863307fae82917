"""Links that say where they lead, in what an agent writes."""

import re
from html import escape, unescape
from urllib.parse import unquote

from letta_matrix.matrix.hosts import Place, hosts_in, place_of, readable

_ANCHOR = re.compile(r'<a href="([^"]*)">(.*?)</a>', re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_URL = re.compile(r"[a-z][a-z0-9+.-]{0,15}://[^\s<>\"]+", re.IGNORECASE)
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u115f\u180e\u200b-\u200f\u2060-\u2064\u3164\ufeff]")
_AUTHORITY = re.compile(r"(?<=://)[^/?#\s]+")
# Joiners have a meaning in the paths of some languages' addresses, never in a host.
_JOINERS = re.compile("[\u200c\u200d]")
_MATRIX = re.compile(r"(?:https://matrix\.to/#/|matrix:(?:u|r|roomid)/)([^?]*)", re.IGNORECASE)
_LONGEST = 200


def visible_urls(text: str) -> str:
    """`text` with nothing invisible inside of URLs."""
    return _URL.sub(lambda match: clean_url(match[0]), text) if "://" in text else text


def clean_url(url: str) -> str:
    """A URL without invisible characters."""
    url = _AUTHORITY.sub(lambda match: _INVISIBLE.sub("", match[0]), url)
    return _INVISIBLE.sub(lambda match: match[0] if _JOINERS.match(match[0]) else "", url)


def tell_targets(html: str) -> str:
    """Clean HTML in which every link whose text may be taken for another address is followed by
    its own."""
    return _ANCHOR.sub(_told, html) if "<a " in html else html


def _told(match: re.Match[str]) -> str:
    target = unescape(match[1])
    shown = unescape(_TAG.sub("", match[2])).strip()
    place = place_of(target)
    if not _misleads(shown, target, place):
        return match[0]
    return f"{match[0]} ({escape(_short(target, place), quote=False)})"


def _misleads(shown: str, target: str, place: Place) -> bool:
    if _is_its_id(shown, target):
        return False
    if any(not place.is_named(host) for host in hosts_in(shown)):
        return True
    shown = _INVISIBLE.sub("", shown)
    if _plain(shown) == _plain(target):
        # Decoded for reading, it may have spaces.
        return False
    return any(_plain(url) != _plain(target) for url in _URL.findall(shown))


def _is_its_id(shown: str, target: str) -> bool:
    """Whether the text is the very user, room or event that a link to Matrix leads to."""
    match = _MATRIX.match(target)
    ids = unquote(match[1]).split("/") if match else []
    return shown in ids or (target.startswith("matrix:") and shown[1:] in ids)


def _plain(url: str) -> str:
    scheme, _, rest = unquote(url).rstrip("/.,;:!?").partition("://")
    return (rest or scheme).lower().removeprefix("www.")


def _short(url: str, place: Place) -> str:
    """A URL in full, or where it is long at least whose it is."""
    url = readable(url, place)
    return url if len(url) <= _LONGEST else f"{place.host or url[:_LONGEST]}/\u2026"
