"""Markdown to Matrix HTML: what it looks like, what is lost (nothing), what gets through."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.calls import calls

from letta_matrix.matrix.formatting import Formatted, clean_text, render

TAGS = set(
    # The client-server specification's list, written down a second time on purpose.
    "del h1 h2 h3 h4 h5 h6 blockquote p a ul ol sup sub li b i u strong em s code hr br div "  # noqa: SIM905
    "table thead tbody tr th td caption pre span img details summary".split()
)
ATTRIBUTES = {
    "span": {"data-mx-bg-color", "data-mx-color", "data-mx-spoiler", "data-mx-maths"},
    "a": {"target", "href"},
    "img": {"width", "height", "alt", "title", "src"},
    "ol": {"start"},
    "code": {"class"},
    "div": {"data-mx-maths"},
}
SCHEMES = ("https://", "http://", "ftp://", "mailto:", "magnet:", "matrix:")


class Inspector(HTMLParser):
    """Asserts that a piece of HTML holds nothing outside the specification's list."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        for name, value in attrs:
            assert name in ATTRIBUTES.get(tag, set())
            if name == "href":
                assert (value or "").lower().startswith(SCHEMES)
            if name == "src":
                assert (value or "").startswith("mxc://")
            if name == "class":
                assert (value or "").startswith("language-")
        if tag not in ("br", "hr", "img"):
            self.depth += 1
            assert self.depth <= 100

    def handle_endtag(self, tag: str) -> None:
        self.depth -= 1

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment got through: {data}")


def inspect(html: str) -> str:
    inspector = Inspector()
    inspector.feed(html)
    inspector.close()
    assert inspector.depth == 0
    return inspector.text


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "two\nlines",
        "two\n\nparagraphs",
        "$5 and $6",
        "US$5/US$6, $HOME/$USER",
        "costs $5, or 5$ here",
        "an **unfinished",
        "a||b||c",
        "snake_case_name and 2 * 3 * 4",
        "[1]: https://example.org",
        "title\n-",
        "title\n===",
        "[x](javascript:alert(1))",
        "[file](./notes.md)",
        "@room and @alice:example.org",
        "family 👩\u200d👩\u200d👧",
    ],
)
def test_plain_text_shows_as_written(text: str) -> None:
    formatted = render(text)
    assert formatted.body == text
    assert [*inspect(formatted.html).split()] == text.split()
    assert set(re.findall(r"<(\w+)", formatted.html)) <= {"p", "br"}


@pytest.mark.parametrize(
    "text",
    [
        "One line.\nAnd another with **words**, `code` and\n\n- an item\n- another",
        "<!-- nothing to see -->",
        "<b>" * 150 + "x",
        "これは**「重要」**です。",
    ],
)
def test_a_text_that_grows_has_html_from_its_first_letter(text: str) -> None:
    for end in range(1, len(text) + 1):
        assert render(text[:end]).html


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("a **b** *c* `d` ~~e~~", "a <strong>b</strong> <em>c</em> <code>d</code> <del>e</del>"),
        ("<s>a</s> ~~*b* c~~", "<s>a</s> <del><em>b</em> c</del>"),
        ("a\n**b**", "a<br>\n<strong>b</strong>"),
        ("```py\nx < 1\n```", '<pre><code class="language-py">x &lt; 1\n</code></pre>'),
        ("```\nx\n```", "<pre><code>x\n</code></pre>"),
        ("3. a\n4. b", '<ol start="3">\n<li>a</li>\n<li>b</li>\n</ol>'),
        ("- [ ] a\n- [x] b", "<ul>\n<li>☐ a</li>\n<li>☑ b</li>\n</ul>"),
        ("[a](https://b.c)", '<a href="https://b.c">a</a>'),
        ("[a](matrix:u/b:c)", '<a href="matrix:u/b:c">a</a>'),
        ("![a](https://b.c/d.png)", '<a href="https://b.c/d.png">a</a>'),
        ("**x** ![a](mxc://b/c)", "<strong>x</strong> ![a](mxc://b/c)"),
        ("||so *it* ends||", '<span data-mx-spoiler="">so <em>it</em> ends</span>'),
        ("a\\*b", "a*b"),
        ("a\n\n---\nb", "<p>a</p>\n<hr>\n<p>b</p>"),
        ("List<String> and <kbd>x</kbd>", "List&lt;String&gt; and &lt;kbd&gt;x&lt;/kbd&gt;"),
        ("H<sub>2</sub>O <!-- psst -->", "H<sub>2</sub>O "),
        ("<mx-reply>x</mx-reply>", "&lt;mx-reply&gt;x&lt;/mx-reply&gt;"),
        ('<b style="x" onclick="y">z</b>', "<b>z</b>"),
        ('<span data-mx-color="#ff0000">r</span>', '<span data-mx-color="#ff0000">r</span>'),
        ('<span data-mx-color="red">r</span>', "<span>r</span>"),
    ],
)
def test_html(markdown: str, html: str) -> None:
    assert render(markdown) == Formatted(markdown, html)


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("$x_1 * y_1$ z", '<span data-mx-maths="x_1 * y_1"><code>$x_1 * y_1$</code></span> z'),
        ("\\(a_1\\) z", '<span data-mx-maths="a_1"><code>\\(a_1\\)</code></span> z'),
        ("see $$a$$", 'see <span data-mx-maths="a"><code>$$a$$</code></span>'),
        (
            "$$\n- a\n= b\n$$",
            '<div data-mx-maths="- a\n= b"><pre><code>$$\n- a\n= b\n$$</code></pre></div>',
        ),
        ("\\[\nx\n\\]", '<div data-mx-maths="x"><pre><code>\\[\nx\n\\]</code></pre></div>'),
        ("`$x$` **y**", "<code>$x$</code> <strong>y</strong>"),
        ("$$ is **not**", "$$ is <strong>not</strong>"),
    ],
)
def test_formulas_stay_readable(markdown: str, html: str) -> None:
    assert render(markdown) == Formatted(markdown, html)


def test_table() -> None:
    html = render("| a | b |\n|---|--:|\n| 1 | 2 |").html
    assert "<th>b</th>" in html
    assert "<td>2</td>" in html
    assert "style" not in html


def test_details_hold_markdown() -> None:
    html = render("<details><summary>S</summary>\n\n**x**\n\n</details>").html
    assert html == "<details><summary>S</summary>\n<p><strong>x</strong></p>\n</details>"


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("```py\nx = 1", '<pre><code class="language-py">x = 1▍</code></pre>'),
        ("a **b**", "a <strong>b▍</strong>"),
        ("- a\n- *b* c", "<ul>\n<li>a</li>\n<li><em>b</em> c▍</li>\n</ul>"),
        ("<details><summary>S", "<details><summary>S▍</summary></details>"),
        ("*a*\n\n---", "<p><em>a</em></p>\n<hr>▍"),
    ],
)
def test_cursor_follows_the_last_word_of_unfinished_markdown(markdown: str, html: str) -> None:
    assert render(markdown).with_cursor("▍") == Formatted(markdown + "▍", html)


def test_half_a_table_shows_as_written() -> None:
    assert render("| a | b |\n|--").html == "| a | b |<br>\n|--"


def test_reordering_and_invisible_controls_go_and_joiners_stay() -> None:
    assert clean_text("a\u202eb\u2066c\u2069\x00\x1b[0m\td") == "abc[0m\td"
    assert clean_text("👩\u200d👧 \u0646\u200c") == "👩\u200d👧 \u0646\u200c"
    assert clean_text("a\r\nb\rc\n") == "a\nb\nc"


def test_surrogates_are_joined_or_replaced() -> None:
    assert clean_text("\ud83d\ude00 \ud83d") == "😀 \ufffd"


def test_deep_nesting_falls_back_to_plain_text() -> None:
    assert render("<b>" * 150 + "\nx").html == "&lt;b&gt;" * 150 + "<br>\nx"
    assert render("<b>" * 50 + "x").html == "<b>" * 50 + "x" + "</b>" * 50


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<a href='java\nscript:alert(1)'>x</a>",
        "<a href=' javascript:alert(1)'>x</a>",
        "<svg><style><img src=x onerror=alert(1)></style></svg>",
        "<iframe srcdoc='<script>1</script>'></iframe>",
        "<b\x00 onclick=1>x</b>",
        '![x](mxc://a/b"onerror="alert(1))',
        '```"><script>alert(1)</script>\nx\n```',
        '$"><script>alert(1)</script>^2$',
        "<details open ontoggle=alert(1)>x</details>",
        "[x](data:text/html;base64,AAAA) <base href=//evil>",
        '<code class="language-x evil" style=x>y</code>',
    ],
)
def test_known_attacks(text: str) -> None:
    inspect(render(text).html)


_FRAGMENTS = st.sampled_from(
    "<script> </script> <img src=x onerror=1> <b> </b> <details> <a href='javascript:1'> <!-- "  # noqa: SIM905
    "--> ``` ** * _ || $ $$ \\( \\) [ ]( ) ![ | |--| # > - 1. ~~ & &lt; &#0; \" ' < > \\ ` <style> "
    "<svg/onload=1> javascript: https://a.b <mx-reply> </p> <table><td> <!DOCTYPE <?x ?>".split(" ")
)
_MARKDOWN = st.lists(_FRAGMENTS | st.text(max_size=8) | st.sampled_from(["\n", "\n\n", " "])).map(
    "".join
)


@settings(max_examples=150, deadline=None)
@given(_MARKDOWN)
def test_whatever_is_written_the_html_is_safe(markdown: str) -> None:
    formatted = render(markdown)
    inspect(formatted.html)
    inspect(formatted.with_cursor("▍").html)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.from_regex(r"[a-z]{1,6}[*_$|~<>\[\]()!&]{0,2}", fullmatch=True)).map(" ".join))
def test_no_word_is_lost(markdown: str) -> None:
    shown = inspect(render(markdown).html)
    letters = "".join(character for character in shown if character.isalpha())
    written = "".join(character for character in markdown if character.isalpha())
    assert [*letters] == [*written]


@pytest.mark.parametrize(
    "piece", ["\\(", "$$x\n", "<!--", "||", "$a ", "<b", "> ", "**a", "[", "| "]
)
def test_hostile_repetition_costs_no_more_than_its_length(piece: str) -> None:
    once, twice = (calls(lambda times=times: render(piece * times)) for times in (250, 500))
    assert twice < 2.5 * once
    # Patterns count as one call each; at this length a bad one has no end.
    assert render(piece * 2_000).body
