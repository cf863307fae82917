"""The Python client speaks the API that the OpenAPI document describes."""

import inspect
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import FastAPI
from starlette.routing import compile_path
from tests.builders import config_for
from typing_extensions import is_typeddict

from letta_matrix.client import LettaMatrix, types
from letta_matrix.doors.rest.app import make_app
from letta_matrix.operations.toolbox.registry import Toolbox

Json = dict[str, Any]

SCHEMAS = {
    "Agent": "Agent",
    "AgentDetails": "AgentDetails",
    "Answer": "Answer",
    "Turn": "Turn",
    "Approval": "Approval",
    "Token": "Token",
    "NewToken": "NewToken",
    "Tool": "Tool",
}
"""What the document calls them."""
RESULTS = {
    "Room": ("matrix_list_rooms", "Room"),
    "Member": ("matrix_list_rooms", "Member"),
    "Message": ("matrix_read_room", "Message"),
    "Messages": ("matrix_read_room", ""),
    "Sent": ("matrix_send_message", ""),
}
"""Whose results they are, and what they are called there."""
PROBES = {("GET", "/health"), ("GET", "/ready")}
"""Answered before the API is asked, and so not in its document."""
METHODS = sorted(
    name
    for name, _ in inspect.getmembers(LettaMatrix, inspect.isfunction)
    if not name.startswith("_") and name != "close"
)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """The REST API as it describes itself; it has nothing to answer with."""
    config = config_for(tmp_path_factory.mktemp("api"))
    return make_app(cast("Any", SimpleNamespace(config=config, homeserver=None)))


def typed_dicts() -> Iterator[tuple[str, Any]]:
    for name, kind in vars(types).items():
        if is_typeddict(kind):
            yield name, kind


def test_every_type_is_compared() -> None:
    assert {name for name, _ in typed_dicts()} == SCHEMAS.keys() | RESULTS.keys()


def assert_same(kind: Any, schema: Mapping[str, Any]) -> None:
    assert kind.__required_keys__ | kind.__optional_keys__ == schema["properties"].keys()
    assert kind.__required_keys__ == set(schema.get("required", ()))


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_type_has_the_fields_of_the_document(api: FastAPI, name: str) -> None:
    assert_same(getattr(types, name), api.openapi()["components"]["schemas"][SCHEMAS[name]])


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_a_type_has_the_fields_of_the_tools_result(tmp_path: Path, name: str) -> None:
    tool, part = RESULTS[name]
    schema = Toolbox(config_for(tmp_path), *[cast("Any", None)] * 7).tools[tool].results
    assert_same(getattr(types, name), schema["$defs"][part] if part else schema)


class Anything(Json):
    """An answer with an empty list of everything."""

    def __missing__(self, _: str) -> list[object]:
        return []


class Recorder:
    """A transport that sends nothing; `asked` are the method, the path and the query's keys."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, set[str]]] = []

    async def request(self, method: str, path: str, *_: Any, **options: Any) -> Json:
        self.asked.append((method, path, set(options.get("query") or {})))
        return Anything()

    @asynccontextmanager
    async def open(self, method: str, path: str, *_: Any, **options: Any) -> AsyncGenerator[Any]:
        await self.request(method, path, **options)

        async def chunks() -> AsyncGenerator[bytes]:
            yield b""

        yield SimpleNamespace(content=SimpleNamespace(iter_any=chunks))


async def asked_by(name: str) -> tuple[str, str, set[str]]:
    """What a method of the client asks, given something for all its arguments."""
    client, recorder = LettaMatrix("http://127.0.0.1"), Recorder()
    client._transport = cast("Any", recorder)
    method = getattr(client, name)
    kinds = inspect.Parameter
    required = [
        one
        for one in inspect.signature(method).parameters.values()
        if one.default is kinds.empty and one.kind is not kinds.VAR_KEYWORD
    ]
    named = {one.name: "x" for one in required if one.kind is kinds.KEYWORD_ONLY}
    called = method(*["x" for one in required if one.kind is not kinds.KEYWORD_ONLY], **named)
    if inspect.isasyncgen(called):
        assert [event async for event in called] == []
    else:
        await called
    (asked,) = recorder.asked
    return asked


@pytest.mark.parametrize("name", METHODS)
async def test_a_method_asks_what_the_document_has(api: FastAPI, name: str) -> None:
    method, path, query = await asked_by(name)
    if (method, path) in PROBES:
        return
    (operation,) = [
        methods[method.lower()]
        for known, methods in api.openapi()["paths"].items()
        if compile_path(known)[0].match(path) and method.lower() in methods
    ]
    known = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
    assert query <= known
