"""What is folded in HTML stands indented where there is none."""

from hypothesis import given, settings
from hypothesis import strategies as st

from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.unfolding import unfolded
from letta_matrix.matrix.verbatim import fenced

TRACE = """Before.

<details><summary>🔧 2 tools · 3 s</summary>

✓ `Bash` ok · 2 s

```
touch x

ls
```

✗ `Read` failed

</details>

After,
in two lines."""


def test_a_fold_is_indented_below_its_summary() -> None:
    assert unfolded(TRACE).split("\n") == [
        "Before.",
        "",
        "🔧 2 tools · 3 s",
        "  ✓ `Bash` ok · 2 s",
        "    touch x",
        "    ",
        "    ls",
        "  ✗ `Read` failed",
        "",
        "After,",
        "in two lines.",
    ]


def test_folds_in_folds_in_one_line_and_without_an_end() -> None:
    assert unfolded("<details><summary>A</summary>text</details>") == "A\n  text"
    nested = "<details><summary>A</summary>\n\n<details>\n<summary>B</summary>\n\nc"
    assert unfolded(nested) == "A\n  B\n    c"


def test_a_fold_in_code_is_code() -> None:
    for text in ("`<details>`", fenced("<details><summary>x</summary>"), "plain\n\n\ntext"):
        assert unfolded(text) == text


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        # Words behind a fence are no text: they name a language.
        st.sampled_from(["<details>", "<summary>", "</summary>", "</details>", "```\n", "`a`"])
        | st.text("ab -\n", max_size=5)
    ).map("".join)
)
def test_no_letter_is_lost(markdown: str) -> None:
    def letters(text: str) -> str:
        text = text.replace("details", "").replace("summary", "").replace("<>", "")
        return "".join(character for character in text if character in "ab")

    shown = unfolded(markdown)
    assert letters(shown) in (letters(markdown), letters(clean_text(markdown)))
