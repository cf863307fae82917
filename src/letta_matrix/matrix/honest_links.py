"""Links that say where they lead, in what an agent writes."""

import re
from html import escape, unescape
from urllib.parse import unquote, urlsplit

_ANCHOR = re.compile(r'<a href="([^"]*)">(.*?)</a>', re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_URL = re.compile(r"[a-z][a-z0-9+.-]{0,15}://[^\s<>\"]+", re.IGNORECASE)
_DOMAIN = re.compile(
    r"(?<![\w./-])(?:www\.[\w-]+(?:\.[\w-]+)+|[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|gov|edu|info))"
    r"(?![\w-])",
    re.IGNORECASE,
)
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u115f\u180e\u200b-\u200f\u2060-\u2064\u3164\ufeff]")
_AUTHORITY = re.compile(r"(?<=://)[^/?#\s]+")
# Joiners have a meaning in the paths of some languages' addresses, never in a host.
_JOINERS = re.compile("[\u200c\u200d]")
_LONGEST = 200


def visible_urls(text: str) -> str:
    """`text` with nothing invisible inside of URLs."""
    return _URL.sub(lambda match: clean_url(match[0]), text) if "://" in text else text


def clean_url(url: str) -> str:
    """A URL without invisible characters."""
    url = _AUTHORITY.sub(lambda match: _INVISIBLE.sub("", match[0]), url)
    return _INVISIBLE.sub(lambda match: match[0] if _JOINERS.match(match[0]) else "", url)


def tell_targets(html: str) -> str:
    """Clean HTML in which every link whose text names another address is followed by its own."""
    return _ANCHOR.sub(_told, html) if "<a " in html else html


def _told(match: re.Match[str]) -> str:
    target = unescape(match[1])
    shown = _INVISIBLE.sub("", unescape(_TAG.sub("", match[2]))).strip()
    if not _misleads(shown, target):
        return match[0]
    return f"{match[0]} ({escape(_short(target), quote=False)})"


def _misleads(shown: str, target: str) -> bool:
    if target.startswith(("https://matrix.to/", "matrix:")) and shown in unquote(target):
        return False
    if _plain(shown) == _plain(target):
        # Decoded for reading, it may have spaces.
        return False
    urls: list[str] = _URL.findall(shown)
    if urls:
        return any(_plain(url) != _plain(target) for url in urls)
    host = _host(target)
    domains: list[str] = _DOMAIN.findall(shown)
    return any(not f".{host}".endswith(f".{_bare(domain)}") for domain in domains)


def _plain(url: str) -> str:
    scheme, _, rest = unquote(url).rstrip("/.,;:!?").partition("://")
    return _bare(rest or scheme)


def _bare(domain: str) -> str:
    return domain.lower().removeprefix("www.")


def _host(url: str) -> str:
    if url.lower().startswith("mailto:"):
        return _bare(url.partition("?")[0].rpartition("@")[2])
    try:
        return _bare(urlsplit(url).hostname or "")
    except ValueError:
        return ""


def _short(url: str) -> str:
    """A URL in full, or where it is long at least whose it is."""
    return url if len(url) <= _LONGEST else f"{_host(url) or url[:_LONGEST]}/\u2026"
