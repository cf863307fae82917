"""What an approval shows is what would run, whatever an agent puts into it."""

import html
import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta_matrix.common.json_fields import mapping, parse_json
from letta_matrix.conversations.approval_question import to_the_letter
from letta_matrix.conversations.approval_text import denial, in_full, outcome, prompt, warnings
from letta_matrix.matrix.content import content_size, text_content
from letta_matrix.matrix.formatting import render
from letta_matrix.matrix.splitting import CONTENT_LIMIT
from letta_matrix.matrix.verbatim import fenced, inline_code, visible
from letta_matrix.store.approvals import Approval, ApprovalStatus

_BLOCK = re.compile(r"<pre><code(?: class=\"language-json\")?>(.*?)\n?</code></pre>", re.DOTALL)
_TAG = re.compile(r"</?([a-zA-Z0-9]+)[^>]*>")

texts = st.text(max_size=60) | st.sampled_from(
    ["`", "```\n# x", "</code></pre>", "\u202e", "\u200b", "||x||", "$x$", "~~~", "\r\n", "\x1b[2J"]
)
values = st.recursive(
    texts | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def approval(arguments: dict[str, object], **fields: object) -> Approval:
    now = time.time()
    base: dict[str, object] = {
        "key": "k",
        "turn_id": "t",
        "approval_id": "a",
        "agent_id": "agent-1",
        "room_id": "!1:test",
        "thread_id": "",
        "requester": "@ann:test",
        "tool": "Bash",
        "arguments": arguments,
        "always": True,
        "prompt_txn": "p",
        "asked_at": now,
        "expires_at": now + 1800,
    }
    return Approval(**base | fields)  # pyright: ignore[reportArgumentType]


def blocks(markdown: str) -> list[str]:
    """The code blocks that a client shows."""
    return [html.unescape(block) for block in _BLOCK.findall(render(markdown).html)]


def asked(arguments: dict[str, object], **fields: object) -> str:
    markdown = prompt(approval(arguments, **fields), "`@ann:test` or an admin")
    assert markdown is not None
    return markdown


@given(st.dictionaries(texts, values, max_size=4))
def test_the_arguments_are_shown_to_the_last_character(arguments: dict[str, object]) -> None:
    markdown = asked(arguments)
    shown = blocks(markdown)
    assert shown, "no code block"
    for block in [*shown, markdown]:
        assert visible(block, keep="\n\t") == block or "♾️" in block
    if len(arguments) == 1 and len(shown) == 1 and not markdown.count("```json"):
        assert shown == list(arguments.values())
    else:
        assert json.loads(shown[-1]) == arguments
    formatted = render(markdown).html
    known = {"p", "pre", "code", "br", "strong", "details", "summary"}
    assert set(_TAG.findall(formatted)) <= known


def test_a_command_is_shown_as_it_would_be_typed() -> None:
    (only,) = blocks(asked({"command": "for i in *; do\n  echo `$i`\ndone"}))
    assert only == "for i in *; do\n  echo `$i`\ndone"
    command, whole = blocks(asked({"command": "ls", "timeout": 5}))
    assert command == "ls"
    assert json.loads(whole) == {"command": "ls", "timeout": 5}


@pytest.mark.parametrize(
    "hidden",
    ["\u202e", "\u200b", "\ufeff", "\u2066", "\u00a0", "\u3164", "\x1b", "\x00", "\U000e0041"],
)
def test_hidden_characters_show(hidden: str) -> None:
    markdown = asked({"command": f"rm {hidden} x"})
    assert hidden not in markdown
    assert json.dumps(hidden)[1:-1] in blocks(markdown)[0]
    assert "hidden characters" in markdown
    assert json.loads(blocks(markdown)[-1]) == {"command": f"rm {hidden} x"}


@pytest.mark.parametrize("hidden", ["\u202e", "\u034f", "\u00a0", "\u180e", "\U000e0041"])
def test_pages_show_what_is_hidden_too(hidden: str) -> None:
    one = approval({f"na{hidden}me": f"rm {hidden}"}, tool=f"Ba{hidden}sh")
    escaped = json.dumps(hidden)[1:-1]
    (name, text), whole = in_full(one)
    assert (name, text) == (f"na{escaped}me", f"rm {escaped}")
    assert whole[0] == ""
    assert json.loads(whole[1]) == one.arguments
    assert any("hidden characters" in warning for warning in warnings(one))


def test_on_pages_no_text_looks_like_another_argument() -> None:
    assert in_full(approval({"a": "x\ncommand: ls"})) == [("a", "x\ncommand: ls")]
    assert in_full(approval({"a": "x", "b": 1})) == [("", '{\n  "a": "x",\n  "b": 1\n}')]
    assert in_full(approval({"": "x"})) == [("", '{\n  "": "x"\n}')]


@pytest.mark.parametrize("tool", ["Agent", "Task", "Workflow"])
def test_that_agents_are_started_is_said_in_the_room_and_on_pages(tool: str) -> None:
    (warning,) = warnings(approval({"prompt": "go"}, tool=tool))
    assert "without asking" in warning
    assert f"⚠️ {warning}" in asked({"prompt": "go"}, tool=tool)


def test_what_looks_like_an_escape_is_told_from_one() -> None:
    markdown = asked({"command": "echo '\\u202e'"})
    assert "hidden characters" not in markdown
    assert blocks(markdown) == ["echo '\\u202e'"]


@pytest.mark.parametrize("command", ["x" * 200, "ls\n" * 30, "ls" + " " * 300 + "; rm -rf ~"])
def test_what_may_be_out_of_sight_is_pointed_at(command: str) -> None:
    assert "scroll to see all" in asked({"command": command, "timeout": 5})
    assert "scroll" not in asked({"command": "ls"})


def test_blanks_at_the_end_are_not_lost() -> None:
    assert json.loads(blocks(asked({"command": "ls  \n"}))[-1]) == {"command": "ls  \n"}


@pytest.mark.parametrize("filler", ["x", "\n", '"', "<", "&", "\\", "\u202e", "é", "`"])
def test_every_size_fits_into_an_event_or_is_refused(filler: str) -> None:
    sizes = [10**power for power in range(6)] + [9_000, 15_000, 25_000, 55_000]
    fits: list[int] = []
    for size in sizes:
        one = approval({"command": filler * size})
        markdown = prompt(one, "an admin")
        if markdown is None:
            continue
        fits.append(size)
        marker = {"txn": "x" * 40, "turn_id": "x" * 40, "run_id": "x" * 60}
        content = text_content(markdown, marker=marker, msgtype="m.notice")
        assert content_size(content) <= CONTENT_LIMIT
        assert json.dumps(filler)[1:-1] in markdown or filler in markdown
    assert 1_000 in fits
    assert 100_000 not in fits


def test_a_tool_whose_name_is_too_long_is_not_asked_for() -> None:
    assert prompt(approval({}, tool="x" * 500), "an admin") is None


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(ApprovalStatus))
def test_the_end_is_one_harmless_line(tool: str, reason: str, status: ApprovalStatus) -> None:
    one = approval({"command": tool}, tool=tool, reason=reason, decided_by="@a:b", status=status)
    text = outcome(one)
    assert "\n" not in text
    assert visible(text) == text or "♾️" in text
    assert "script" not in _TAG.findall(render(text).html)
    assert denial(one).startswith("Denied")


@given(st.text(max_size=80))
def test_code_cannot_be_broken_out_of(text: str) -> None:
    shown = visible(text, keep="\n\t")
    assert blocks(f"a\n\n{fenced(text)}\n\nb")[0] == shown
    span = html.unescape(render(f"a {inline_code(text)} b").html)
    assert span == f"a <code>{visible(text) or ' '}</code> b"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "1 second"),
        (45, "45 seconds"),
        (60, "1 minute"),
        (90, "90 seconds"),
        (1800, "30 minutes"),
        (3600, "1 hour"),
        (5400, "90 minutes"),
        (7200, "2 hours"),
        (9000, "2.5 hours"),
    ],
)
def test_times_read_as_people_say_them(seconds: int, words: str) -> None:
    one = approval({}, asked_at=0.0, expires_at=float(seconds), status=ApprovalStatus.EXPIRED)
    assert outcome(one).endswith(f"within {words}")


def test_numbers_are_shown_and_compared_to_the_last_digit() -> None:
    """A runtime runs its own arguments: what rounds to what was allowed is something else."""
    one, other = (
        mapping(parse_json(f'{{"account": {number}}}'))
        for number in (1234567890123456789, 1234567890123456800)
    )
    assert one == {"account": 1234567890123456789}
    assert not to_the_letter(one, other)
