"""Cutting a long text into messages that the homeserver takes.

A homeserver refuses events above 65,536 bytes (spec: Size limits), and an edit carries its text
as Markdown twice and as HTML once. Where to cut is decided by an estimate that only grows with
the text, so that a text that grows at its end keeps all parts but the last.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

CONTENT_LIMIT = 60_000
"""Bytes of an event's content; the rest of 65,536 is for ids, hashes and signatures."""

MAX_PARTS = 20
"""Messages of one text at most, about 390,000 ASCII characters of prose; what is beyond is cut."""

_CUT = "\n\n\u2026 (cut)"
_COPIES = 3
_EXTRA = {
    # What a character can grow by in the HTML, beyond being carried three times.
    "\n": 16,
    "|": 12,
    "-": 30,
    "+": 30,
    "*": 30,
    ">": 36,
    "<": 6,
    "&": 6,
    "#": 9,
    "`": 9,
    "~": 6,
    "_": 9,
    "$": 40,
    "[": 12,
    "\\": 6,
    '"': 9,
}
_NUMBERED = re.compile(r"\d[.)]")
# Longer fences than people write would leave no room for what they hold.
_FENCE = re.compile(r" {0,3}(`{3,64}(?=[^`]*$)|~{3,64}(?!~))")
_LONGEST_FENCE = 64
_DELIMITER_ROW = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?")
_SMALLEST_BUDGET = 64
_MOST_PER_CHARACTER = 240
"""Bytes that each character of a short text takes in an edit at most, that of a table of empty
cells too."""


def split(
    text: str, limit: int = CONTENT_LIMIT, measure: Callable[[str], int] | None = None
) -> list[str]:
    """Parts of `text`, each a message of at most `limit` bytes; one part if all of it fits.

    `measure` tells the bytes of the event content that a part makes (`content.edit_measure`);
    without it a rough estimate from above decides. Cuts fall between blocks, else between lines,
    else between words or characters; a code fence is closed and opened again with its language, a
    table's header is repeated. With more text at the end, every part but the last stays the same.
    There are at most MAX_PARTS of them; the last says if more was cut.

    Takes up to half a second for a text that needs them all: for a long one call it in a thread.
    """
    if len(text) * _MOST_PER_CHARACTER <= limit:
        return [text]
    limit -= estimate(_CUT)
    budget = max(limit if measure is None else limit - measure(""), _SMALLEST_BUDGET)
    # No character costs less than its copies, so that nothing beyond can have a place.
    most = (MAX_PARTS * budget) // _COPIES + 1
    parts = _parts(text[:most], budget)
    if measure is not None:
        parts = _measured(parts, limit, budget, measure)
    if len(text) <= most and len(parts) <= MAX_PARTS:
        return parts
    *whole, last = parts[:MAX_PARTS]
    return [*whole, last + _CUT]


def estimate(text: str) -> int:
    """Bytes that `text` takes in an edit, from above for ordinary Markdown; never shrinks as
    the text grows."""
    extra = sum(text.count(character) * cost for character, cost in _EXTRA.items())
    numbered = 36 * len(_NUMBERED.findall(text))
    return _COPIES * len(text.encode("utf-8", "replace")) + extra + numbered


def _measured(
    parts: list[str], limit: int, budget: int, measure: Callable[[str], int]
) -> list[str]:
    small: list[str] = []
    for part in parts:
        if len(small) > MAX_PARTS:
            break
        small += _shrink(part, limit, budget, measure)
    return small


def _shrink(part: str, limit: int, budget: int, measure: Callable[[str], int]) -> list[str]:
    # Only Markdown built to defeat the estimate comes here (a wide table of empty rows).
    while measure(part) > limit and budget > _SMALLEST_BUDGET:
        budget //= 2
        smaller = _parts(part, budget)
        if len(smaller) > 1:
            return [small for one in smaller for small in _shrink(one, limit, budget, measure)]
    return [part]


def _parts(text: str, budget: int) -> list[str]:
    if estimate(text) <= budget:
        return [text]
    parts: list[str] = []
    current, cost = "", 0
    for chunk in _chunks(text):
        if len(parts) > MAX_PARTS:
            break
        added = estimate(chunk)
        if cost + added <= budget:
            current, cost = current + chunk, cost + added
            continue
        if current:
            parts.append(current)
        *full, current = _cut_chunk(chunk, budget)
        parts += full
        cost = estimate(current)
    return [part.strip("\n").rstrip() for part in [*parts, current] if part.strip()] or [text]


def _chunks(text: str) -> Iterator[str]:
    """What blank lines part, those inside a code fence aside, with the blank lines after it."""
    chunk: list[str] = []
    fence = ""
    blank = False
    for line in text.splitlines(keepends=True):
        if blank and line.strip() and not fence:
            yield "".join(chunk)
            chunk = []
        fence = _fence_after(line, fence)
        blank = not line.strip()
        chunk.append(line)
    if chunk:
        yield "".join(chunk)


def _fence_after(line: str, fence: str) -> str:
    match = _FENCE.match(line.rstrip())
    if not fence:
        return match[1] if match else ""
    closes = match and match[1].startswith(fence) and line.strip() == match[1]
    return "" if closes else fence


@dataclass
class _Cutter:
    """Fills pieces of one chunk line by line, carrying over what the next piece must repeat."""

    budget: int
    pieces: list[str] = field(default_factory=list[str])
    piece: list[str] = field(default_factory=list[str])
    cost: int = 0
    opener: str = ""
    fence: str = ""
    header: str = ""

    def add(self, line: str) -> None:
        fence = _fence_after(line, self.fence)
        reserve = self._closing_cost(line, fence)
        cost = estimate(line)
        if self.cost + cost + reserve > self.budget:
            self._next_piece()
        while self.cost + cost + reserve > self.budget and len(self.pieces) <= MAX_PARTS:
            head = _head(line, self.budget - self.cost - reserve)
            self._put(head, estimate(head))
            line = line[len(head) :]
            cost = estimate(line)
            self._next_piece()
        self._notice_table(line)
        if fence and not self.fence:
            self.opener = line if line.endswith("\n") else line + "\n"
        self._put(line, cost)
        self.fence = fence

    def _put(self, text: str, cost: int) -> None:
        if text:
            self.piece.append(text)
            self.cost += cost

    def _closing_cost(self, line: str, fence: str) -> int:
        # Also for a line that merely looks like a fence: while it grows it may become one.
        start = line.strip()
        run = start[: len(start) - len(start.lstrip("`~"))][:_LONGEST_FENCE]
        longest = max(self.fence, fence, run, key=len)
        return estimate(f"\n{longest}\n") if longest else 0

    def _next_piece(self) -> None:
        piece, again = "".join(self.piece), self._repeated()
        if piece in ("", again):
            return
        if self.fence:
            piece = piece.removesuffix("\n") + f"\n{self.fence}\n"
        self.pieces.append(piece)
        self.piece, self.cost = [], 0
        self._put(again, estimate(again))

    def _repeated(self) -> str:
        again = self.opener if self.fence else self.header
        if estimate(again) <= self.budget // 2:
            return again
        return f"{self.fence}\n" if self.fence else ""

    def _notice_table(self, line: str) -> None:
        if self.fence or "|" not in line:
            self.header = ""
        elif not self.header and "-" in line and _DELIMITER_ROW.fullmatch(line.strip()):
            above = self.piece[-1:]
            self.header = above[0] + line if above and "|" in above[0] else ""


def _cut_chunk(chunk: str, budget: int) -> list[str]:
    cutter = _Cutter(budget)
    for line in chunk.splitlines(keepends=True):
        if len(cutter.pieces) > MAX_PARTS:
            break
        cutter.add(line)
    return [*cutter.pieces, "".join(cutter.piece)]


def _head(line: str, budget: int) -> str:
    """The longest start of `line` that costs at most `budget`, at a word's end if one is near."""
    low, high = 1, max(1, min(len(line) - 1, budget // _COPIES))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if estimate(line[:middle]) <= budget else (low, middle - 1)
    space = line.rfind(" ", low // 2, low + 1)
    if space > 0:
        return line[: space + 1]
    return line[: _character_boundary(line, low)]


def _character_boundary(line: str, cut: int) -> int:
    """The nearest place at or before `cut` that parts no emoji sequence or accented letter."""
    for place in range(min(cut, len(line) - 1), max(cut - 16, 0), -1):
        if not (_joins(line[place]) or line[place - 1] == "\u200d"):
            return place
    return cut


def _joins(character: str) -> bool:
    code = ord(character)
    return (
        code == 0x200D
        or 0x300 <= code <= 0x36F
        or 0xFE00 <= code <= 0xFE0F
        or 0x1F3FB <= code <= 0x1F3FF
    )
