"""Text messages of phones: how many segments a text takes, and cutting it (3GPP TS 23.038,
TS 23.040 section 9.2.3.24.1). Pure functions."""

import re
import unicodedata
from collections.abc import Callable

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
