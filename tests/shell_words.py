"""What a block of shell has somebody run: each command with its words."""

import re
import shlex
from collections.abc import Iterator

_ASSIGNED = re.compile(r"[A-Z_]+=.*", re.DOTALL)
_WITHIN = re.compile(r"\$\(([^()]*)\)")
_ENDS = re.compile(r"[()|&;]+")
_REDIRECTED = re.compile(r"[<>]+")

Words = tuple[str, ...]


def commands(text: str) -> Iterator[Words]:
    """The simple commands of a script, those within `$(...)` and behind `sh -c` too."""
    for line in text.replace("\\\n", " ").splitlines():
        for within in _WITHIN.findall(line):
            yield from _of_line(within)
        yield from _of_line(_WITHIN.sub("X", line))


def _of_line(line: str) -> Iterator[Words]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="()<>|&;")
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if _ENDS.fullmatch(word):
            yield from _simple(words)
            words = []
        elif _REDIRECTED.fullmatch(word):
            skip = True
        elif skip:
            skip = False
        else:
            words.append(word)


def _simple(words: list[str]) -> Iterator[Words]:
    while words and _ASSIGNED.fullmatch(words[0]):
        words = words[1:]
    if not words:
        return
    yield tuple(words)
    if "-c" in words and words[words.index("-c") - 1] == "sh":
        yield from _of_line(words[words.index("-c") + 1])
