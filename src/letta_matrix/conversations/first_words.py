"""When a reply has something to say: its first event is the one that notifies people."""

import re

FIRST_WORDS = 0.3
"""Seconds after the first of its text that a reply waits at most for a whole clause."""

_CLAUSE = 60
_SENTENCE = re.compile(r"[.!?:;\u2026][\"')\]*_`]*\s|[\u3002\uff01\uff1f\uff1b\uff1a]|\w[^\n]*\n")
_WORD = re.compile(r"[^\W_]")


def are_enough(text: str) -> bool:
    """Whether a text holds at least a clause: the end of a sentence or a line, or 60 characters."""
    return say_something(text) and (len(text) >= _CLAUSE or bool(_SENTENCE.search(text)))


def say_something(text: str) -> bool:
    """Whether a text has a word, and not only the marks of what is to come."""
    return bool(_WORD.search(text))
