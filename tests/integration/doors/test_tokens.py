"""Tokens on a real bridge: made and revoked beside it, used over HTTP, checked at the door."""

from typing import Any
from urllib.parse import quote

import pytest
from tests.fake_issuer import FakeIssuer
from tests.integration.bridge_world import Json, Room, World
from tests.integration.doors.doors_world import BOT, new_key
from tests.integration.doors.rest import Answer, Rest, rest_as
from tests.waiting import Clock, eventually

from letta_matrix.access.principal import Scope
from letta_matrix.cli.own_tokens import make, revoke
from letta_matrix.common.identifiers import room_alias


async def use(
    world: World, token: str, tool: str, /, headers: Json | None = None, **arguments: Any
) -> Answer:
    """Call a tool over the REST API."""
    url = f"http://127.0.0.1:{world.config.api.port}/api/v1"
    return await Rest(world.person.http, url, token).ask(
        "POST", f"/tools/{tool}", arguments, headers=headers
    )


async def senders_of(world: World, room: Room, body: str) -> list[str]:
    """Who said something."""
    events = await world.person.timeline(room.room_id, "m.room.message")
    return [event["sender"] for event in events if event["content"].get("body") == body]


async def test_a_token_acts_as_its_agent_in_its_rooms_until_it_is_revoked(
    world: World, ada: Room
) -> None:
    alias, scopes = room_alias(ada.agent.agent_id, "localhost"), ["read", "write"]
    kitchen = "90d", "kitchen"
    token, _ = await make(world.config, ada.agent.agent_id, scopes, [alias], *kitchen)
    text = f"from a token {new_key()}"
    told = await use(world, token, "matrix_send_message", room_id=ada.room_id, message=text)
    assert told.status == 200, told
    assert await senders_of(world, ada, text) == [ada.ghost]
    me = await use(world, token, "matrix_whoami")
    assert me.body["rooms"] == [ada.room_id]

    elsewhere = await world.as_user(ada.ghost).create_room()
    refused = await use(world, token, "matrix_send_message", room_id=elsewhere, message="x")
    assert refused.problem == (403, "forbidden")
    refused = await use(world, token, "matrix_create_room", name="x")
    assert refused.problem == (403, "forbidden")
    assert "rooms" in refused.body["detail"]

    token_id = token.split("_")[1]
    assert await revoke(world.config, token_id[:8]) == f"{token_id} is revoked"
    refused = await use(world, token, "matrix_whoami")
    assert refused.problem == (401, "unauthorized")
    assert refused.body["detail"] == "The token was revoked."


async def test_the_audit_room_is_told_what_was_done_and_what_was_not(
    world: World, ada: Room, clock: Clock
) -> None:
    here = frozenset({ada.room_id})
    rest = await rest_as(world, Scope.WRITE, agent_id=ada.agent.agent_id, rooms=here)
    path, body = "/tools/matrix_send_message", {"room_id": ada.room_id, "message": "to be told"}
    sent = await rest.call("POST", path, body)
    refused = await rest.refused("POST", path, {**body, "room_id": "!elsewhere:localhost"})
    assert refused == (403, "forbidden")
    audit_room = str(world.config.access.audit_room)
    who = f"{rest.principal} as {ada.ghost} (api): matrix_send_message"

    async def told() -> list[str]:
        # One notice in a few seconds, with what others do.
        clock.advance(1)
        said = await world.person.said_by(audit_room, BOT)
        assert {one["content"]["msgtype"] for one in said} <= {"m.notice"}
        lines = [line for one in said for line in one["content"]["body"].split("\n")]
        return [line for line in lines if line.startswith(who)]

    # Each is noted beside its call: either may come first, and "in" is sorted before ": ".
    done, undone = sorted(await eventually(told, lambda lines: len(lines) == 2))
    assert done.startswith(f"{who} in {ada.room_id} https://matrix.to/#/")
    assert quote(sent["event_id"], safe="") in done
    assert undone == f"{who}: forbidden"


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [("Host", "evil.example", 421), ("Origin", "https://evil.example", 403)],
)
async def test_pages_of_others_do_not_get_in(
    world: World, issuer: FakeIssuer, header: str, value: str, status: int
) -> None:
    answer = await use(world, issuer.token("one"), "matrix_whoami", headers={header: value})
    assert answer.problem == (status, f"{header.lower()}-refused")
    assert answer.body["type"] == f"https://letta-matrix.dev/problems/{header.lower()}-refused"


async def test_tokens_of_an_issuer(world: World, issuer: FakeIssuer, ada: Room) -> None:
    named = issuer.token("one", sub="eve", letta_agent=ada.agent.agent_id)
    text = f"from the issuer {new_key()}"
    told = await use(world, named, "matrix_send_message", room_id=ada.room_id, message=text)
    assert told.status == 200, told
    assert await senders_of(world, ada, text) == [ada.ghost]
    me = await use(world, issuer.token("one"), "matrix_whoami")
    assert (me.status, me.body["user_id"]) == (200, BOT)
    refused = await use(world, issuer.token("one", aud="x"), "matrix_whoami")
    assert refused.problem == (401, "unauthorized")
    assert "`aud` does not name this server" in refused.body["detail"]
