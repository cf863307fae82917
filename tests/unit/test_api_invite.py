"""People are let into agents' rooms by programs that may."""

from collections.abc import AsyncGenerator

import pytest
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.stage import Stage
from tests.unit.api_stage import Api, api_on, problem

from letta_matrix.access.principal import Scope

PATH = "/api/v1/agents/agent-1/invite"
BOB = {"user_id": "@bob:test"}


@pytest.fixture
async def api(stage: Stage) -> AsyncGenerator[Api]:
    async with api_on(stage) as made:
        yield made


async def test_somebody_is_invited_once(api: Api, fake: FakeHomeserver) -> None:
    token, keyed = await api.token(), {"Idempotency-Key": "k1"}
    for _ in range(2):
        response = await api.call("POST", PATH, token, json=BOB, headers=keyed)
        assert response.json() == {
            "agent_id": "agent-1",
            "room_id": "!1:test",
            "user_id": "@bob:test",
            "membership": "invite",
            "outcome": "invited",
        }
    (one,) = fake.matching("POST .*/invite")
    assert (one.user_id, one.body) == ("@agent_1:test", BOB)


@pytest.mark.parametrize(("before", "after"), [("join", "join"), ("invite", "invite")])
async def test_who_is_in_already_is_not(
    api: Api, fake: FakeHomeserver, before: str, after: str
) -> None:
    fake.set_state("!1:test", "m.room.member", {"membership": before}, "@bob:test")
    assert (await api.call("POST", PATH, json=BOB)).json()["membership"] == after
    assert not fake.matching("POST .*/invite")


async def test_what_was_refused_is_tried_again(api: Api, fake: FakeHomeserver) -> None:
    token, keyed = await api.token(), {"Idempotency-Key": "k2"}
    for membership, status in (("ban", 409), ("leave", 200)):
        fake.set_state("!1:test", "m.room.member", {"membership": membership}, "@bob:test")
        answer = await api.call("POST", PATH, token, json=BOB, headers=keyed)
        assert answer.status_code == status


async def test_what_cannot_be_stopped_is_tried_again(api: Api) -> None:
    turn = await api.stage.turn()
    token, keyed = await api.token(), {"Idempotency-Key": "k3"}
    for _ in range(2):
        path = f"/api/v1/turns/{turn.turn_id}/cancel"
        assert problem(await api.call("POST", path, token, headers=keyed)) == (409, "conflict")
    await api.stage.parts.toolbox.ledger.close()
    (entry,) = await api.stage.stores.audit.newest(9)
    assert (entry.tool, entry.outcome) == ("turns.cancel", "conflict")


async def test_what_cannot_be_is_told(api: Api, fake: FakeHomeserver) -> None:
    refused = await api.call("POST", PATH, json={"user_id": "@agent_2:test"})
    assert problem(refused) == (409, "conflict")
    fake.fail("POST .*/invite", Fault(403, {"errcode": "M_FORBIDDEN", "error": "no"}))
    assert problem(await api.call("POST", PATH, json=BOB)) == (403, "forbidden")
    fake.set_state("!1:test", "m.room.member", {"membership": "ban"}, "@bob:test")
    assert problem(await api.call("POST", PATH, json=BOB)) == (409, "conflict")
    nobody = await api.call("POST", "/api/v1/agents/agent-9/invite", json=BOB)
    assert problem(nobody) == (404, "not-found")
    guest = await api.token(frozenset(Scope) - {Scope.ADMIN})
    assert problem(await api.call("POST", PATH, guest, json=BOB)) == (403, "forbidden")
