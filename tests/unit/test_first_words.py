"""When a reply has something to say."""

import pytest

from letta_matrix.conversations.reply_text import are_enough, say_something


@pytest.mark.parametrize(
    "text",
    ["Yes. And", "Yes!\nAnd", "## Title\n\n", "これは。", "x" * 60, '"Well?" he', "- one\n- t"],
)
def test_a_clause_is_enough(text: str) -> None:
    assert are_enough(text)


@pytest.mark.parametrize("text", ["", "Hello", "Version 3.", "Hello there, I a", "##", "- ", "**"])
def test_less_is_not(text: str) -> None:
    assert not are_enough(text)


@pytest.mark.parametrize(("text", "says"), [("##", False), ("`", False), ("1", True), ("é", True)])
def test_marks_alone_say_nothing(text: str, says: bool) -> None:
    assert say_something(text) is says
