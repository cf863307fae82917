"""The double of mautrix-gmessages is as strict as the real one."""

from collections.abc import AsyncGenerator

import aiohttp
import pytest
from tests.doubles.gmessages import Gmessages, gmessages_on
from tests.doubles.gmessages.portals import RCS, SMS, STATUS, Picture, Portal, Rules
from tests.integration.people import Json, Person
from tests.servers import Homeserver
from tests.waiting import eventually

NUMBER = "+15551234567"
COOKIES: Json = dict.fromkeys(("SID", "HSID", "SSID", "OSID", "APISID", "SAPISID"), "x")


@pytest.fixture(scope="module")
async def bridge(homeserver: Homeserver, ann: Person, bob: Person) -> AsyncGenerator[Gmessages]:
    rules = Rules({ann.user_id: "admin", bob.user_id: "relay"}, relay=True)
    file = homeserver.gmessages_registration
    async with gmessages_on(file, homeserver.url, homeserver.server_name, rules) as double:
        yield double


@pytest.fixture(scope="module")
async def paired(bridge: Gmessages, ann: Person, http: aiohttp.ClientSession) -> Gmessages:
    """Ann has paired her phone."""
    bridge.provisioning.tapped.set()
    _, started = await provision(bridge, http, "POST", "login/start/google", ann.user_id)
    step = f"login/step/{started['login_id']}/fi.mau.gmessages"
    path = f"{step}.google_account/cookies"
    _, shown = await provision(bridge, http, "POST", path, ann.user_id, COOKIES)
    assert shown["display_and_wait"]["type"] == "emoji"
    path = f"{step}.emoji/display_and_wait"
    _, done = await provision(bridge, http, "POST", path, ann.user_id)
    assert done["type"] == "complete"
    return bridge


async def provision(
    bridge: Gmessages,
    http: aiohttp.ClientSession,
    method: str,
    path: str,
    user_id: str,
    body: Json | None = None,
    secret: str | None = None,
) -> tuple[int, Json]:
    token = bridge.provisioning.secret if secret is None else secret
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url, query = f"{bridge.url}/_matrix/provision/v3/{path}", {"user_id": user_id}
    async with http.request(method, url, headers=headers, params=query, json=body or {}) as answer:
        return answer.status, await answer.json()


async def phone(bridge: Gmessages, http: aiohttp.ClientSession, what: str, **body: object) -> Json:
    async with http.post(f"{bridge.url}/phone/{what}", json=body) as answer:
        assert answer.status == 200
        return await answer.json()


async def portal_of(bridge: Gmessages, person: Person) -> Portal:
    """The portal, once the person has come."""
    login = bridge.portals.logged_in(person.user_id)
    assert login is not None
    portal = await bridge.portals.portal(login, NUMBER)
    await person.call("POST", f"/rooms/{portal.room_id}/join")
    return portal


async def statuses(person: Person, room_id: str) -> dict[str, str]:
    """What became of messages, by event id."""
    events = await person.timeline(room_id, STATUS)
    told = [event["content"] for event in events]
    return {one["m.relates_to"]["event_id"]: one.get("reason", one["status"]) for one in told}


async def status_of(person: Person, room_id: str, event_id: str) -> str:
    async def told() -> str:
        return (await statuses(person, room_id)).get(event_id, "")

    return await person.watch(room_id, told, what="a status")


async def test_provisioning_wants_the_secret_a_permitted_user_and_each_step_in_its_place(
    bridge: Gmessages, ann: Person, bob: Person, http: aiohttp.ClientSession
) -> None:
    for who, secret, status in ((ann, "", 401), (ann, "wrong", 401), (bob, None, 403)):
        told, _ = await provision(bridge, http, "GET", "whoami", who.user_id, secret=secret)
        assert told == status
    _, started = await provision(bridge, http, "POST", "login/start/qr", ann.user_id)
    step = f"login/step/{started['login_id']}/fi.mau.gmessages.qr/cookies"
    status, told = await provision(bridge, http, "POST", step, ann.user_id)
    assert (status, told["errcode"]) == (400, "M_BAD_STATE")
    status, _ = await provision(bridge, http, "POST", step.replace("step/", "step/x"), ann.user_id)
    assert status == 404


async def test_a_text_makes_a_portal_with_state_of_the_bot(
    paired: Gmessages, ann: Person, http: aiohttp.ClientSession
) -> None:
    sent = await phone(paired, http, "text", number=NUMBER, text="hello")
    portal = await portal_of(paired, ann)
    ghost = portal.ghost
    members = await ann.members(portal.room_id)
    assert members == dict.fromkeys((ann.user_id, ghost, paired.matrix.bot), "join")
    levels = await ann.state(portal.room_id, "m.room.power_levels")
    assert (levels["users"][paired.matrix.bot], levels["invite"]) == (9001, 99)
    said = await ann.timeline(portal.room_id, "m.room.message")
    assert [(one["event_id"], one["sender"]) for one in said] == [(sent["event_id"], ghost)]
    await paired.portals.switch(portal, "gmessages-rcs")
    told = (await ann.timeline(portal.room_id, "m.bridge"))[-1]
    assert (told["sender"], told["content"]["protocol"]["id"]) == (
        paired.matrix.bot,
        "gmessages-rcs",
    )


async def test_what_goes_out_and_what_does_not(paired: Gmessages, ann: Person) -> None:
    room_id = (await portal_of(paired, ann)).room_id
    sent = await ann.send(room_id, "hi")
    assert await status_of(ann, room_id, sent) == "SUCCESS"
    edit = {"rel_type": "m.replace", "event_id": sent}
    again: Json = {"msgtype": "m.text", "body": "again"}
    for content in (again | {"msgtype": "m.notice"}, again | {"m.relates_to": edit}):
        refused = await ann.send_content(room_id, content)
        assert await status_of(ann, room_id, refused) == "com.beeper.unsupported_event"
    await ann.send(room_id, "!gm nonsense")
    paired.phone.connected = False
    lost = await ann.send(room_id, "lost")
    assert await status_of(ann, room_id, lost) == "m.foreign_network_error"
    paired.phone.connected = True
    assert paired.phone.sent == [(NUMBER, "hi")]
    bodies = await ann.bodies(room_id, paired.matrix.bot)
    assert any(one.startswith("Unknown command") for one in bodies)


async def test_which_pictures_go_out(paired: Gmessages, ann: Person) -> None:
    portal = await portal_of(paired, ann)
    room_id = portal.room_id
    await paired.portals.switch(portal, SMS)
    url = await paired.matrix.upload(b"pixels", "image/png")
    info: Json = {"mimetype": "image/png", "size": 6}
    image: Json = {"msgtype": "m.image", "body": "words", "filename": "a.png", "url": url}
    sent = await ann.send_content(room_id, image | {"info": info})
    assert await status_of(ann, room_id, sent) == "SUCCESS"
    await paired.portals.switch(portal, RCS)
    captionless = await ann.send_content(room_id, image | {"info": info})
    assert await status_of(ann, room_id, captionless) == "SUCCESS"
    assert paired.phone.pictures == [
        Picture(NUMBER, b"pixels", "a.png", words) for words in ("words", "")
    ]
    for wrong in (
        {"info": info | {"size": paired.portals.rules.max_file_size + 1}},
        {"info": info | {"mimetype": "image/tiff"}},
    ):
        refused = await ann.send_content(room_id, image | wrong)
        assert await status_of(ann, room_id, refused) == "com.beeper.unsupported_event"
    assert len(paired.phone.pictures) == 2


async def test_who_is_not_logged_in_needs_a_relay_and_is_kicked_without(
    paired: Gmessages, ann: Person, bob: Person
) -> None:
    portal = await portal_of(paired, ann)
    room_id = portal.room_id
    await ann.send(room_id, "!gm set-pl 100")

    async def may_invite() -> bool:
        levels = await ann.state(room_id, "m.room.power_levels")
        return levels["users"].get(ann.user_id) == 100

    await ann.watch(room_id, may_invite, what="power")
    await ann.bring(room_id, bob)
    alone = await bob.send(room_id, "alone")
    assert await status_of(ann, room_id, alone) == "m.bridge_unavailable"
    await ann.send(room_id, "!gm set-relay")
    await eventually(lambda: portal.relay, what="a relay")
    relayed = await bob.send(room_id, "relayed")
    assert await status_of(ann, room_id, relayed) == "SUCCESS"
    assert paired.phone.sent[-1] == (NUMBER, "relayed")
    await paired.portals.sync_members(portal)
    assert bob.user_id in await paired.matrix.members(room_id)
    portal.relay = None
    await paired.portals.sync_members(portal)
    assert bob.user_id not in await paired.matrix.members(room_id)


async def test_what_is_typed_on_the_phone_comes_from_its_own_ghost(
    paired: Gmessages, ann: Person, http: aiohttp.ClientSession
) -> None:
    await phone(paired, http, "typed", number=NUMBER, text="by hand")
    portal = await portal_of(paired, ann)
    newest = (await ann.timeline(portal.room_id, "m.room.message"))[-1]
    assert newest["sender"] == paired.portals.self_ghost(portal.login)


async def test_a_portal_may_be_made_again(paired: Gmessages, ann: Person) -> None:
    portal = await portal_of(paired, ann)
    before = portal.room_id
    await paired.portals.make_again(portal)
    assert (await portal_of(paired, ann)).room_id != before
    assert (await ann.members(before))[ann.user_id] == "leave"
