"""Whom a message addresses, and whom an agent's words may ping."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta_matrix.matrix.mentions import mentioned, named_by_agent, names_in, with_names

ADA, ADAM = "@agent_ada:test", "@agent_ada_m:test"
GHOSTS = (ADA, ADAM, "@agent_a.b:test")


def html(formatted: str, body: str = "x") -> dict[str, Any]:
    return {"body": body, "format": "org.matrix.custom.html", "formatted_body": formatted}


def test_m_mentions_decides_alone() -> None:
    content = {"body": ADAM, "m.mentions": {"user_ids": [ADA, "@bob:test", 7, None]}}
    assert mentioned(content, GHOSTS) == {ADA}


@pytest.mark.parametrize(
    "value", [{}, {"user_ids": []}, {"user_ids": ADA}, {"room": True}, None, 7, [ADA], "x"]
)
def test_with_m_mentions_pills_do_not_count_and_what_is_typed_does(value: object) -> None:
    pill = f'<a href="https://matrix.to/#/{ADA}">Ada</a>'
    assert mentioned({**html(pill, "Ada"), "m.mentions": value}, GHOSTS) == set()
    for text in (f"{ADA} hi", "@agent_ada: hi", f"is it you, {ADA}?"):
        assert mentioned({**html(pill, text), "m.mentions": value}, GHOSTS) == {ADA}
    for text in (f"`{ADA}`", f"> {ADA} hi", f"```\n{ADA}\n```", f"https://matrix.to/#/{ADA}"):
        assert mentioned({**html(pill, text), "m.mentions": value}, GHOSTS) == set()


def test_who_is_typed_counts_beside_others_who_are_picked() -> None:
    content = {"body": f"{ADA} what does he mean?", "m.mentions": {"user_ids": ["@bob:test"]}}
    assert mentioned(content, GHOSTS) == {ADA}
    assert names_in(content) == {ADA, "@bob:test"}


@pytest.mark.parametrize(
    "target",
    [
        f"https://matrix.to/#/{ADA}",
        f"https://matrix.to/#/{ADA}?via=test",
        "https://matrix.to/#/%40agent_ada%3Atest",
        "matrix:u/agent_ada:test",
        "matrix:u/agent_ada:test?action=chat",
    ],
)
def test_pills(target: str) -> None:
    assert mentioned(html(f'hi <a href="{target}">Ada</a>', "hi Ada"), GHOSTS) == {ADA}


@pytest.mark.parametrize(
    "formatted",
    [
        f'<mx-reply><a href="https://matrix.to/#/{ADA}">Ada</a></mx-reply>ok',
        f'<pre><code><a href="https://matrix.to/#/{ADA}">Ada</a></code></pre>',
        f'<blockquote><p><a href="https://matrix.to/#/{ADA}">Ada</a></p></blockquote>',
        '<a href="https://matrix.to/#/@agent_ada:test.evil">Ada</a>',
        f'<a href="https://evil.test/#/{ADA}">Ada</a>',
        f'<a href="https://matrix.to/#/!room:test/$event?{ADA}">a message</a>',
        f'<b title="https://matrix.to/#/{ADA}">Ada</b>',
    ],
)
def test_what_is_no_pill(formatted: str) -> None:
    assert mentioned(html(formatted), GHOSTS) == set()


def test_pills_go_before_words() -> None:
    content = html(f'<a href="https://matrix.to/#/{ADA}">x</a>', f"x {ADAM}")
    assert mentioned(content, GHOSTS) == {ADA}


@pytest.mark.parametrize(
    "body",
    [
        "@agent_ada:test",
        "hello @agent_ada:test, are you there?",
        "(@agent_ada:test)",
        "@agent_ada: what is this",
        "what is this, @agent_ada?",
        "@agent_ada.",
        "@agent_ada",
        "**@agent_ada**: hi",
        "a ` b @agent_ada",
    ],
)
def test_words(body: str) -> None:
    assert mentioned({"body": body}, GHOSTS) == {ADA}


@pytest.mark.parametrize(
    "body",
    [
        "agent_ada",
        "Ada",
        "@agent_adam",
        "@agent_ad",
        "x@agent_ada:test",
        "@agent_ada:test2",
        "@agent_ada:test:8448",
        "@agent_ada:evil.org",
        "@agent_ada@example.org",
        "@@agent_ada",
        "https://x.test/@agent_ada",
        "`@agent_ada`",
        "``a ` @agent_ada``",
        "```\n@agent_ada\n```",
        "```py\n@agent_ada",
        "> <@agent_ada:test> hello\n\nyes",
        "",
        7,
    ],
)
def test_what_is_no_word_for_ada(body: object) -> None:
    assert mentioned({"body": body}, GHOSTS) == set()


def test_after_a_quoted_reply_and_code() -> None:
    content = {"body": f"> <{ADAM}> hello\n> @x\n\n`no` ```\nno\n``` {ADA} yes"}
    assert mentioned(content, GHOSTS) == {ADA}


def test_a_dot_inside_a_localpart() -> None:
    assert mentioned({"body": "@agent_a.b."}, GHOSTS) == {"@agent_a.b:test"}


@given(st.text(), st.text())
def test_anything_can_be_read(body: str, formatted: str) -> None:
    assert mentioned(html(formatted, body), GHOSTS) <= set(GHOSTS)


@pytest.mark.parametrize(
    "text",
    [
        "".join("`" * i + "a" for i in range(1, 360)),
        "@a" * 500_000,
        "<pre></a>" * 500_000,
        "```\n" * 500_000,
        "@a:" + "a." * 30_000 + "@" + "@a:" + "a." * 500_000 + "@",
    ],
    ids=["backticks", "names", "tags", "fences", "servers"],
)
def test_hostile_texts_come_to_an_end(text: str) -> None:
    # So long that what reads them again for each of their characters has no end.
    assert mentioned(html(text, text), GHOSTS) == set()
    assert named_by_agent(text, GHOSTS) == ()
    assert with_names(text[:200_000], lambda _: None) == text[:200_000]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (f"{ADA}: hi", "Ada: hi"),
        (f"({ADA}), {ADA}.", "(Ada), Ada."),
        ("@agent_ada, hi", "Ada, hi"),
        (f"`{ADA}` {ADA} ```\n{ADA}\n```", f"`{ADA}` Ada ```\n{ADA}\n```"),
        (f'{{"user_id": "{ADA}"}} {ADA}', f'{{"user_id": "{ADA}"}} Ada'),
        ("@agent_b:test @agent_ada:test2", "@agent_b:test @agent_ada:test2"),
        (f"x{ADA} https://matrix.to/#/{ADA}", f"x{ADA} https://matrix.to/#/{ADA}"),
        (f"[Ada L.](https://matrix.to/#/{ADA}?via=test) hi", "Ada L. hi"),
        (f"`[Ada](https://matrix.to/#/{ADA})`", f"`[Ada](https://matrix.to/#/{ADA})`"),
    ],
)
def test_ids_are_read_as_names(text: str, named: str) -> None:
    names = {ADA: "Ada", "@agent_ada": "Ada"}
    assert with_names(text, names.get) == named


@given(st.text())
def test_where_nobody_has_a_name_nothing_changes(text: str) -> None:
    assert with_names(text, lambda _: None) == text


PEOPLE = ("@ann:test", "@bob:test")


def test_an_agent_names_people_by_their_whole_id() -> None:
    text = "@bob:test and @ann:test, and again @bob:test; not @eve:test, @ann or @room"
    assert named_by_agent(text, PEOPLE) == ("@bob:test", "@ann:test")


@pytest.mark.parametrize(
    "text", ["`@ann:test`", "```\n@ann:test\n```", "> @ann:test", "@room", "@ann", "ann:test", ""]
)
def test_an_agent_names_nobody_by_less(text: str) -> None:
    assert named_by_agent(text, (*PEOPLE, "@room")[:2]) == ()


def test_an_agent_cannot_name_a_crowd() -> None:
    crowd = [f"@person{number}:example.org" for number in range(500)]
    named = named_by_agent(" ".join(crowd), crowd)
    assert 20 < len(named) < 50
    assert list(named) == crowd[: len(named)]
