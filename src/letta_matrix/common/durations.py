"""Spans of time, as people write them."""

import re

_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|w|)")
_SECONDS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds_in(text: str) -> float | None:
    """The seconds in a text such as `500ms`, `30s`, `24h`, `8w` or `90`; None for what is none."""
    match = _FORM.fullmatch(text)
    return None if match is None else float(match[1]) * _SECONDS[match[2]]
