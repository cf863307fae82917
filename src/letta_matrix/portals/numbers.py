"""Phone numbers, as the many ways in which people write them mean them. Pure functions."""

import re
from functools import lru_cache

from letta_matrix.portals.contacts import EVERYBODY, normal

_DIALLED = re.compile(r"\+?[\d\s().\-/\u2010-\u2015]{3,40}")
_ID = re.compile(r"\d+\.\d+")
"""What mautrix-gmessages calls contacts, which is no number."""
_SCHEME = re.compile(r"(?:tel|sms):", re.IGNORECASE)
_INTERNATIONAL = re.compile(r"\+\d{3,20}")
_SHORT = 6
"""Digits of the longest short codes, which are the same in no two countries."""


@lru_cache(maxsize=4096)
def normal_number(contact: str, region: str | None) -> str:
    """As `normal`, with numbers as E.164 writes them; those without a country are of `region`.
    What can be no number of any country stays as it is."""
    text = _SCHEME.sub("", contact.strip(), count=1)
    stem = text.removesuffix(EVERYBODY).strip()
    if _ID.fullmatch(stem) or not _DIALLED.fullmatch(stem):
        return normal(contact)
    if stem.startswith("00"):
        stem = "+" + stem.removeprefix("00")
    return _prefix(stem, region) + EVERYBODY if text.endswith(EVERYBODY) else _whole(stem, region)


def is_number(contact: str) -> bool:
    """Whether a normal contact is a number that can be dialled: with its country, or a short
    code."""
    is_short = contact.isdigit() and len(contact) <= _SHORT
    return is_short or _INTERNATIONAL.fullmatch(contact) is not None


def _whole(text: str, region: str | None) -> str:
    # Large, and for those alone who have a phone line.
    import phonenumbers

    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return _digits(text)
    if not phonenumbers.is_possible_number(number):
        return _digits(text)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _prefix(text: str, region: str | None) -> str:
    """Where numbers begin that are written like this."""
    import phonenumbers

    digits = _digits(text)
    if digits.startswith("+") or region is None:
        return digits
    trunk = phonenumbers.ndd_prefix_for_region(region, True) or ""
    code = phonenumbers.country_code_for_region(region)
    return f"+{code}{digits.removeprefix(trunk)}"


def _digits(text: str) -> str:
    return ("+" if text.startswith("+") else "") + re.sub(r"\D", "", text)
