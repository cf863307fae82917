"""Emphasis in Chinese, Japanese and Korean, and that nothing changes elsewhere."""

from unittest.mock import patch

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it.parser_inline import ParserInline
from tests.unit.test_formatting import inspect

from letta_matrix.matrix.cjk_emphasis import CjkInline, is_cjk
from letta_matrix.matrix.formatting import markdown_parser, render


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("これは**「重要なこと」**です。", "これは<strong>「重要なこと」</strong>です。"),
        ("**注意：**正文", "<strong>注意：</strong>正文"),
        ("**本文。**続き", "<strong>本文。</strong>続き"),
        ("这是*（斜体）*的", "这是<em>（斜体）</em>的"),
        ("这是**“重要”**的", "这是<strong>“重要”</strong>的"),
        ("**이 용어(This term)**를", "<strong>이 용어(This term)</strong>를"),
        ("패키지는 **`npm publish`**를", "패키지는 <strong><code>npm publish</code></strong>를"),
        ("価格は~~「千円」~~です", "価格は<del>「千円」</del>です"),
        ("***「太斜」***です", "<em><strong>「太斜」</strong></em>です"),
        ("**重要🎉**です", "<strong>重要🎉</strong>です"),
        ("葛\U000e0100**（かつ）**城", "葛\U000e0100<strong>（かつ）</strong>城"),
        ("答えは||「四」||です", '答えは<span data-mx-spoiler="">「四」</span>です'),
        (
            "値は$x_1$です",
            '値は<span data-mx-maths="x_1"><code>$x_1$</code></span>です',
        ),
        # `_` is part of words as it always was.
        ("これは_「重要」_です", "これは_「重要」_です"),
        ("2**3は8、2**4は16", "2<strong>3は8、2</strong>4は16"),
        ("「** 空き **」", "「** 空き **」"),
    ],
)
def test_html(markdown: str, html: str) -> None:
    assert render(markdown).html == html


@pytest.mark.parametrize("text", "日 本 ひ カ ﾊ 한 ᅡ 、 。 「 ： （ ～ ⺀ ㈱ 〒 𠮷 ￥".split())  # noqa: SIM905
def test_theirs(text: str) -> None:
    assert is_cjk(text)


@pytest.mark.parametrize("text", [*"aé1.*_“”…—🎉⌚⭐🏽\u200d\ufe0f ", "\n", "ж", "ش", "ก"])
def test_not_theirs(text: str) -> None:
    assert not is_cjk(text)


_PIECES = st.sampled_from(
    "a é 1 . , ( ) ! “ ” … 🎉 ** * _ __ ~~ ` [ ](https://a.b) <b> </b> || $ \\".split()  # noqa: SIM905
) | st.sampled_from([" ", "\n", "\n\n"])
_CJK = st.sampled_from("日 本 は 「 」 。 ： （ ） 한 글 、".split())  # noqa: SIM905


def _upstream(markdown: str) -> str:
    """What markdown-it makes of it by itself."""
    with patch.object(CjkInline, "parse", ParserInline.parse):
        return markdown_parser(html=True).render(markdown)


@settings(max_examples=300, deadline=None)
@given(st.lists(_PIECES | st.text(max_size=3)).map("".join))
def test_nothing_changes_without_them(markdown: str) -> None:
    assert any(map(is_cjk, markdown)) or markdown_parser(html=True).render(markdown) == _upstream(
        markdown
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(_PIECES | _CJK).map("".join))
def test_html_is_whole_and_no_character_is_lost(markdown: str) -> None:
    # What follows a fence is its language, which nobody is shown.
    assume("~~~" not in markdown and "```" not in markdown)
    shown = inspect(render(markdown).html)
    assert [c for c in shown if is_cjk(c)] == [c for c in markdown if is_cjk(c)]


@settings(max_examples=200, deadline=None)
@given(_CJK, _CJK, st.text("日本は「」。（）", min_size=1), st.sampled_from(["**", "*", "~~"]))
def test_whatever_of_theirs_is_emphasised(before: str, after: str, text: str, mark: str) -> None:
    tag = {"**": "strong", "*": "em", "~~": "del"}[mark]
    html = render(f"{before}{mark}{text}{mark}{after}").html
    assert html == f"{before}<{tag}>{text}</{tag}>{after}"
