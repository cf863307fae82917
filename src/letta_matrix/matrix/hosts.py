"""Hosts as people see them in a text, and as browsers find them in a URL.

Which endings are domains changes every week, so whatever is written like a host counts as one.
Where the two could differ, a text names another host: too many targets told harm nobody.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address
from urllib.parse import SplitResult, unquote, urlsplit

_PORTS = {"http": 80, "https": 443, "ftp": 21}
_TOKEN = re.compile(r"([\w-]+(?:\.+[\w-]+)*)(?::(\d{1,5})(?!\w))?")
_PATH = re.compile(r"[/?#]\S*")
_AFTER_SCHEME = ("//", ":/")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]+")
_QUAD = 4
_IPV6 = re.compile(r"[0-9a-f:.]{2,}")

_UNSEEN = re.compile("[\u2000-\u200a\u202f\u205f\u115f\u1160\u2800\u3164\uffa0]")
"""Spaces too thin to be noticed, and letters without a shape."""

_LOOKALIKES = str.maketrans(
    dict.fromkeys(
        "\u00b7\u0387\u06d4\u0701\u0702\u2022\u2027\u2219\u22c5\u3002\u30fb\ua4f8"
        "\u0660\u06f0\u1427\u16eb\u2e31\ua60e\U00010a50",
        ".",
    )
    | dict.fromkeys("\u2044\u2215\u29f8\\", "/")
    | dict.fromkeys("\u02d0\u05c3\u2236\ua789", ":")
)


@dataclass(frozen=True, slots=True)
class Host:
    """A host that a text names, in small ASCII letters; `port` is None where it has none."""

    name: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads; `host` is "" where that is no host, or one that cannot be read."""

    host: str
    port: int | None

    def is_named(self, host: Host) -> bool:
        """Whether that is this one, or one that it belongs to."""
        if host.port is not None and host.port != self.port:
            return False
        return self.host == host.name or ("." in host.name and self.host.endswith(f".{host.name}"))


def hosts_in(text: str) -> Iterator[Host]:
    """Every host that somebody may see in a text, but none in the path behind another."""
    text = _seen(text)
    if text.count(":") > 1:
        yield from _ipv6_in(text)
    at = 0
    while (match := _TOKEN.search(text, at)) is not None:
        at = match.end()
        if _is_host(match[1], match[2], after_scheme=text[: match.start()].endswith(_AFTER_SCHEME)):
            yield Host(_ascii(match[1]), int(match[2]) if match[2] else None)
            if (path := _PATH.match(text, at)) is not None:
                at = path.end()


@lru_cache(maxsize=64)
def place_of(url: str) -> Place:
    """Where a browser goes with a URL."""
    if url.lower().startswith("mailto:"):
        return Place(_ascii(unquote(url.partition("?")[0]).rpartition("@")[2]), None)
    try:
        parts = _split(url)
        return Place(
            _ascii(unquote(parts.hostname or "")), parts.port or _PORTS.get(parts.scheme.lower())
        )
    except ValueError:
        return Place("", None)


def readable(url: str, place: Place) -> str:
    """A URL of this place as it may be shown: its host cannot be taken for another one."""
    if not place.host or url.lower().startswith("mailto:"):
        return url
    parts = _split(url)
    if not (set("@%\\") & set(parts.netloc) or not parts.netloc.isascii() or "\\" in url):
        return url
    host = f"[{place.host}]" if ":" in place.host else place.host
    port = f":{parts.port}" if parts.port is not None else ""
    return parts._replace(netloc=host + port).geturl()


def _split(url: str) -> SplitResult:
    # As browsers do it: https://evil.test\@bank.com is a path at evil.test.
    return urlsplit(url.replace("\\", "/"))


def _is_host(name: str, port: str | None, *, after_scheme: bool) -> bool:
    if after_scheme:
        return True
    labels = [label for label in name.split(".") if label]
    if len(labels) == 1:
        return port is not None and not name.isdigit()
    if all(map(_NUMBER.fullmatch, labels)):
        return len(labels) == _QUAD
    # No domain ends with a number or a single letter: "v1.2.3", "e.g".
    return not labels[-1].isdigit() and (len(labels[-1]) > 1 or not labels[-1].isascii())


def _ipv6_in(text: str) -> Iterator[Host]:
    for found in _IPV6.findall(text):
        if found.count(":") > 1 and (address := _ipv6(found.strip("."))) is not None:
            yield Host(address)


def _seen(text: str) -> str:
    """A text as it looks, in small letters: nothing invisible, no wide forms, no lookalikes of
    what hosts are written with, no accents that do not belong to a letter."""
    if text.isascii():
        return text.lower().replace("\\", "/")
    text = unicodedata.normalize("NFKC", _UNSEEN.sub("", text)).translate(_LOOKALIKES).lower()
    return "".join(one for one in text if one.isspace() or unicodedata.category(one)[0] not in "CM")


def _ascii(host: str) -> str:
    """A host as it stands in DNS. Letters are not mapped to others, as older versions of IDNA
    do: where one browser goes elsewhere than another, it is another host."""
    if not host.isascii():
        host = unicodedata.normalize("NFKC", host).translate(_LOOKALIKES)
    host = host.lower().strip(".")
    if ":" in host:
        return _ipv6(host) or host
    if not host.isascii():
        host = ".".join(map(_encoded, host.split(".")))
    bare = host.removeprefix("www.")
    return bare if "." in bare else host


def _ipv6(host: str) -> str | None:
    """The one way to write such an address, None for what is none."""
    try:
        return str(IPv6Address(host))
    except ValueError:
        return None


def _encoded(label: str) -> str:
    if label.isascii():
        return label
    return f"xn--{label.encode('punycode', 'replace').decode('ascii')}"
