"""The text of a link looks like another address than the one it leads to: that one is shown."""

import unicodedata
from html import escape

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from letta_matrix.matrix.formatting import render

TARGET = "https://evil.test/x"
_SCRIPTS = ("abcxyz019", "абвюя", "αβγω", "بتن", "中文网", "한국", "कखग", "àéñü")
_DOTS = ".\u3002\uff0e\uff61\u2024\u00b7\u2027\u22c5\ufe52\u2022"
_UNSEEN = (
    "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u180e\u200a\u2009\u202f\u2800\u3164\u0301\u0338"
)


def label(shortest: int) -> st.SearchStrategy[str]:
    return st.one_of(*(st.text(letters, min_size=shortest, max_size=6) for letters in _SCRIPTS))


ending = label(2).filter(lambda text: not text.isdigit())
names = st.tuples(st.lists(label(1), min_size=1, max_size=3), ending).map(
    lambda parts: ".".join((*parts[0], parts[1]))
)
addresses = st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(lambda ip: f"[{ip}]")
ports = st.integers(1, 65535).map(lambda port: f":{port}")


@st.composite
def disguised(draw: st.DrawFn) -> str:
    """A name that looks like itself, written in another way."""
    name = draw(names).replace(".", draw(st.sampled_from(_DOTS)))
    if draw(st.booleans()):
        name = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in name)
    at, unseen = draw(st.integers(1, len(name))), draw(st.text(_UNSEEN, max_size=3))
    return name[:at] + unseen + name[at:]


before = st.sampled_from(
    ["", "https://", "HTTP://", "https:/", "https:\\\\", "//", "/", "see ", "go to:", "ann@", "("]
)
after = st.sampled_from(
    ["", "/", "/evil.test", "?evil.test", "#evil.test", "@evil.test", " evil.test", ".", ")"]
)


def shown_for(text: str, target: str = TARGET) -> str:
    html = render(f'<a href="{escape(target)}">{escape(text)}</a>').html
    return html.partition("</a>")[2]


@given(before, disguised() | addresses | names, st.just("") | ports, after)
def test_whatever_looks_like_a_host_shows_where_it_leads(
    front: str, name: str, port: str, back: str
) -> None:
    text = front + name + port + back
    assume("evil.test" not in unicodedata.normalize("NFKC", name))
    assert shown_for(text) == f" ({TARGET})"


@given(label(2), before.filter(lambda front: front.endswith(("//", "\\\\"))))
def test_with_a_scheme_it_needs_no_dot(name: str, front: str) -> None:
    assert shown_for(f"{front}{name}") == f" ({TARGET})"


@given(names, st.sampled_from(["", "/", "/a/README.md", "?x=bank.com", "#bank.com"]))
def test_the_same_host_is_told_nothing(name: str, path: str) -> None:
    # Where letters could be taken for others, telling is right.
    assume(unicodedata.normalize("NFKC", name) == name)
    assume(not any(unicodedata.category(one)[0] == "M" for one in name))
    target = f"https://{name}{path}"
    for text in (name, f"{name}{path}", f"(see {name}.)", f"www.{name}", target):
        assert shown_for(text, target) == ""


@pytest.mark.parametrize(
    ("text", "target", "shown"),
    [
        ("bank.com", "https://evil.test\\@bank.com", "https://evil.test/@bank.com"),
        ("https://bank.com/@evil.test", "https://bank.com%2F@evil.test/", "https://evil.test/"),
        ("bank.com", "https://bank.com:x@evil.test:8443/", "https://evil.test:8443/"),
        ("bank.com", "https://b\u0430nk.com/", "https://xn--bnk-6cd.com/"),
        ("strasse.de", "https://stra\u00dfe.de/", "https://xn--strae-oqa.de/"),
        ("bank.com", "mailto:me@bank.com,eve@evil.test", "mailto:me@bank.com,eve@evil.test"),
        ("@a:b.cc", "https://matrix.to/#/@e:evil.test?via=@a:b.cc", None),
        ("bank.com:8443", "https://bank.com/", "https://bank.com/"),
        ("www.com", "https://evil.com/", "https://evil.com/"),
        ("0x7f.0.0.1", TARGET, TARGET),
        ("localhost:8008", TARGET, TARGET),
        ("moc.\u202eknab", TARGET, TARGET),
    ],
)
def test_tricks_with_targets(text: str, target: str, shown: str | None) -> None:
    assert shown_for(text, target) == f" ({shown or target})"
