"""The OpenAPI document: every operation is in it, as it is, with examples that fit."""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests.fake_homeserver import FakeHomeserver
from tests.rest_document import DOCUMENT, OPERATIONS
from tests.unit.api_stage import ALL, Api, api_on, problem, stage_on

from letta_matrix.access.principal import Scope
from letta_matrix.doors.rest.problems import MEDIA_TYPE, PROBLEMS
from letta_matrix.doors.rest.security import SCOPE
from letta_matrix.operations.registry import every

Json = dict[str, Any]


@pytest.fixture
async def api(fake: FakeHomeserver, database_file: Path) -> AsyncGenerator[Api]:
    async with stage_on(fake, database_file) as stage, api_on(stage) as made:
        yield made


async def test_every_other_method_is_refused(api: Api, subtests: pytest.Subtests) -> None:
    for path, methods in DOCUMENT["paths"].items():
        taken = {name.upper() for name in methods}
        other = next(name for name in ("PUT", "POST", "GET") if name not in taken)
        with subtests.test(path=path):
            answer = await api.http.request(other, path)
            assert problem(answer) == (405, "method-not-allowed")
            allowed = set(answer.headers["Allow"].split(", "))
            assert taken <= allowed
            assert other not in allowed


async def test_nothing_goes_without_a_token(api: Api, subtests: pytest.Subtests) -> None:
    for method, path in OPERATIONS:
        operation = DOCUMENT["paths"][path][method.lower()]
        if "security" not in operation:
            continue
        body = None if method == "GET" else _example(operation)
        with subtests.test(method=method, path=path):
            answer = await api.http.request(
                method, path.replace("{agent_id}", "agent-1"), json=body
            )
            assert problem(answer) == (401, "unauthorized")
            assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_the_scope_that_is_told_is_the_one_that_is_needed(
    api: Api, subtests: pytest.Subtests
) -> None:
    says_itself = {one.called for one in every() if one.scope is None}
    tokens = {scope: await api.token(ALL - {scope}) for scope in Scope}
    none = await api.token(frozenset())
    for method, path in OPERATIONS:
        operation = DOCUMENT["paths"][path][method.lower()]
        if "security" not in operation or operation["operationId"] in says_itself:
            continue
        scope = operation.get(SCOPE)
        with subtests.test(method=method, path=path):
            answer = await api.call(
                method,
                path.replace("{agent_id}", "agent-1").replace("{name}", "matrix_whoami"),
                tokens[Scope(scope)] if scope else none,
                params=[(name, "x") for name in _needed_in_query(operation)],
                **({"content": b"x"} if path.endswith("/media") else {"json": _example(operation)}),
            )
            forbidden = answer.status_code == 403 and problem(answer)[1] == "forbidden"
            # Any tool asks for its own.
            assert forbidden == (scope is not None or path.endswith("/tools/{name}")), answer.text


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_operation_is_documented(method: str, path: str) -> None:
    operation = DOCUMENT["paths"][path][method.lower()]
    assert operation["summary"]
    assert operation["description"]
    for content in _contents(operation):
        assert "example" in content or "examples" in content or content["schema"]["examples"]
    for code, response in operation["responses"].items():
        if code >= "400" and (path, code) != ("/ready", "503"):
            examples = response["content"][MEDIA_TYPE]["examples"]
            assert {str(PROBLEMS[slug].status) for slug in examples} == {code}


def test_operations_have_names_of_their_own() -> None:
    names = [DOCUMENT["paths"][path][method.lower()]["operationId"] for method, path in OPERATIONS]
    assert sorted(names) == sorted(set(names))
    assert all(name.isidentifier() for name in names)


def test_examples_fit_their_schemas(subtests: pytest.Subtests) -> None:
    for method, path in OPERATIONS:
        for content in _contents(DOCUMENT["paths"][path][method.lower()]):
            with subtests.test(method=method, path=path):
                schema = {**content["schema"], "components": DOCUMENT["components"]}
                Draft202012Validator(schema).validate(_example_of(content))


def _contents(operation: Json) -> Iterator[Json]:
    for part in [operation.get("requestBody", {}), *operation["responses"].values()]:
        if "application/json" in part.get("content", {}):
            yield part["content"]["application/json"]


def _needed_in_query(operation: Json) -> list[str]:
    parameters = operation.get("parameters", [])
    taken = [one for one in parameters if one["in"] == "query"]
    # A file has to be called something, here or in its form.
    return [one["name"] for one in taken if one["required"] or one["name"] == "filename"]


def _example(operation: Json) -> Any:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return None if content is None else _example_of(content)


def _example_of(content: Json) -> Any:
    if "example" in content:
        return content["example"]
    named = list(content.get("examples", {}).values())
    return named[0]["value"] if named else content["schema"]["examples"][0]
