"""An agent's answer as a terminal shows it: text that only ever grows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from letta_matrix.matrix.content import CURSOR, LIVE, MARKER


@dataclass(slots=True)
class Transcript:
    """Follows the events of one answer; `take` says what to print next."""

    agent: str
    question: str
    finished: bool = False
    _shown: dict[str, str] = field(default_factory=dict[str, str])
    _last: str = ""

    def take(self, event: Mapping[str, Any]) -> str:
        """The text that `event` adds to the terminal, often none."""
        if event.get("type") != "m.room.message" or event.get("sender") != self.agent:
            return ""
        content = _mapping(event.get("content"))
        relation = _mapping(content.get("m.relates_to"))
        edits = relation.get("rel_type") == "m.replace"
        target = str(relation["event_id"]) if edits else str(event.get("event_id"))
        newest = _mapping(content.get("m.new_content")) if edits else content
        if not self._answers_us(newest, target):
            return ""
        live = LIVE in newest or LIVE in content
        self.finished = self.finished or not live
        text = str(newest.get("body", ""))
        return self._grow(target, text.removesuffix(CURSOR).rstrip() if live else text)

    def _answers_us(self, content: Mapping[str, Any], target: str) -> bool:
        ours = _mapping(content.get(MARKER))
        return target in self._shown or ours.get("in_reply_to") == self.question

    def _grow(self, target: str, text: str) -> str:
        before = self._shown.get(target)
        self._shown[target] = text
        if before is not None and target == self._last and text.startswith(before):
            return text[len(before) :]
        first, self._last = not self._last, target
        return text if first else f"\n{text}"


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
