"""How requests have to be made: a body that is declared, a query that is known, ids in paths."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.fake_homeserver import FakeHomeserver
from tests.unit.api_stage import Api, api_on, lasting_stage, problem, stage_on

from letta_matrix.access.principal import Scope


@pytest.fixture(scope="module")
async def api(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Api]:
    directory = tmp_path_factory.mktemp("api")
    async with lasting_stage(migrated, directory) as stage, api_on(stage) as made:
        yield made


@pytest.fixture
async def fresh(fake: FakeHomeserver, database_file: Path) -> AsyncGenerator[Api]:
    async with stage_on(fake, database_file) as stage, api_on(stage) as made:
        yield made


@pytest.mark.parametrize("path", ["/api/v1/tokens", "/api/v1/tools/matrix_whoami", "/messages/get"])
@pytest.mark.parametrize(
    "declared", ["", "application/x-www-form-urlencoded", "text/plain", "application/a/b+json"]
)
async def test_bodies_that_are_not_declared_as_json(api: Api, path: str, declared: str) -> None:
    headers = {"Content-Type": declared} if declared else {}
    response = await api.call("POST", path, content=b"{}", headers=headers)
    assert problem(response) == (415, "unsupported-media-type")
    assert "`Content-Type: application/json`" in response.json()["detail"]
    assert ("success" in response.json()) is (path == "/messages/get")


@pytest.mark.parametrize("declared", ["application/json", "Application/JSON; charset=utf-8"])
async def test_a_body_that_is_declared_as_json(api: Api, declared: str) -> None:
    headers = {"Content-Type": declared}
    path = "/api/v1/tools/matrix_whoami"
    assert (await api.call("POST", path, content=b"{}", headers=headers)).status_code == 200
    assert (await api.call("POST", path)).status_code == 200


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/agents?limt=5&limit=5", "query.limt: is not known; this takes `after`, `limit`, `name`"),
        ("/whoami?a=1&b", "query.a, query.b: is not known; this takes no query."),
    ],
)
async def test_a_query_that_is_misspelt(api: Api, path: str, fault: str) -> None:
    response = await api.call("GET", f"/api/v1{path}")
    assert problem(response) == (422, "invalid-arguments")
    assert response.json()["detail"].startswith(fault)
    assert response.json()["faults"][0]["where"].startswith("query.")
    assert problem(await api.call("GET", f"/api/v1{path}", token="lm_x")) == (401, "unauthorized")


async def test_a_name_where_an_id_belongs(fresh: Api) -> None:
    agent = fresh.stage.stores.directory.all()[0]
    path = f"/api/v1/agents/{agent.name}"
    for asked in (
        await fresh.call("GET", path),
        await fresh.call("POST", f"{path}/messages", json={"message": "hello"}),
    ):
        assert problem(asked) == (404, "not-found")
        told = f"This path takes the agent_id: {agent.agent_id} is called {agent.name!r}."
        assert asked.json()["detail"] == told
    for token in (
        await fresh.token(rooms=frozenset({"!other:test"})),
        await fresh.token(frozenset({Scope.READ})),
    ):
        asked = await fresh.call("GET", f"{path}/messages", token)
        assert asked.json()["detail"] == f"There is no agent {agent.name!r}."
    await fresh.stage.add(2, name=agent.name)
    assert "There is no agent" in (await fresh.call("GET", path)).json()["detail"]
