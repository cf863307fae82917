"""The bridge on homeservers that are not Synapse: what people do with agents works there, and what
such a homeserver lacks is said."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from mautrix.errors import MatrixRequestError
from pydantic import SecretStr
from tests.fake_homeserver import Fault
from tests.fake_other_homeservers import (
    BOT,
    CONTINUWUITY,
    DENDRITE,
    KINDS,
    OLD,
)
from tests.other_places import GHOST, Place, bridge_on, settled_on, text
from tests.unit.test_approval_flow import ask_for_bash
from tests.unit.test_attachments import picture
from tests.waiting import eventually

from letta_matrix.access.faults import Fault as ToolFault
from letta_matrix.access.faults import ToolError
from letta_matrix.cli.doctor import recognition
from letta_matrix.cli.doctor.examination import examine
from letta_matrix.cli.doctor.finding import Mark
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.matrix.errors import refusal, refused_request
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.server_admin import ServerAdmin

FILE = "mxc://test/abc"


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
async def place(request: Any, database_file: Path) -> AsyncGenerator[Place]:
    async with settled_on(request.param, database_file) as made:
        yield made


@pytest.fixture
async def dendrite(database_file: Path) -> AsyncGenerator[Place]:
    async with settled_on(DENDRITE, database_file) as made:
        yield made


async def test_people_and_agents_do_there_what_they_do_on_synapse(place: Place) -> None:
    server, room = place.server, place.room_id
    (creation,) = [e for e in server.events[room] if e["type"] == "m.room.create"]
    # Only since version 12 has a room creators.
    assert ("additional_creators" in creation["content"]) is (server.room_version == "12")
    root = server.say(room, text("hello"))
    assert await place.said(1) == ["echo: hello"]

    relation = {"rel_type": "m.thread", "event_id": root, "is_falling_back": True}
    server.say(room, text("aside", **{"m.relates_to": relation}))
    assert (await place.said(2))[1] == "echo: aside"
    own = [one for one in server.messages(room) if one["sender"] == GHOST]
    assert own[-1]["content"]["m.relates_to"]["event_id"] == root

    server.files[FILE.removeprefix("mxc://")] = picture()
    info = {"mimetype": "image/png", "size": len(picture())}
    server.say(room, {"msgtype": "m.image", "body": "red.png", "url": FILE, "info": info})
    await place.said(3)
    assert place.runtime.asked[-1].images, "the picture reached the agent"

    place.runtime.script = ask_for_bash
    server.say(room, text("look"))
    asked = await eventually(
        lambda: [e for e in server.messages(room) if "Bash" in str(e["content"].get("body"))]
    )
    await eventually(lambda: server.messages(room, "m.reaction"), what="the answers are offered")
    server.tap(room, asked[0]["event_id"], "✅")
    await eventually(lambda: "Ran it." in server.bodies(room))
    await eventually(lambda: not place.bridge.app.dispatcher.queues.waiting)


async def test_what_it_lacks_is_a_warning_and_no_trouble(place: Place) -> None:
    has_ping = place.server.kind not in (DENDRITE, OLD)
    told = [one for one in place.warnings() if "no ping" in one]
    assert len(told) == (0 if has_ping else 1)
    assert "other-homeservers.md" in "".join(told) or has_ping
    # Nobody but the homeserver itself has made the bot's account, as far as can be seen.
    doubts = [one for one in place.warnings() if f"{BOT} was there before" in one]
    assert len(doubts) == (1 if place.server.kind.makes_bot else 0)
    assert place.troubles() == []
    assert place.bridge.health.told()["ready"]


async def test_the_doctor_finds_what_it_lacks_and_nothing_wrong(place: Place) -> None:
    config = place.bridge.app.config
    # What it tells has no secret in it, and those of the tests are letters.
    words = {"as_token": SecretStr("as-secret"), "hs_token": SecretStr("hs-secret")}
    section = config.appservice.model_copy(update=words)
    config = config.model_copy(update={"appservice": section})
    subject = Subject(config, config.directory / "config.yaml", {}, place.bridge.health.told())
    try:
        found = {one.name: one async for one in examine(subject)}
    finally:
        await subject.close()
    version = found["homeserver version"]
    assert version.mark is Mark.WARNING
    assert place.server.kind.name in version.says
    assert "other-homeservers.md" in version.remedy
    for name in ("homeserver", "registration", "reachability", "namespaces", "media"):
        assert (name, found[name].mark) == (name, Mark.OK), found[name]


@pytest.mark.parametrize(
    ("vital", "mark"), [("reachability", Mark.TROUBLE), ("homeserver", Mark.UNKNOWN)]
)
async def test_without_a_ping_the_doctor_goes_by_what_the_bridge_tells(
    dendrite: Place, vital: str, mark: Mark
) -> None:
    config = dendrite.bridge.app.config
    report: dict[str, Any] = dict(dendrite.bridge.health.told())
    wrong = {"name": vital, "state": "trouble", "says": "nothing is pushed", "remedy": "look"}
    report["checks"] = [one for one in report["checks"] if one["name"] != vital] + [wrong]
    subject = Subject(config, config.directory / "config.yaml", {}, report)
    try:
        (found,) = await recognition.reachability.look(subject)
    finally:
        await subject.close()
    assert found.mark is mark


async def test_unread_messages_are_told_without_a_sync(place: Place) -> None:
    room, server = place.room_id, place.server
    if place.server.kind.sync:
        server.fail("/sync", Fault(403, {"errcode": "M_FORBIDDEN", "error": "no device"}))
    server.say(room, text("anybody?"))
    await place.said(1)
    server.say(room, text("and now?"), who="@bob:elsewhere")
    found = await place.call("matrix_list_unread")
    assert "and now?" in str(found)


async def test_search_that_is_off_is_said_at_once(dendrite: Place) -> None:
    with pytest.raises(ToolError, match="Search has been disabled") as caught:
        await dendrite.call("matrix_search", query="anything")
    assert caught.value.fault is not ToolFault.UNAVAILABLE


async def test_what_comes_again_with_more_in_it_is_read_on(dendrite: Place) -> None:
    """Dendrite names a transaction by its first event: a next try may hold more."""
    server, room = dendrite.server, dendrite.room_id
    first = server.say(room, text("one"))
    await dendrite.said(1)
    await eventually(lambda: first in server.pushed)
    # The answer to that was lost; meanwhile something else was said.
    again = next(one for one in server.events[room] if one["event_id"] == first)
    server.push_again(again, again | {"event_id": "$later", "content": text("two")})
    assert await dendrite.said(2) == ["echo: one", "echo: two"]


async def test_its_own_session_for_our_token_is_nobody_elses(dendrite: Place) -> None:
    bot = Intent(dendrite.bridge.app.homeserver, BOT)
    assert await bot.devices() == []
    with pytest.raises(MatrixRequestError) as caught:
        await bot.end_sessions()
    assert "the bridge's own token is one of the sessions" in refusal(caught.value)
    assert dendrite.server.knows_token
    dendrite.server.devices[BOT].append("SOMEBODY")
    assert await bot.devices() == ["SOMEBODY"]
    # Of others than the bot all sessions are somebody else's; none is null.
    ghost = bot.acting_as(GHOST)
    assert await ghost.devices() == []


async def test_without_an_admin_api_nothing_is_wrong_with_the_address(
    dendrite: Place,
) -> None:
    dendrite.server.fail("/v3/login", Fault(200, {"access_token": "x", "user_id": "@a:test"}))
    admin = ServerAdmin(dendrite.bridge.app.homeserver, "admin", "secret")
    with pytest.raises(MatrixRequestError) as caught:
        await admin.set_password(GHOST, "another")
    assert "has no admin API of Synapse" in refused_request(caught.value)


async def test_a_ping_that_somebody_does_not_pass_on_is_no_missing_one(
    database_file: Path,
) -> None:
    """A worker of Synapse, or a proxy, knows nothing of it, and the homeserver has it."""
    async with bridge_on(CONTINUWUITY, database_file) as made:
        unknown = Fault(404, {"errcode": "M_UNRECOGNIZED", "error": "x"})
        made.server.fail("/ping", *[unknown] * 100)
        await eventually(made.troubles, lambda told: "M_UNRECOGNIZED" in str(told))
        assert not made.bridge.is_ready()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(401, {"errcode": "M_UNAUTHORIZED", "error": "Invalid token."}), "our as_token"),
        (
            Fault(
                500,
                {
                    "errcode": "M_UNKNOWN",
                    "error": 'Appservice "letta" returned unsuccessful HTTP response 403 Forbidden',
                },
            ),
            "its hs_token is not ours (HTTP 403)",
        ),
        (
            Fault(
                502, {"errcode": "M_BAD_STATUS", "error": "Appservice returned status 404 Not F"}
            ),
            "another program answers there (HTTP 404)",
        ),
        (
            Fault(
                502, {"errcode": "M_BAD_STATUS", "error": "Appservice returned status 503 Service"}
            ),
            "a proxy before the bridge finds none there that takes it now",
        ),
    ],
    ids=["token", "hs_token", "status", "proxy"],
)
async def test_what_is_wrong_is_said_of_their_words_too(
    database_file: Path, fault: Fault, told: str
) -> None:
    async with bridge_on(CONTINUWUITY, database_file) as made:
        made.server.fail("/ping", *[fault] * 100)
        await eventually(made.troubles, lambda troubles: told in str(troubles))
