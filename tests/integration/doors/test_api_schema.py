"""Whatever is sent to the REST API, it answers as its OpenAPI document says, and never with 5xx."""

import asyncio
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks
from tests.integration.bridge_world import Json, Room, World
from tests.integration.doors.rest import Rest, rest_as
from tests.rest_document import DOCUMENT, OPERATIONS
from tests.stress import examples
from tests.waiting import DEADLINE

from letta_matrix.doors.rest.event_stream import STREAM

_ELSEWHERE: list[Any] = [
    # Names that are made up are nobody's: 404 is right.
    checks.positive_data_acceptance,  # pyright: ignore[reportUnknownMemberType]
    # Tested in tests/unit/test_api_document.py, at once for all operations.
    checks.ignored_auth,  # pyright: ignore[reportUnknownMemberType]
    checks.unsupported_method,  # pyright: ignore[reportUnknownMemberType]
]
# By any status that says so: what is too long for its field may be too large for us, too (413).
_REFUSED = SchemathesisConfig.from_dict(
    {"checks": {"negative_data_rejection": {"expected-statuses": ["4xx"]}}}
)
_UNHEALTHY = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
_GETS_RID_OF_IT = ("DELETE", "PATCH")


def _cases() -> Iterator[tuple[str, str, GenerationMode]]:
    """What can be sent, rightly or wrongly: nothing is wrong where nothing is asked for."""
    for method, path in OPERATIONS:
        operation = DOCUMENT["paths"][path][method.lower()]
        if list(operation["responses"].get("200", {}).get("content", {})) == [STREAM]:
            continue  # it ends with whoever reads it: see tests/browser/test_dashboard.py
        yield method, path, GenerationMode.POSITIVE
        if "parameters" in operation or "requestBody" in operation:
            yield method, path, GenerationMode.NEGATIVE


@pytest.fixture(scope="module")
async def rest(world: World) -> Rest:
    return await rest_as(world, below="")


@pytest.fixture(scope="module")
def real(ada: Room) -> Any:
    """The document, with names that there are beside those that are made up."""
    document = copy.deepcopy(DOCUMENT)
    names = {
        "agent_id": [ada.agent.agent_id],
        "room": [ada.room_id],
        "room_id": [ada.room_id],
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
    return schemathesis.openapi.from_dict(document, config=_REFUSED)


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
                max_examples=examples(2, searching=15),
                deadline=None,
                database=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=_UNHEALTHY,
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                case.call_and_validate(
                    rest.url, session, headers, excluded_checks=_ELSEWHERE, timeout=DEADLINE
                )

            send()

    await asyncio.to_thread(fuzz)
