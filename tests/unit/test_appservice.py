"""What the homeserver calls: nothing it sends blocks its queue, nobody else gets in."""

import asyncio
import io
import json
import math
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.builders import message

from letta_matrix.matrix.appservice import Appservice, Events

HEADERS = {"Authorization": "Bearer hs-secret"}
TRANSACTION = "/_matrix/app/v1/transactions/t1"


class Handler:
    """Keeps what it is given, or fails."""

    def __init__(self) -> None:
        self.admitted: list[tuple[str, Events]] = []
        self.fault: Exception | None = None
        self.ready = False

    async def admit(self, txn_id: str, events: Events) -> None:
        if self.fault is not None:
            raise self.fault
        self.admitted.append((txn_id, events))

    async def has_user(self, user_id: str) -> bool:
        return user_id == "@agent_1:test"

    def is_ready(self) -> bool:
        return self.ready


class Service:
    """A running appservice and a client of it."""

    def __init__(self, http: aiohttp.ClientSession, url: str, service: Appservice) -> None:
        self.http, self.url, self.service = http, url, service
        self.handler = Handler()

    async def call(
        self, method: str, path: str, data: object = None, headers: Any = HEADERS
    ) -> tuple[int, Any]:
        body = io.BytesIO(data if isinstance(data, bytes) else json.dumps(data).encode())
        async with self.http.request(
            method, self.url + path, data=body, headers=headers
        ) as response:
            assert response.content_type == "application/json", await response.text()
            return response.status, await response.json()


@pytest.fixture(scope="module")
async def running() -> AsyncGenerator[Service]:
    async with aiohttp.ClientSession() as http:
        service = Service(http, "", Appservice("hs-secret", Handler()))
        runner = web.AppRunner(service.service.application(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield service
        await runner.cleanup()


@pytest.fixture
def service(running: Service) -> Service:
    running.handler = Handler()
    running.service._handler = running.handler
    running.service.counters.clear()
    return running


async def test_a_transaction_is_admitted_before_the_answer(service: Service) -> None:
    event = message()
    assert await service.call("PUT", TRANSACTION, {"events": [event]}) == (200, {})
    assert service.handler.admitted == [("t1", [event])]
    assert service.service.counters["transactions"] == 1


async def test_the_old_path_and_the_old_token_work(service: Service) -> None:
    status, _ = await service.call(
        "PUT", "/transactions/t2?access_token=hs-secret", {"events": []}, {}
    )
    assert status == 200
    assert service.handler.admitted == [("t2", [])]


async def test_what_is_not_stored_is_not_acknowledged(service: Service) -> None:
    service.handler.fault = RuntimeError("disk full\n[SQL: INSERT of something private]")
    with capture_logs() as logs:
        status, answer = await service.call("PUT", TRANSACTION, {"events": [message()]})
    assert (status, answer["errcode"]) == (500, "M_UNKNOWN")
    assert service.service.counters["transactions_refused"] == 1
    assert "disk full" in logs[0]["error"]
    assert "private" not in str(logs)


@pytest.mark.parametrize("path", [TRANSACTION, "/_matrix/app/v1/users/@agent_1:test"])
@pytest.mark.parametrize(
    ("headers", "status", "errcode"),
    [
        ({}, 401, "M_UNAUTHORIZED"),
        ({"Authorization": "Basic hs-secret"}, 401, "M_UNAUTHORIZED"),
        ({"Authorization": "Bearer "}, 401, "M_UNAUTHORIZED"),
        ({"Authorization": "Bearer wrong"}, 403, "M_FORBIDDEN"),
        ({"Authorization": "Bearer hs-secret2"}, 403, "M_FORBIDDEN"),
        ({"Authorization": "Bearer \u00e4\u20ac"}, 403, "M_FORBIDDEN"),
    ],
)
async def test_only_the_homeserver_gets_in(
    service: Service, path: str, headers: dict[str, str], status: int, errcode: str
) -> None:
    method = "PUT" if path == TRANSACTION else "GET"
    answered, answer = await service.call(method, path, {"events": [message()]}, headers)
    assert (answered, answer["errcode"]) == (status, errcode)
    assert service.handler.admitted == []
    assert service.service.counters["unauthorized"] == 1
    assert "hs-secret" not in str(answer)


async def test_a_token_that_is_no_text_is_wrong(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    path = b"/_matrix/app/v1/users/x"
    writer.write(b"GET " + path + b" HTTP/1.0\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
    assert b" 403 " in await reader.readline()
    writer.close()


async def test_a_wrong_token_is_told_to_the_operator_without_it(service: Service) -> None:
    service.service._warned_at = -math.inf
    with capture_logs() as logs:
        for _ in range(5):
            await service.call("PUT", TRANSACTION, {}, {"Authorization": "Bearer guessed-token"})
    (line,) = logs
    assert "registration file" in line["event"]
    assert service.service.counters["unauthorized"] == 5
    assert "guessed-token" not in str(logs)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\x00", b"nonsense"])
async def test_what_is_not_json_is_400(service: Service, body: bytes) -> None:
    status, answer = await service.call("PUT", TRANSACTION, body)
    assert (status, answer["errcode"]) == (400, "M_NOT_JSON")


@pytest.mark.parametrize(
    "body", [[], "x", 7, None, {}, {"events": None}, {"events": {"0": {}}}, {"ephemeral": []}]
)
async def test_a_transaction_without_events_passes(service: Service, body: object) -> None:
    assert await service.call("PUT", TRANSACTION, body) == (200, {})
    assert service.handler.admitted == [("t1", [])]
    assert service.service.counters["transactions_malformed"] == 1


async def test_sound_events_beside_broken_ones_are_kept(service: Service) -> None:
    event = message()
    body: dict[str, Any] = {
        "events": [None, 3, "x", [], {}, event, [[]]],
        "de.sorunome.msc2409.ephemeral": [7],
    }
    assert await service.call("PUT", TRANSACTION, body) == (200, {})
    assert service.handler.admitted == [("t1", [event])]
    assert service.service.counters["events_malformed"] == 6


async def test_numbers_python_does_not_like_pass(service: Service) -> None:
    body = b'{"events": [{"n": ' + b"9" * 10_000 + b', "f": 1e999, "x": NaN, "y": -Infinity}]}'
    assert (await service.call("PUT", TRANSACTION, body))[0] == 200


async def test_nesting_without_end_does_not_block_the_queue(service: Service) -> None:
    body = b'{"events": [{"content": ' + b"[" * 30_000 + b"]" * 30_000 + b"}]}"
    assert (await service.call("PUT", TRANSACTION, body))[0] == 200
    assert service.service.counters["transactions_malformed"] == 1


async def test_a_huge_transaction_passes(service: Service) -> None:
    events = [message("x" * 65_000) for _ in range(100)]
    assert await service.call("PUT", TRANSACTION, {"events": events}) == (200, {})
    assert len(service.handler.admitted[0][1]) == 100


@pytest.mark.parametrize("txn_id", ["%00", "%ff", "a%2Fb", "%F0%9F%94%81", "x" * 4000])
async def test_any_txn_id_passes(service: Service, txn_id: str) -> None:
    path = f"/_matrix/app/v1/transactions/{txn_id}"
    assert (await service.call("PUT", path, {"events": []}))[0] == 200
    service.handler.admitted[0][0].encode()


async def test_queries(service: Service) -> None:
    base = "/_matrix/app/v1"
    assert (await service.call("GET", f"{base}/users/@agent_1:test"))[0] == 200
    status, answer = await service.call("GET", f"{base}/users/@agent_9:test")
    assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")
    status, answer = await service.call("GET", f"{base}/rooms/%23agent_9:test")
    assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


async def test_ping(service: Service) -> None:
    answer = await service.call("POST", "/_matrix/app/v1/ping", {"transaction_id": "x"})
    assert answer == (200, {})
    assert service.service.counters["pings"] == 1


@pytest.mark.parametrize("kind", ["user", "location", "user/sms", "location/sms"])
async def test_third_party_look_ups_find_nothing(service: Service, kind: str) -> None:
    assert await service.call("GET", f"/_matrix/app/v1/thirdparty/{kind}") == (200, [])


async def test_unknown_protocols_endpoints_and_methods(service: Service) -> None:
    status, answer = await service.call("GET", "/_matrix/app/v1/thirdparty/protocol/sms")
    assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")
    status, answer = await service.call("GET", "/_matrix/app/v2/new")
    assert (status, answer["errcode"]) == (404, "M_UNRECOGNIZED")
    status, answer = await service.call("POST", TRANSACTION)
    assert (status, answer["errcode"]) == (405, "M_UNRECOGNIZED")


async def test_probes_need_no_token(service: Service) -> None:
    assert (await service.call("GET", "/_matrix/mau/live", headers={}))[0] == 200
    assert (await service.call("GET", "/_matrix/mau/ready", headers={}))[0] == 503
    service.handler.ready = True
    assert (await service.call("GET", "/_matrix/mau/ready", headers={}))[0] == 200


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(any_json | st.fixed_dictionaries({"events": any_json | st.lists(any_json)}))
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_any_json_is_acknowledged(service: Service, body: object) -> None:
    assert await service.call("PUT", TRANSACTION, body) == (200, {})
    assert all(service.handler.admitted[-1][1])
