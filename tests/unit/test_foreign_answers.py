"""What is no answer of a homeserver is an outage, whatever it looks like."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from mautrix.errors import MForbidden
from structlog.testing import capture_logs
from tests.builders import config_for
from tests.fake_foreign import FOREIGN, Foreign, json_of, moved, page
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.waiting import Clock, eventually

from letta_matrix.app.reach import NotReached, reach
from letta_matrix.matrix.answers import _MOST, _MOST_PARTS, parsed
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.watch import ServerState, look

ROOM = "!1:test"
SEND = "PUT .*/send/"
Asking = Callable[[Intent], Awaitable[object]]


@pytest.fixture
def ghost(homeserver: Homeserver) -> Intent:
    return Intent(homeserver, "@agent_1:test")


async def said(ghost: Intent) -> str:
    return await ghost.send(ROOM, "m.room.message", {"body": "hi"}, "txn1")


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_message_is_sent_again_until_it_is_answered(
    fake: FakeHomeserver, ghost: Intent, clock: Clock, name: str
) -> None:
    fake.fail(SEND, *[FOREIGN[name]] * 4)
    fake.fail("GET .*/messages", FOREIGN[name])
    with capture_logs():
        event_id = await clock.through(said(ghost))
    assert [event["event_id"] for event in fake.messages(ROOM)] == [event_id]
    # Who says that we ask too much is there.
    assert ghost.homeserver.outage.is_set() is (name != "too many")
    assert ghost.homeserver.trouble == ""


ASKED: dict[str, tuple[str, Asking]] = {
    "alias": ("directory", lambda one: one.resolve_alias("#a:test")),
    "rooms": ("joined_rooms", lambda one: one.joined_rooms()),
    "members": ("members", lambda one: one.members(ROOM)),
    "joined members": ("joined_members", lambda one: one.joined_members(ROOM)),
    "event": ("event", lambda one: one.event(ROOM, "$1")),
    "creation": ("state", lambda one: one.creation(ROOM)),
    "messages": ("messages", lambda one: one.messages(ROOM)),
    "relations": ("relations", lambda one: one.relations(ROOM, "$1")),
    "thread": ("relations", lambda one: one.thread(ROOM, "$1", limit=1)),
    "around": ("context", lambda one: one.around(ROOM, "$1", limit=1)),
    "search": ("search", lambda one: one.search("x", [ROOM], limit=1, at="")),
    "sync": ("sync", lambda one: one.snapshots([ROOM], limit=1)),
    "register": ("register", lambda one: one.register()),
    "upload": ("upload", lambda one: one.upload(b"x", "text/plain", "x")),
    "create": ("createRoom", lambda one: one.create_room({})),
    "join": ("join", lambda one: one.join(ROOM)),
    "join via": ("join", lambda one: one.join(ROOM, via="elsewhere")),
    "state": ("state", lambda one: one.set_state(ROOM, "m.room.name", {})),
    "react": ("send", lambda one: one.react(ROOM, "$1", "x", "t")),
    "redact": ("redact", lambda one: one.redact(ROOM, "$1", "t", give_up_after=60)),
    "interim": ("send", lambda one: one.send_interim(ROOM, "m.room.message", {}, "t")),
}


@pytest.mark.parametrize("name", ASKED)
async def test_no_request_takes_anything_else_for_its_answer(
    fake: FakeHomeserver, ghost: Intent, clock: Clock, name: str
) -> None:
    path, ask = ASKED[name]
    for foreign in ("page", "login", "empty object", "wrong types", "other JSON", "deep"):
        fake.fail(path, *[FOREIGN[foreign]] * 30)
        with capture_logs(), pytest.raises(HomeserverUnavailable):
            await clock.through(ask(ghost), step=5)
        fake.heal()


async def test_a_redirect_is_not_followed_and_named(fake: FakeHomeserver, ghost: Intent) -> None:
    path = f"/_matrix/client/v3/rooms/{ROOM}/send/m.room.message/t"
    for to, told in {
        f"https://matrix.example.org{path}?user_id=x": "to https://matrix.example.org: write that",
        f"https://example.org/base{path}": "to https://example.org/base: write that",
        "https://me:secret@sso.example.org/login?rd=secret#secret": "to https://sso.example.org/lo",
        "//other.example.org/": "redirects to http://other.example.org/",
        "http://[bad": "redirects to nowhere",
    }.items():
        fake.fail(SEND, moved(to, 301))
        with pytest.raises(HomeserverUnavailable) as raised:
            await ghost.send_interim(ROOM, "m.room.message", {}, "t")
        assert told in str(raised.value)
        assert "secret" not in str(raised.value)
        assert ghost.homeserver.trouble == str(raised.value)
    assert len(fake.requests) == 5


async def test_a_page_is_told_by_its_beginning(fake: FakeHomeserver, ghost: Intent) -> None:
    fake.fail(SEND, page(raw=b"<h1>Back\x00 at\n 5</h1>" + b"x" * 1000))
    with pytest.raises(HomeserverUnavailable, match=r"text/html .<h1>Back\ufffd at 5</h1>"):
        await ghost.send_interim(ROOM, "m.room.message", {}, "t")


async def test_a_page_that_shows_our_token_is_told_without_it(
    fake: FakeHomeserver, ghost: Intent
) -> None:
    fake.fail(SEND, page(raw=b"<pre>Bearer as-secret, as-secret"))
    with pytest.raises(HomeserverUnavailable, match=r"Bearer \*\*\*") as raised:
        await ghost.send_interim(ROOM, "m.room.message", {}, "t")
    assert "as-secret" not in str(raised.value)


async def test_an_answer_without_end_is_none(
    fake: FakeHomeserver, ghost: Intent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.matrix.answers._MOST", 1000)
    fake.fail(SEND, json_of(b'{"event_id": "$1"' + b" " * 5000 + b"}"))
    with pytest.raises(HomeserverUnavailable, match="more than"):
        await ghost.send_interim(ROOM, "m.room.message", {}, "t")
    assert _MOST > 2**25


async def test_an_answer_made_to_fill_our_memory_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letta_matrix.matrix.answers._MOST_PARTS", 1000)
    assert parsed(b'{"chunk": [' + b"[]," * 1000 + b"[]]}") is None
    assert parsed(b'{"chunk": "' + b"x" * 5000 + b'"}') is not None
    # A page of events whose texts are nothing but commas is one.
    assert 50 * 2 * 65_536 < _MOST_PARTS < _MOST


@pytest.mark.parametrize(
    "pause",
    ["-1", "NaN", "1e999", "1" + "0" * 400, "1" + "0" * 5000, '"300"', "{}", "null", "1e12"],
)
@pytest.mark.parametrize("header", ["-1", "1e12", "9" * 400, "Wed, 21 Oct 2099 07:28:00 GMT", ""])
async def test_a_pause_without_sense_is_a_pause(
    fake: FakeHomeserver, ghost: Intent, clock: Clock, pause: str, header: str
) -> None:
    raw = b'{"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": %b}' % pause.encode()
    told = Foreign(429, {}, False, {"Retry-After": header}, raw, "application/json")
    fake.fail(SEND, told)
    clock.stop()
    with capture_logs() as logs:
        sending = asyncio.create_task(said(ghost))
        await eventually(lambda: any("again" in line["event"] for line in logs))
        clock.advance(500)
        await sending
    assert len(fake.messages(ROOM)) == 1


async def test_numbers_that_are_none_are_nothing(fake: FakeHomeserver, ghost: Intent) -> None:
    raw = b'{"a": NaN, "b": [-Infinity, 1e999], "c": 1%b, "d": 12345678901234567890, "e": 1.5}'
    fake.fail("state", json_of(raw % (b"0" * 400)))
    content = await ghost.state(ROOM, "x")
    assert content == {
        "a": None,
        "b": [None, None],
        "c": None,
        "d": 12345678901234567890.0,
        "e": 1.5,
    }


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("half \\ud83d of it", "half \ufffd of it"),
        ("\\u001b[2Jred\\u0000\\u202e", "\ufffd[2Jred\ufffd\ufffd"),
        ("two\\nlines", "two lines"),
        ("x" * 1_000_000, "x" * 300),
    ],
)
async def test_an_error_is_told_in_a_line_that_can_be_printed(
    fake: FakeHomeserver, ghost: Intent, error: str, told: str
) -> None:
    fake.fail(SEND, json_of(b'{"errcode": "M_FORBIDDEN", "error": "%b"}' % error.encode(), 403))
    with pytest.raises(MForbidden) as raised:
        await said(ghost)
    assert refusal(raised.value) == f"the homeserver refused: M_FORBIDDEN: {told}"


async def test_bytes_that_come_slowly_are_waited_for_no_longer_than_an_answer(
    fake: FakeHomeserver, ghost: Intent, clock: Clock
) -> None:
    fake.fail(SEND, Foreign(raw=b"{" + b" " * 10_000, slowly=1.0))
    with capture_logs():
        await clock.through(said(ghost), step=10)
    assert len(fake.messages(ROOM)) == 1


async def test_what_people_wrote_into_a_room_is_an_answer(
    fake: FakeHomeserver, ghost: Intent
) -> None:
    odd = {"errcode": "M_UNKNOWN", "error": "x"}
    fake.set_state(ROOM, "m.room.name", odd)
    assert await ghost.state(ROOM, "m.room.name") == odd


@pytest.mark.parametrize("name", ["not found", "bad request"])
async def test_a_page_about_one_message_alone_ends_it(
    fake: FakeHomeserver, ghost: Intent, clock: Clock, name: str
) -> None:
    fake.fail(f"{SEND}.*/odd", *[FOREIGN[name]] * 100)
    odd = asyncio.create_task(ghost.send(ROOM, "m.room.message", {"body": "odd"}, "odd"))
    with capture_logs():
        await clock.until(lambda: len(fake.matching("/odd")) > 12, step=5)
        assert not odd.done()
        await said(ghost)
        await clock.until(lambda: odd.done() or len(fake.matching("/odd")) > 30, step=5)
    # Whatever a proxy does not find may be there again; what it cannot read it never will.
    assert odd.done() is (name == "bad request")
    odd.cancel()
    await asyncio.gather(odd, return_exceptions=True)


async def test_a_login_of_a_person_survives_a_page(fake: FakeHomeserver, ghost: Intent) -> None:
    theirs = Intent(ghost.homeserver.with_token("theirs"), "@ann:test")
    fake.fail("joined_rooms", page(401))
    with capture_logs():
        assert await theirs.joined_rooms() == []


@pytest.mark.parametrize("name", FOREIGN)
async def test_who_answers_so_is_not_the_homeserver(
    fake: FakeHomeserver, homeserver: Homeserver, name: str
) -> None:
    fake.fail("versions", FOREIGN[name])
    speaks = name == "error with 200"
    assert await look(homeserver) is (ServerState.HERE if speaks else ServerState.AWAY)
    assert await look(homeserver) is ServerState.HERE


@pytest.mark.parametrize(
    ("base", "offered"),
    [
        ("https://matrix.example.org/", "homeserver.url should be https://matrix.example.org"),
        ("https://matrix.example.org\\n\\u001b[2J", ""),
        ("http" + "x" * 1000, ""),
        ("javascript:alert(1)", ""),
    ],
)
async def test_what_a_server_says_where_the_homeserver_is_is_read_with_care(
    fake: FakeHomeserver, homeserver: Homeserver, base: str, offered: str
) -> None:
    fake.fail("ping", page(404))
    fake.fail("well-known", json_of(b'{"m.homeserver": {"base_url": "%b"}}' % base.encode()))
    with pytest.raises(NotReached) as raised:
        await reach(homeserver, config_for(Path()), "t")
    assert ("homeserver.url should be" in str(raised.value)) is bool(offered)
    assert str(raised.value).isprintable()
    assert offered in str(raised.value)


async def test_a_page_is_no_file(fake: FakeHomeserver, ghost: Intent, clock: Clock) -> None:
    path = "_matrix/client/v1/media/download/test/1"
    fake.fail(path, page(), page())
    fake.fail(path, Foreign(raw=b"<p>", headers={"Content-Disposition": "attachment"}))
    with capture_logs():
        assert await clock.through(ghost.homeserver.read(path, "@ann:test", 100)) == b"<p>"


async def test_a_closed_homeserver_is_an_outage(
    fake: FakeHomeserver, ghost: Intent, clock: Clock
) -> None:
    closed = {"errcode": "M_RESOURCE_LIMIT_EXCEEDED", "error": "maintenance"}
    fake.fail(SEND, *[Fault(403, closed)] * 3)
    with capture_logs() as logs:
        await clock.through(said(ghost))
    assert "its admin has decided" in str(logs)
