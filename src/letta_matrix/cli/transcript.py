"""An agent's answer as a terminal shows it: text that only ever grows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from letta_matrix.matrix.content import BESIDE, CURSOR, LIVE, MARKER

_AFTER_REPLY = 0.5
"""Seconds in which a long reply's next part, or a notice beside it, would follow."""

_AFTER_NOTICE = 2.0


@dataclass(slots=True)
class Transcript:
    """Follows the events of one answer; `take` says what to print next."""

    agent: str
    question: str
    _shown: dict[str, str] = field(default_factory=dict[str, str])
    _last: str = ""
    _live: set[str] = field(default_factory=set[str])
    _held: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    _patience: float | None = None

    @property
    def patience(self) -> float | None:
        """Seconds of silence after which the answer is whole; None while more must come."""
        return None if self._live else self._patience

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
        text = str(newest.get("body", ""))
        if newest.get("msgtype") == "m.notice":
            beside = _mapping(newest.get(MARKER)).get(BESIDE)
            # The tools in use are for clients that can fold and replace them.
            return "" if beside == "trace" else self._notice(target, text, ends=not beside)
        return self._reply(target, text, live=LIVE in newest or LIVE in content)

    def _answers_us(self, content: Mapping[str, Any], target: str) -> bool:
        ours = _mapping(content.get(MARKER))
        return target in self._shown or ours.get("in_reply_to") == self.question

    def _reply(self, target: str, text: str, *, live: bool) -> str:
        if live:
            self._live.add(target)
            return self._grow(target, text.removesuffix(CURSOR).rstrip())
        self._live.discard(target)
        self._patience = _AFTER_REPLY
        grown = self._grow(target, text)
        if self._live:
            return grown
        held, self._held = self._held, []
        return grown + "".join(self._grow(*notice) for notice in held)

    def _notice(self, target: str, text: str, *, ends: bool) -> str:
        """A notice beside a reply that still grows is shown below it, as Matrix clients do."""
        if ends:
            self._patience = _AFTER_NOTICE
        if self._live and ends:
            self._held.append((target, text))
            return ""
        return self._grow(target, text)

    def _grow(self, target: str, text: str) -> str:
        before = self._shown.get(target)
        self._shown[target] = text
        if before is not None and target == self._last and text.startswith(before):
            return text[len(before) :]
        first, self._last = not self._last, target
        return text if first else f"\n{text}"


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
