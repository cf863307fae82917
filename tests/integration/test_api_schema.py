"""Whatever is sent to the REST API, it answers as its OpenAPI document says, and never with 5xx."""

import asyncio
import copy
from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks
from tests.builders import config_for
from tests.integration.bridge_world import Json, Person
from tests.integration.rest_world import Rest, rest_on
from tests.servers import Homeserver

from letta_matrix.api.app import make_app
from letta_matrix.api.problems import MEDIA_TYPE, PROBLEMS

_EXAMPLES = 5
_ELSEWHERE: list[Any] = [
    # Names that are made up are nobody's: 404 is right.
    checks.positive_data_acceptance,  # pyright: ignore[reportUnknownMemberType]
    # Tested below, at once for all operations.
    checks.ignored_auth,  # pyright: ignore[reportUnknownMemberType]
    checks.unsupported_method,  # pyright: ignore[reportUnknownMemberType]
]
_UNHEALTHY = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
_GETS_RID_OF_IT = ("DELETE", "PATCH")


def _document() -> Json:
    services: Any = SimpleNamespace(config=config_for(Path()), homeserver=None)
    return make_app(services).openapi()


DOCUMENT = _document()
OPERATIONS = [
    (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
]


def _cases() -> Iterator[tuple[str, str, GenerationMode]]:
    """What can be sent, rightly or wrongly: nothing is wrong where nothing is asked for."""
    for method, path in OPERATIONS:
        yield method, path, GenerationMode.POSITIVE
        operation = DOCUMENT["paths"][path][method.lower()]
        if "parameters" in operation or "requestBody" in operation:
            yield method, path, GenerationMode.NEGATIVE


@pytest.fixture(scope="module")
async def rest(
    homeserver: Homeserver, ann: Person, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Rest]:
    directory = tmp_path_factory.mktemp("rest")
    limits = {"access": {"calls_per_minute": 1_000_000}}
    async with rest_on(homeserver, directory, ann, **limits) as running:
        yield running


@pytest.fixture(scope="module")
def real(rest: Rest) -> Any:
    """The document, with names that there are beside those that are made up."""
    document = copy.deepcopy(DOCUMENT)
    names = {
        "agent_id": [rest.room.agent.agent_id],
        "room": [rest.room.room_id],
        "room_id": [rest.room.room_id],
        "name": ["matrix_whoami", "matrix_read_room", "matrix_send_message"],
    }
    for method, path in OPERATIONS:
        operation = document["paths"][path][method.lower()]
        # Every example is sent with a token: it is no part of what is made up.
        operation.pop("security", None)
        if method not in _GETS_RID_OF_IT:
            _offer(operation.get("parameters", []), names)
    for schema in document["components"]["schemas"].values():
        fields = schema.get("properties", {})
        _offer([{"name": "room_id", "schema": fields.get("room_id", {})}], names)
    return schemathesis.openapi.from_dict(document)


def _offer(parameters: list[Json], names: Mapping[str, list[str]]) -> None:
    for parameter in parameters:
        schema = parameter["schema"]
        if parameter["name"] in names and schema.get("type") == "string":
            parameter["schema"] |= {"anyOf": [{"enum": names[parameter["name"]]}, dict(schema)]}


@pytest.mark.parametrize(("method", "path", "mode"), list(_cases()))
async def test_it_answers_as_documented(
    rest: Rest, real: Any, method: str, path: str, mode: GenerationMode
) -> None:
    operation = real[path][method]
    headers = {"Authorization": f"Bearer {rest.token}"}

    def fuzz() -> None:
        with requests.Session() as session:

            @seed(4)
            @settings(
                max_examples=_EXAMPLES,
                deadline=None,
                database=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=_UNHEALTHY,
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                case.call_and_validate(
                    rest.url, session, headers, excluded_checks=_ELSEWHERE, timeout=30
                )

            send()

    await asyncio.to_thread(fuzz)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_every_other_method_is_refused(rest: Rest, method: str, path: str) -> None:
    taken = {name.upper() for name in DOCUMENT["paths"][path]}
    other = next(name for name in ("PUT", "POST", "GET") if name not in taken)
    answer = await rest.call(other, path)
    assert answer.problem == (405, "method-not-allowed")
    assert taken <= set(answer.headers["Allow"].split(", "))
    assert other not in answer.headers["Allow"]


@pytest.mark.parametrize(
    ("method", "path"),
    [(m, p) for m, p in OPERATIONS if "security" in DOCUMENT["paths"][p][m.lower()]],
)
async def test_nothing_goes_without_a_token(rest: Rest, method: str, path: str) -> None:
    body = None if method == "GET" else _example(DOCUMENT["paths"][path][method.lower()])
    path = path.replace("{agent_id}", rest.room.agent.agent_id)
    answer = await rest.call(method, path, body, token="")
    assert answer.problem == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


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


def _example(operation: Json) -> Any:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return None if content is None else _example_of(content)


def _example_of(content: Json) -> Any:
    if "example" in content:
        return content["example"]
    named = list(content.get("examples", {}).values())
    return named[0]["value"] if named else content["schema"]["examples"][0]
