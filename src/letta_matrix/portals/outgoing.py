"""An agent's words as they go out to another network: plain, and cut into text messages of phones
(3GPP TS 23.038, TS 23.040 section 9.2.3.24.1) or parts of so many bytes. Pure functions."""

import re
import unicodedata
from collections.abc import Callable

from letta_matrix.config import PortalSettings
from letta_matrix.portals.plain_text import plain

MAX_MESSAGES = 20
"""Of one reply; what is beyond is cut, and said to be."""

_CUT = "\u2026 (cut)"
_NUMBER = "(99/99) "
_FIRST_WORD = re.compile(r"\s*@?([^:,\s]+)")

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    "ÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = frozenset("\f^{}\\[~]|€")
_GSM_ALONE, _GSM_PART = 160, 153
_UCS2_ALONE, _UCS2_PART = 70, 67
_TOKEN = re.compile(r"\s*\S+|\s+")
_ZWJ = "\u200d"
_LINK = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)

Fits = Callable[[str], bool]
"""Whether a text goes into one message."""


def outgoing(markdown: str, settings: PortalSettings) -> list[str]:
    """A reply as the messages that a bridge is given, none for what says nothing: plain text, at
    most as many segments or bytes each as configured, numbered where they are text messages. None
    of them is a command to the bridge."""
    text = _no_command(plain(markdown), settings)
    if not text:
        return []

    def fits(piece: str) -> bool:
        if settings.sms:
            return segments(piece) <= settings.segments
        return len(piece.encode()) <= settings.part_bytes

    if fits(text):
        return [text]
    if settings.sms:
        found = _some(pieces(text, lambda piece: fits(_NUMBER + piece)))
        return [f"({number}/{len(found)}) {one}" for number, one in enumerate(found, 1)]
    found = _some(pieces(text, lambda piece: fits("> " + piece)))
    return [_no_command(one, settings) for one in found]


def _some(found: list[str]) -> list[str]:
    return found if len(found) <= MAX_MESSAGES else [*found[: MAX_MESSAGES - 1], _CUT]


def _no_command(text: str, settings: PortalSettings) -> str:
    """Bridges take what begins with `!` and their word, or is addressed to their bot, for a
    command: a contact may ask an agent to say just that."""
    first = _FIRST_WORD.match(text)
    bot = settings.bot[1:].partition(":")[0]
    is_command = first is not None and (
        first[1].startswith(("!", "/")) or first[1].casefold().lstrip("@") == bot.casefold()
    )
    return f"> {text}" if is_command else text


def segments(text: str) -> int:
    """How many segments a text message takes: in GSM-7 where it can be, else in UCS-2."""
    if all(one in _BASIC or one in _EXTENDED for one in text):
        # A character of the extension table never stands across two segments: counted as if all
        # of them might, which is at most one too many.
        return _parts(len(text) + sum(one in _EXTENDED for one in text), _GSM_ALONE, _GSM_PART)
    units = len(text.encode("utf-16-le")) // 2
    return _parts(units, _UCS2_ALONE, _UCS2_PART)


def _parts(units: int, alone: int, part: int) -> int:
    return max(1, -(-units // part)) if units > alone else 1


def pieces(text: str, fits: Fits) -> list[str]:
    """A text as pieces that fit, cut between words; links stay whole, and what is longer than a
    piece is cut between characters as people see them."""
    found: list[str] = []
    piece = ""
    for token in _TOKEN.findall(text):
        if fits(piece + token) or not piece + token.strip():
            piece += token
            continue
        if piece.strip():
            found.append(piece.strip())
        piece = token.lstrip()
        while not fits(piece) and not _LINK.search(piece):
            cut = _longest(piece, fits)
            found.append(piece[:cut])
            piece = piece[cut:]
    return [*found, piece.strip()] if piece.strip() else found


def _longest(word: str, fits: Fits) -> int:
    """Where to cut a word: after the most characters that fit, one at least."""
    low, high = 0, len(word)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(word[:middle]) else (low, middle - 1)
    cut = low
    while cut > 0 and _belongs(word[cut - 1], word[cut : cut + 1]):
        cut -= 1
    return cut or max(low, 1)


def _belongs(before: str, after: str) -> bool:
    """Whether a character continues what people see as one with the one before it (roughly
    Unicode Standard Annex 29)."""
    if not after:
        return False
    joins = _ZWJ in (before, after) or unicodedata.category(after) in ("Mn", "Me", "Mc")
    is_modifier = "\U0001f3fb" <= after <= "\U0001f3ff" or "\ufe00" <= after <= "\ufe0f"
    flags = "\U0001f1e6" <= before <= "\U0001f1ff" and "\U0001f1e6" <= after <= "\U0001f1ff"
    return joins or is_modifier or flags
