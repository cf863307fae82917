"""JSON as others write it: their parsers let through what ours, the database or whoever it is sent
on to would choke on."""

import json
import math
import re

_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_LONGEST_INTEGER = 16
"""Characters; SQLite and other programs hold no more than 64 bits."""


def loads(text: str | bytes, *, exact: bool = False) -> object:
    """The value of a JSON text (bytes: in UTF-8). Of numbers those that are too large for JSON, and
    what is none, count as null, long integers as floats; not so if it is to be `exact`. Halves of
    surrogate pairs are replaced.

    Raises ValueError, also for nesting beyond reading.
    """
    read = json.loads if exact else _read
    text = text if isinstance(text, str) else text.decode()
    try:
        value: object = read(text)
        if _HALF.search(text):
            value = read(whole_text(json.dumps(value, ensure_ascii=False)))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def whole_text(text: str) -> str:
    """The text with a replacement character for each half of a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def printable(text: str) -> str:
    """The text with a replacement character for whatever a terminal could take for an order, or
    shows nothing of."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _read(text: str) -> object:
    return json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=lambda _: None)


def _integer(digits: str) -> int | float | None:
    # Python itself refuses to read, or to print, thousands of digits.
    return int(digits) if len(digits) <= _LONGEST_INTEGER else _float(digits)


def _float(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None
