"""Command lines as people and their phones type them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta_matrix.doors.chat.command import Command, CommandContext, CommandFault
from letta_matrix.doors.chat.parse import parse_arguments, split_line
from letta_matrix.doors.chat.registry import all_commands
from letta_matrix.doors.chat.texts import clip, label, span
from letta_matrix.matrix.formatting import render
from letta_matrix.matrix.verbatim import link, visible
from letta_matrix.operations.typed import Argument, Kind


async def nothing(_context: CommandContext) -> None:
    return None


def command(*arguments: Argument) -> Command:
    return Command("do", nothing, "does it.", arguments)


CREATE = command(
    Argument("NAME", Kind.TEXT, required=True),
    Argument("runtime", Kind.OPTION),
    Argument("yes", Kind.FLAG),
)


@pytest.mark.parametrize(
    ("line", "name", "words"),
    [
        ("new", "new", []),
        ("  NEW  ", "new", []),
        ("", "", []),
        ('rename "Ada L" Bob', "rename", ["Ada L", "Bob"]),
        ("rename 'Ada L' Bob", "rename", ["Ada L", "Bob"]),
        ("rename “Ada L” Bob", "rename", ["Ada L", "Bob"]),
        ("deny don't do, it's 5 o'clock", "deny", ["don't", "do,", "it's", "5", "o'clock"]),
        ('deny say "no', "deny", ["say", '"no']),
        ('deny ""', "deny", [""]),
        ("create x --runtime=local", "create", ["x", "--runtime", "local"]),
        ("deny\n2\tbecause", "deny", ["2", "because"]),
    ],
)
def test_a_line_is_split(line: str, name: str, words: list[str]) -> None:
    assert split_line(line) == (name, words)


@pytest.mark.parametrize("quote", "“'\"")
def test_a_long_line_of_open_quotes_comes_to_an_end(quote: str) -> None:
    name, words = split_line(f"{quote} " * 10_000_000)
    assert name in (quote, " ")
    assert len(words) < 2_000


@given(st.text())
def test_any_line_can_be_split_and_given_to_any_command(line: str) -> None:
    _, words = split_line(line)
    for one in all_commands():
        with contextlib.suppress(CommandFault):
            names = {argument.name for argument in one.arguments}
            assert set(parse_arguments(one, words).values) <= names


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("do Ada", {"NAME": "Ada"}),
        ("do Ada Love Lace --runtime local", {"NAME": "Ada Love Lace", "runtime": "local"}),
        ("do --runtime local Ada --yes", {"NAME": "Ada", "runtime": "local", "yes": True}),
        ("do Ada —runtime local –yes", {"NAME": "Ada", "runtime": "local", "yes": True}),
        ("do Ada --RUNTIME local", {"NAME": "Ada", "runtime": "local"}),
        ('do "Ada --"', {"NAME": "Ada --"}),
    ],
)
def test_options_and_text(line: str, values: dict[str, object]) -> None:
    assert parse_arguments(CREATE, split_line(line)[1]).values == values


@pytest.mark.parametrize(
    ("arguments", "line", "fault"),
    [
        ((Argument("N", Kind.NUMBER),), "do x", "`!do` takes a number, got `x`."),
        ((Argument("N", Kind.NUMBER),), "do 0", "`!do` takes a number, got `0`."),
        ((Argument("N", Kind.NUMBER),), "do -1", "`!do` takes a number, got `-1`."),
        ((Argument("N", Kind.NUMBER),), "do ²", "`!do` takes a number, got `²`."),
        ((Argument("N", Kind.NUMBER),), "do 1 2", "`!do` takes no `2`: `!do [N]`."),
        ((), "do it", "`!do` takes no `it`: `!do`."),
        (
            (Argument("on|off", Kind.CHOICE, choices=("on", "off")),),
            "do maybe",
            "`!do` takes `on` or `off`, got `maybe`.",
        ),
        (CREATE.arguments, "do", "`!do` needs `NAME`: `!do NAME [--runtime RUNTIME] [--yes]`."),
        (
            CREATE.arguments,
            "do x --model y",
            "`!do` has no `--model`: `!do NAME [--runtime RUNTIME] [--yes]`.",
        ),
        (
            CREATE.arguments,
            "do x --runtime",
            "`--runtime` needs a value: `!do NAME [--runtime RUNTIME] [--yes]`.",
        ),
    ],
)
def test_a_fault_names_the_word(arguments: tuple[Argument, ...], line: str, fault: str) -> None:
    with pytest.raises(CommandFault) as raised:
        parse_arguments(command(*arguments), split_line(line)[1])
    assert str(raised.value) == fault


def test_commands_have_names_of_their_own_and_help() -> None:
    names = [name for one in all_commands() for name in (one.name, *one.aliases)]
    assert len(names) == len(set(names))
    assert all(one.help.endswith(".") and one.name == one.name.lower() for one in all_commands())


HOSTILE = [
    "**bold** _it_ `code` ~~gone~~ ||spoiler|| $x^2$ \\(y\\)",
    "[click](https://evil.example) ![i](mxc://x/y) <b>b</b> <!-- c --> &lt; &#60;",
    "# title",
    "- [ ] task",
    "> quote",
    "1\n\n# two",
    "`",
    "``",
    "\\",
    "___",
    "a*",
    "\u202eright to left\u2066",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_words_of_others_show_as_written(text: str) -> None:
    html = render(f"x {link(label(text, 'agent-1'), '#a:test')} y").html
    before = 'x <a href="https://matrix.to/#/%23a%3Atest"><code>'
    assert html.startswith(before)
    shown, _, after = html.removeprefix(before).partition("</code></a>")
    # The link's target follows a name that looks like another one.
    assert after in (" y", " (https://matrix.to/#/%23a%3Atest) y")
    assert "<" not in shown
    assert _unescaped(shown) == visible(text)


def test_agents_are_called_by_their_names() -> None:
    assert label("my_agent-2 (R&D), v1.0!", "agent-1") == "`my_agent-2 (R&D), v1.0!`"
    assert label(" \n", "agent-1") == "`agent-1`"
    assert label("x" * 100, "agent-1") == f"`{'x' * 80}…`"


def test_a_link_leads_to_an_alias() -> None:
    html = render(link("Ada", "#agent_x:test")).html
    assert html == '<a href="https://matrix.to/#/%23agent_x%3Atest">Ada</a>'


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_lengths_of_time(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


def test_an_answer_is_clipped_at_a_line() -> None:
    assert clip("ä" * 10, 20) == "ä" * 10
    assert clip("one\ntwo\nthree", 9) == "one\ntwo\n\n… and more than fits here."


def _unescaped(html: str) -> str:
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        html = html.replace(entity, character)
    return html
