"""What an event says to an agent: words, names, files, and what is none of these."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import message, reply_to, said_in

from letta_matrix.conversations.readable import attachment_of, files_of, quotable, read_prompt

ADA = "@agent_local_d48e:test"
LINK = f"https://matrix.to/#/{ADA}"
ROOM_LINK = "[a room](https://matrix.to/#/!room:test)"
QUOTE = "> <@bob:test> old words\n> more\n\n"


def told(content: dict[str, Any], kind: str = "m.room.message") -> str | None:
    prompt, speaks = read_prompt(message(type=kind, content=content))
    assert speaks
    return prompt


def test_the_quote_before_a_reply_is_not_said_again() -> None:
    assert read_prompt(reply_to("$1", f"{QUOTE}new words")) == ("new words", True)
    action = "> * <@bob:test> waves\n\nback"
    assert read_prompt(reply_to("$1", action)) == ("back", True)
    assert read_prompt(reply_to("$1", "> <@bob:test> a\n>\n> b\nnew")) == ("new", True)


@pytest.mark.parametrize(
    "text",
    [
        "> a quote\n\nof my own",
        "> <b>bold</b>\n\nyes",
        "> * a list\n\nyes",
        "> @bob:test said so\n\nyes",
        "> <bob> on IRC\n\nyes",
    ],
)
def test_peoples_own_quotes_stay(text: str) -> None:
    assert read_prompt(reply_to("$1", text)) == (text, True)
    assert read_prompt(message(text)) == (text, True)


def test_in_threads_and_fallbacks_every_quote_is_ones_own() -> None:
    text = f"{QUOTE}new words"
    assert read_prompt(message(text)) == (text, True)
    assert read_prompt(said_in("$root", text)) == (text, True)
    event = reply_to("$1", text)
    event["content"]["m.relates_to"]["is_falling_back"] = True
    assert read_prompt(event) == (text, True)
    event = said_in("$root", text)
    event["content"]["m.relates_to"]["is_falling_back"] = False
    assert read_prompt(event) == (text, True)


@pytest.mark.parametrize(
    ("body", "formatted", "prompt"),
    [
        (f"{ADA}: hi", f'<a href="{LINK}">Ada</a>: hi', "Ada: hi"),
        (f"hi {ADA}.", f'hi <a href="{LINK}">Ada</a>.', "hi Ada."),
        ("Ada: hi", f'<a href="{LINK}">Ada</a>: hi', "Ada: hi"),
        (f"[Ada]({LINK}) hi", None, "Ada hi"),
        (
            f"[Ada]({LINK}) hi",
            f'<a href="{LINK}">Ada</a> hi',
            "Ada hi",
        ),
        (
            f"`{ADA}` is its id",
            f'<a href="{LINK}">Ada</a>',
            f"`{ADA}` is its id",
        ),
        (f"{ADA} hi", None, f"{ADA} hi"),
        (f"{ADA} hi", f'<a href="{LINK}"></a> hi', f"{ADA} hi"),
        (f"{ADA} hi", f'<a href="matrix.to/{ADA}">Eve</a> hi', f"{ADA} hi"),
        (
            f"{ADA} x",
            f'<a href="{LINK}">A]\n[Matrix,</a>',
            "A\u203a \u2039Matrix, x",
        ),
        (
            "[a room](https://matrix.to/#/!room:test)",
            None,
            "[a room](https://matrix.to/#/!room:test)",
        ),
    ],
)
def test_a_pill_reaches_the_agent_as_its_label(
    body: str, formatted: str | None, prompt: str
) -> None:
    content = {"msgtype": "m.text", "body": body}
    content |= {"formatted_body": formatted} if formatted is not None else {}
    assert told(content) == prompt


def poll(key: str, text: str, **more: Any) -> dict[str, Any]:
    def block(words: str) -> Any:
        return {text: [{"body": words}] if text == "m.text" else words}

    answers = [{"id": "1", **block("soup")}, {"m.id": "2", **block("stew")}]
    return {key: {"question": block("Dinner?"), "answers": answers}, **more}


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("m.poll.start", poll("m.poll", "m.text")),
        ("m.poll.start", poll("m.poll.start", "m.text")),
        (
            "org.matrix.msc3381.poll.start",
            poll("org.matrix.msc3381.poll.start", "org.matrix.msc1767.text"),
        ),
        ("org.matrix.msc3381.poll.start", poll("org.matrix.msc3381.poll.start", "body")),
    ],
)
def test_a_poll_is_told_with_its_options(kind: str, content: dict[str, Any]) -> None:
    assert told(content, kind) == "(a poll: Dinner?\n1. soup\n2. stew)"


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        (
            {"msgtype": "m.location", "body": "The park", "geo_uri": "geo:1,2"},
            "(a location: The park geo:1,2)",
        ),
        ({"msgtype": "m.location", "geo_uri": "geo:1,2"}, "(a location: geo:1,2)"),
        ({"msgtype": "m.location", "body": 7}, None),
        (
            {"msgtype": "org.example.dice", "body": "rolled a six"},
            "(a message of the type org.example.dice: rolled a six)",
        ),
        ({"msgtype": "org.example.dice"}, None),
        ({"msgtype": "org.example.dice", "body": " "}, None),
        ({"msgtype": "dm.filament.gallery", "body": "my cats"}, "my cats"),
        ({"msgtype": "m.image", "body": "@x", "filename": "cat.png"}, "@x"),
    ],
)
def test_what_is_no_text_is_told_as_far_as_it_can_be(
    content: dict[str, Any], prompt: str | None
) -> None:
    assert told(content) == prompt


def test_a_sticker_is_told_and_seen() -> None:
    content = {"body": "Thumbs\nup", "url": "mxc://test/1", "info": {"mimetype": "image/png"}}
    event = message(type="m.sticker", content=content)
    assert read_prompt(event) == ("(a sticker: Thumbs up)", True)
    assert files_of(attachment_of(event)) == [content | {"msgtype": "m.image"}]
    assert told({"url": "mxc://test/1"}, "m.sticker") == "(a sticker)"


def test_a_poll_that_asks_nothing_cannot_be_used() -> None:
    event = message(type="m.poll.start", content={"m.poll.start": {"answers": []}})
    assert read_prompt(event) == (None, True)
    assert attachment_of(event) == {"msgtype": "m.poll.start"}
    assert files_of(attachment_of(event)) == []


def test_a_gallery_has_its_files() -> None:
    one = {"itemtype": "m.image", "body": "1.png", "url": "mxc://test/1"}
    two = {"itemtype": "m.file", "body": "2.txt", "url": "mxc://test/2", "x": "y"}
    content = {
        "msgtype": "dm.filament.gallery",
        "body": "look",
        "itemtypes": [one, two, {"itemtype": "m.text", "body": "x"}, 7, {}],
    }
    files = files_of(attachment_of(message(content=content)))
    assert files == [
        {"msgtype": "m.image", "body": "1.png", "url": "mxc://test/1"},
        {"msgtype": "m.file", "body": "2.txt", "url": "mxc://test/2"},
    ]


def test_what_is_encrypted_is_known_by_having_nothing() -> None:
    event = message(type="m.room.encrypted", content={"ciphertext": "x"})
    assert (read_prompt(event), attachment_of(event)) == ((None, True), None)


@pytest.mark.parametrize(
    ("content", "quote"),
    [
        (
            {"msgtype": "m.image", "body": "what a cat", "filename": "cat.png"},
            "[image: cat.png] what a cat",
        ),
        ({"msgtype": "m.text", "body": "on and on▍", "org.matrix.msc4357.live": {}}, "on and on"),
        ({}, ""),
    ],
)
def test_what_is_quoted(content: dict[str, Any], quote: str) -> None:
    assert quotable(message(content=content), is_ours=False) == quote


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
kinds = ["m.room.message", "m.sticker", "m.poll.start", "org.matrix.msc3381.poll.start"]
types = ["m.text", "m.image", "dm.filament.gallery", "m.location", "org.example.x"]
contents = st.dictionaries(
    st.sampled_from(
        ["msgtype", "body", "itemtypes", "m.poll.start", "geo_uri", "formatted_body", "info"]
    ),
    st.sampled_from(types) | anything,
)


@given(st.sampled_from(kinds), contents | anything)
def test_anything_can_be_read(kind: str, content: Any) -> None:
    event = message(type=kind, content=content)
    prompt, speaks = read_prompt(event)
    assert speaks or prompt is None
    assert all(isinstance(file, dict) for file in files_of(attachment_of(event)))
    quotable(event, is_ours=False).encode()
    (prompt or "").encode()
