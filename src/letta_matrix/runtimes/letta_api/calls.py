"""Tool calls whose arguments come in pieces."""

import re
from typing import cast

from letta_matrix.common.json_fields import parse_json

_MARKS = re.compile(r'\\(?:.|\Z)|["{}]', re.DOTALL)


class Call:
    """A tool call as far as it came; its arguments are a JSON object once they are whole."""

    def __init__(self, call_id: str) -> None:
        self.call_id = call_id
        self.name = ""
        self.whole = False
        self._pieces: list[str] = []
        self._depth = 0
        self._quoted = False
        self._escape = ""
        self._closed = False

    @property
    def arguments(self) -> str:
        return "".join(self._pieces)

    @property
    def fields(self) -> dict[str, object]:
        """The arguments by name; those that are no object stand under `arguments`."""
        value = parse_json(self.arguments)
        if isinstance(value, dict):
            return cast("dict[str, object]", value)
        return {"arguments": self.arguments} if self._pieces else {}

    def add(self, piece: str) -> None:
        """Take more of the arguments; they are parsed once, where an object closes."""
        if not piece:
            return
        self._pieces.append(piece)
        if not self._closed and self._closes(piece):
            self._closed = True
            self.whole = isinstance(parse_json(self.arguments), dict)

    def _closes(self, piece: str) -> bool:
        text, self._escape = self._escape + piece, ""
        for mark in cast("list[str]", _MARKS.findall(text)):
            if mark == "\\":
                self._escape = mark
            elif mark == '"':
                self._quoted = not self._quoted
            elif not self._quoted and mark in "{}":
                self._depth += 1 if mark == "{" else -1
                if self._depth <= 0:
                    return True
        return False
