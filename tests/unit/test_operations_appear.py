"""An operation that a file declares appears by itself in all doors that its declaration names."""

import sys
from collections.abc import Generator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_type_hints

import pytest
from jsonschema import Draft202012Validator
from tests.builders import PERSON, message
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage
from tests.unit.api_stage import api_on, problem

from letta_matrix import operations
from letta_matrix.access.principal import TOOL_SCOPES, Principal, Scope
from letta_matrix.doors.chat import registry as commands
from letta_matrix.doors.mcp.caller import PRINCIPAL, TOOLSET
from letta_matrix.doors.mcp.tools import Tools
from letta_matrix.operations import registry
from letta_matrix.operations.given import Given
from letta_matrix.operations.toolbox.toolsets import Toolset

FILE = '''
"""Wishing agents well."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.principal import Scope
from letta_matrix.common.parts import part
from letta_matrix.operations.operation import operation
from letta_matrix.operations.typed import Argument, Kind, Typed
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.operations.toolbox.finding import find_agent
from letta_matrix.operations.toolbox.tool import Caller, Line, Params, Result, WriteParams


class Wish(WriteParams):
    agent_id: Line
    words: Line = Field(max_length=50, description="what they are wished")


class Wished(TypedDict):
    agent: str
    words: Annotated[str, Field(description="as they were said")]


_SAY = Typed(
    "wish",
    "wishes an agent well.",
    (Argument("AGENT", required=True, field="agent_id"), Argument("WORDS", Kind.TEXT)),
    says="{agent} is wished {words}.",
)


_COUNT = Typed("wishes", "counts them.")


@part
class Wishes:
    _directory: AgentDirectory

    @operation(
        "wishes.say", Scope.ADMIN, Wished, rest="POST /agents/{agent_id}/wish", typed=_SAY, mcp=True
    )
    async def wish_well(self, caller: Caller, params: Wish) -> Result:
        """Wish an agent well."""
        agent = find_agent(params.agent_id, self._directory.active())
        return {"agent": agent.name, "words": params.words}


@operation("wishes.count", None, dict[str, int], rest="GET /wishes", typed=_COUNT)
async def count_wishes(caller: Caller, params: Params) -> Result:
    """Tell how many wishes there are."""
    return {"wishes": 3}
'''


def forget() -> None:
    registry.every.cache_clear()
    commands.all_commands.cache_clear()


@pytest.fixture
def wishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """The folder of the operations has one file more."""
    (tmp_path / "wishes.py").write_text(FILE)
    monkeypatch.setattr(operations, "__path__", [*operations.__path__, str(tmp_path)])
    forget()
    yield
    sys.modules.pop("letta_matrix.operations.wishes", None)
    monkeypatch.delattr(operations, "wishes", raising=False)
    forget()


@pytest.fixture
async def wished(wishes: None, stage: Stage) -> Stage:
    stage._sections |= {"permissions": {"test": "user", PERSON: "admin"}}
    await stage.again()
    return stage


async def test_it_is_an_endpoint(wished: Stage) -> None:
    async with api_on(wished) as api:
        path, key = "/api/v1/agents/agent-1/wish", {"Idempotency-Key": "w1"}
        token, name = await api.token(), wished.stores.directory.all()[0].name
        for _ in range(2):
            answer = await api.call("POST", path, token, json={"words": "luck"}, headers=key)
            assert answer.json() == {"agent": name, "words": "luck"}
        other = await api.call("POST", path, token, json={"words": "rain"}, headers=key)
        assert problem(other) == (409, "conflict")
        wrong = await api.call("POST", path, token, json={"words": "x" * 51})
        assert problem(wrong) == (422, "invalid-arguments")
        unknown = await api.call("POST", "/api/v1/agents/agent-9/wish", json={"words": "luck"})
        assert problem(unknown) == (404, "not-found")
        user = await api.token(TOOL_SCOPES)
        refused = await api.call("POST", path, user, json={"words": "luck"})
        assert problem(refused) == (403, "forbidden")
        assert (await api.call("GET", "/api/v1/wishes", user)).json() == {"wishes": 3}
        document = (await api.http.get("/openapi.json")).json()
    endpoint = document["paths"]["/api/v1/agents/{agent_id}/wish"]["post"]
    assert (endpoint["operationId"], endpoint["summary"]) == ("wish_well", "Wish an agent well")
    assert (endpoint["tags"], endpoint["security"]) == (["agents"], [{"token": []}])
    assert {"403", "404", "409", "422", "503"} <= endpoint["responses"].keys()
    for part in (endpoint["requestBody"], endpoint["responses"]["200"]):
        content = part["content"]["application/json"]
        schema = {**content["schema"], "components": document["components"]}
        Draft202012Validator(schema).validate(content["example"])
    body = document["components"]["schemas"]["Wish"]
    assert set(body["properties"]) == {"words", "transaction_id"}


async def test_it_is_a_command(wished: Stage, fake: FakeHomeserver) -> None:
    name = wished.stores.directory.all()[0].name
    await wished.tell(
        message(f'!wish "{name}" much *luck*'), message("!wishes"), message("!help wish")
    )
    assert fake.bodies("!1:test") == [
        f"`{name}` is wished `much *luck*`.",
        "- wishes: `3`",
        "`!wish AGENT [WORDS]`: wishes an agent well.\nFor admins only.",
    ]


async def test_it_is_a_tool_for_admins(wished: Stage) -> None:
    toolbox = wished.parts.toolbox
    tools, admin = Tools(toolbox), Principal("token:a", "", frozenset(Scope))

    async def shown_to(principal: Principal) -> list[str]:
        request = SimpleNamespace(scope={PRINCIPAL: principal, TOOLSET: Toolset.ALL})
        context = cast("Any", SimpleNamespace(request=request))
        listed = await tools.list(context, cast("Any", SimpleNamespace(cursor=None)))
        return [tool["name"] for tool in listed["tools"]]

    assert "wish_well" in await shown_to(admin)
    assert "count_wishes" not in await shown_to(admin)
    assert "wish_well" not in await shown_to(Principal("token:b", "", TOOL_SCOPES))
    assert "wish_well" not in {one.name for one in toolbox.specs()}
    wish = {"agent_id": "agent-1", "words": "luck", "transaction_id": "t1"}
    done = await toolbox.call(admin, "wish_well", wish, door="mcp")
    assert done["words"] == "luck"
    assert (await toolbox.do(admin, "wishes.say", wish, door="api")) == done
    await toolbox.ledger.close()
    (entry,) = await wished.stores.audit.newest(9)
    assert (entry.tool, entry.door, entry.outcome) == ("wishes.say", "mcp", "ok")


def test_a_class_is_given_what_its_fields_say() -> None:
    known = get_type_hints(Given)
    for owner in registry.owners():
        if isinstance(owner, type):
            hints = get_type_hints(owner)
            wanted = {field.name: hints[field.name] for field in fields(cast("Any", owner))}
            assert wanted == {name: known[name.lstrip("_")] for name in wanted}, owner
