"""YAML as people write it by hand: whatever stands there, it costs no more than its length, and
its faults are told without its words, which may be a token's."""

import re
from pathlib import Path
from typing import Any, cast

import yaml

LARGEST = 1_000_000
"""Bytes of a file, or characters of a variable."""
_MOST, _DEEPEST = 50_000, 40
"""Values, those that aliases repeat counted each time, and how far they stand in each other."""

# As "expected '<document start>'", or a single character.
_HARMLESS = re.compile(r"'(?:<[a-z ]+>|\\?.)'")


_MERGE = "tag:yaml.org,2002:merge"


class YamlFault(ValueError):
    """Why a text is no YAML that can be used, and where; nothing of what stands there."""


def read(path: Path) -> object:
    """What a file holds. Raises YamlFault, OSError, UnicodeDecodeError."""
    with path.open("rb") as file:
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise YamlFault(f"it has more than {LARGEST} bytes")
    return parse(raw.decode("utf-8"))


def parse(text: str) -> object:
    """What it holds, in texts, numbers, lists and so on. Raises YamlFault."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        raise YamlFault(_problem(error)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlFault(f"there is a control character (line {line})") from None


def _problem(error: yaml.MarkedYAMLError) -> str:
    """Place and problem, without what stands there."""
    problem, mark = error.problem or "", error.problem_mark
    if problem == "second occurrence":
        problem = "an anchor stands there twice"
    if re.search(r"['\"]", _HARMLESS.sub("", problem)):
        problem = re.sub(r"['\"].*['\"]", "...", problem)
    if problem.startswith(("found undefined alias", "could not determine a constructor")):
        problem += "; a text that begins with * or ! wants quotes"
    return (
        problem if mark is None else f"{problem} (line {mark.line + 1}, column {mark.column + 1})"
    )


class _Loader(yaml.SafeLoader):
    """Refuses what would cost more than it is worth, and what can only be a mistake."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0
        self._sizes: dict[yaml.Node, int] = {}
        self._merged: set[yaml.Node] = set()

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = cast("Any", self.peek_event()).start_mark
        before = self._count
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _fault("it is nested too deeply", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and is_alias and node not in self._sizes:
            raise _fault("an alias stands within what it repeats", mark)
        self._count += self._sizes[node] if node is not None and is_alias else 1
        if self._count > _MOST:
            raise _fault(f"there are more than {_MOST} values", mark)
        if node is not None and not is_alias:
            self._sizes[node] = self._count - before
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # What is merged has keys of its own in front of the same ones.
        if node not in self._merged:
            self._merged.add(node)
            _refuse_twice(node)
            super().flatten_mapping(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            # A day that no month has, a number of thousands of digits, `!!bool maybe`.
            kind = node.tag.rpartition(":")[2]
            raise _fault(f"it is read as {kind}, and is none", node.start_mark) from error


def _refuse_twice(node: yaml.MappingNode) -> None:
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        name = (key.tag, key.value)
        if name in seen:
            raise _fault("a key stands there twice", key.start_mark)
        seen.add(name)


def _fault(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
