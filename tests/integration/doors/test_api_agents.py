"""Agents through the REST API, with a whole bridge on the real homeserver."""

from urllib.parse import quote

import pytest
from tests.integration.bridge_world import Room, World
from tests.integration.doors.doors_world import new_key
from tests.integration.doors.rest import Rest, rest_as
from tests.waiting import eventually

from letta_matrix.access.principal import Scope
from letta_matrix.common.identifiers import room_alias, user_id


async def test_an_agent_from_its_making_to_its_end(world: World, admin: Rest) -> None:
    name, key = f"Ida {new_key()}", {"Idempotency-Key": new_key()}
    body = {"name": name, "description": "Knows the archive."}
    made = await admin.call("POST", "/agents", body, headers=key, expect=201)
    assert (made["name"], made["runtime"], made["status"]) == (name, "memory", "active")
    assert made["description"] == "Knows the archive."
    agent_id = made["agent_id"]
    room = await world.person.get(f"/directory/room/{quote(room_alias(agent_id, 'localhost'))}")
    assert made["room_id"] == room["room_id"]
    again = await admin.call("POST", "/agents", body, headers=key, expect=201)
    assert again["agent_id"] == agent_id
    page = await admin.call("GET", "/agents", name=name.upper())
    assert [agent["agent_id"] for agent in page["agents"]] == [agent_id]
    assert await admin.refused("POST", "/agents", {"name": "Eve"}, headers=key) == (409, "conflict")

    path, name = f"/agents/{agent_id}", f"Eva {new_key()}"
    changed = await admin.call("PATCH", path, {"name": f"  {name} "})
    assert changed["name"] == name
    assert (await admin.call("GET", path))["name"] == name
    profile = f"/profile/{quote(user_id(agent_id, 'localhost'))}/displayname"
    await eventually(lambda: world.person.get(profile), lambda p: p["displayname"] == name)

    async def known() -> list[str]:
        return [agent.agent_id for agent in await world.runtime.list_agents()]

    assert await admin.refused("DELETE", path) == (422, "invalid-arguments")
    refused = await admin.ask("DELETE", path, confirm="Ida")
    assert (refused.problem, name in refused.body["detail"]) == ((409, "conflict"), True)
    assert agent_id in await known()
    await admin.call("DELETE", path, confirm=name, expect=204)
    assert agent_id not in await known()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "slug"),
    [
        ("POST", "/agents", {"name": "Eve", "runtime": "fixed"}, 409, "conflict"),
        ("POST", "/agents", {"name": "Eve", "runtime": "nowhere"}, 404, "not-found"),
        ("POST", "/agents", {"name": ""}, 422, "invalid-arguments"),
        ("POST", "/agents", {"name": "E\u0007ve"}, 422, "invalid-arguments"),
        ("POST", "/agents", {"name": "x" * 101}, 422, "invalid-arguments"),
        ("POST", "/agents", {"name": "Eve", "wings": 2}, 422, "invalid-arguments"),
        ("POST", "/agents", b"{", 400, "malformed-body"),
        ("PATCH", "/agents/agent-00000001-0000", {"name": "Eve"}, 409, "conflict"),
        ("PATCH", "/agents/agent-none", {"name": "Eve"}, 404, "not-found"),
        ("GET", "/agents/..%2F..%2Fetc", None, 404, "not-found"),
        ("GET", "/agents/%00", None, 404, "not-found"),
        ("GET", "/agents?after=nobody", None, 422, "invalid-arguments"),
        ("POST", "/agents/agent-none/messages", {"message": "x"}, 404, "not-found"),
        ("POST", "/agents/agent-00000001-0000/messages", {"message": ""}, 422, "invalid-arguments"),
        ("POST", "/agents/agent-00000001-0000/messages", {}, 422, "invalid-arguments"),
    ],
)
async def test_what_cannot_be_done_says_why(
    admin: Rest, method: str, path: str, body: object, status: int, slug: str
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await admin.ask(method, path, body, headers=headers)
    assert answer.problem == (status, slug), answer


async def test_a_runtime_that_is_away_is_said_to_be(world: World, admin: Rest, ada: Room) -> None:
    world.runtime.available = False
    try:
        answer = await admin.ask("POST", "/agents", {"name": "Eve"})
        assert answer.problem == (503, "unavailable")
        assert "switched off" in answer.body["detail"]
        renamed = await admin.refused("PATCH", f"/agents/{ada.agent.agent_id}", {"name": "Eve"})
        assert renamed == (503, "unavailable")
        synced = await admin.call("POST", "/agents/sync")
        assert "switched off" in synced["troubles"]["memory"]
        assert synced["troubles"]["fixed"] == ""
    finally:
        world.runtime.available = True
    assert (await admin.call("POST", "/agents/sync"))["troubles"] == {"memory": "", "fixed": ""}


async def test_agents_come_in_pages(admin: Rest, ada: Room, bea: Room) -> None:
    mark = ada.agent.name.partition(" ")[2]
    seen: list[str] = []
    after = ""
    for number in range(2):
        page = await admin.call("GET", "/agents", name=mark, limit="1", after=after)
        seen += [agent["agent_id"] for agent in page["agents"]]
        after = page["next"]
        assert (page["total"], after is None) == (2, number == 1)
    assert sorted(seen) == sorted([ada.agent.agent_id, bea.agent.agent_id])


async def test_scopes_and_rooms_limit_a_token(world: World, ada: Room, bea: Room) -> None:
    reader = await rest_as(world, Scope.READ)
    assert await reader.refused("GET", "/agents") == (403, "forbidden")
    speaker = await rest_as(world, Scope.AGENTS, rooms=frozenset({ada.room_id}))
    page = await speaker.call("GET", "/agents")
    assert [agent["agent_id"] for agent in page["agents"]] == [ada.agent.agent_id]
    assert (await speaker.call("GET", f"/agents/{ada.agent.agent_id}"))["trouble"] is None
    for method, path, body in (
        ("GET", f"/agents/{bea.agent.agent_id}", None),
        ("POST", f"/agents/{bea.agent.agent_id}/messages", {"message": "psst"}),
    ):
        assert await speaker.refused(method, path, body) == (404, "not-found")
    for method, path, body in (
        ("POST", "/agents", {"name": "Eve"}),
        ("PATCH", f"/agents/{ada.agent.agent_id}", {"name": "Eve"}),
        ("DELETE", f"/agents/{ada.agent.agent_id}?confirm=Ada", None),
        ("POST", "/agents/sync", None),
        ("GET", "/turns", None),
        ("GET", "/approvals", None),
    ):
        assert await speaker.refused(method, path, body) == (403, "forbidden"), path
