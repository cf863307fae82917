"""What holds for every endpoint of the REST API, and the ones about the bridge itself."""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.fake_homeserver import FakeHomeserver
from tests.unit.api_stage import ALL, HEALTH, Api, api_on, lasting_stage, problem, stage_on
from tests.waiting import Clock, eventually

from letta_matrix.access.faults import Fault
from letta_matrix.access.grants import lifetime_of
from letta_matrix.access.principal import Scope
from letta_matrix.access.secrets import token_id_of
from letta_matrix.doors.rest.problems import PROBLEMS, Problem, response
from letta_matrix.operations.toolbox.registry import Toolbox
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.tokens import TokenStore

ROOM = "!1:test"
ORIGIN = "https://app.example"
SECTIONS: dict[str, Any] = {
    "api": {"max_body_bytes": 2_000_000, "cors_origins": [ORIGIN]},
    "access": {"calls_per_minute": 1000},
}


@pytest.fixture(scope="module")
async def api(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Api]:
    """The API for tests that do not count what there is."""
    directory = tmp_path_factory.mktemp("api")
    async with lasting_stage(migrated, directory, **SECTIONS) as stage, api_on(stage) as made:
        yield made


@pytest.fixture
async def fresh(fake: FakeHomeserver, database_file: Path) -> AsyncGenerator[Api]:
    """An API that nobody has used."""
    async with stage_on(fake, database_file, **SECTIONS) as stage, api_on(stage) as made:
        yield made


def test_every_fault_of_a_tool_is_a_problem() -> None:
    assert {str(fault) for fault in Fault} <= PROBLEMS.keys()


async def test_the_document_is_for_everybody(api: Api) -> None:
    document = await api.http.get("/openapi.json")
    assert document.json()["openapi"].startswith("3.1")
    assert document.json()["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff\xfe{}",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": ' + b"9" * 5_000 + b"}",
    ],
    ids=["cut", "not UTF-8", "deep", "huge number"],
)
async def test_bodies_that_are_no_json(api: Api, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = await api.call("POST", "/api/v1/tokens", content=body, headers=headers)
    assert problem(response) == (400, "malformed-body")


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/api/v1/tools/matrix_upload_file", 2_000_000),
        ("/api/v1/rooms/!1:test/messages", 1_300_000),
        ("/api/v1/tokens", 256_000),
        ("/messages/send", 128_000),
        ("/login", 128_000),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_that_are_too_large(api: Api, path: str, most: int, chunked: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(most // 100_000 + 1):
            yield b" " * 100_000

    content = chunks() if chunked else b" " * (most + 1)
    response = await api.call("POST", path, content=content)
    assert problem(response) == (413, "too-large")
    assert f"{most} bytes" in response.json()["detail"]


async def test_the_longest_message_fits_however_it_is_escaped(api: Api) -> None:
    content = json.dumps({"message": "\U0001f600" * 100_000}).encode()
    headers = {"Content-Type": "application/json"}
    path = f"/api/v1/rooms/{ROOM}/messages"
    response = await api.call("POST", path, content=content, headers=headers)
    assert response.status_code == 201, response.text


async def test_nothing_is_read_of_strangers(api: Api) -> None:
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(10):
            read += 1
            yield b" " * 100_000

    response = await api.call("POST", "/api/v1/tokens", "lm_nobody_x", content=chunks())
    assert problem(response) == (401, "unauthorized")
    assert read == 0


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"scopes": []}, "body.scopes"),
        ({"scopes": ["root"]}, "body.scopes.0"),
        ({"scopes": ["read"], "rooms": ["ada"]}, "body.rooms.0"),
        ({"scopes": ["read"], "rooms": []}, "body.rooms"),
        ({"scopes": ["read"], "expires_in": -1}, "body.expires_in"),
        ({"scopes": ["read"], "label": "a\x00b"}, "body.label"),
        ({"scopes": ["read"], "label": "a\u202eb"}, "body.label"),
        ({"scopes": ["read"], "label": "x" * 201}, "body.label"),
        ({"scopes": ["read", "admin"], "rooms": [ROOM]}, "body"),
        ({"scopes": ["admin"], "agent_id": "agent-1"}, "body"),
        ({"scopes": ["read"], "x" * 9_000: 1}, "body.xxx"),
        ({"scopes": ["read"], "\ud800": 1}, "body"),
        ({"scopes": ["read"], "label": "\ud800"}, "body.label"),
        ([], "body"),
    ],
)
async def test_each_fault_is_named(api: Api, given: object, where: str) -> None:
    headers = {"Content-Type": "application/json"}
    content = json.dumps(given).encode()
    response = await api.call("POST", "/api/v1/tokens", content=content, headers=headers)
    assert problem(response) == (422, "invalid-arguments")
    (fault,) = response.json()["faults"]
    assert fault["where"].startswith(where)
    assert len(response.content) < 2_000


async def test_what_is_not_there(api: Api) -> None:
    assert problem(await api.call("GET", "/api/v1/nothing")) == (404, "not-found")
    assert problem(await api.call("GET", "/api/v1/tokens/")) == (404, "not-found")
    assert problem(await api.call("GET", "/a%0ab")) == (404, "not-found")
    refused = await api.call("PUT", "/api/v1/tokens")
    assert problem(refused) == (405, "method-not-allowed")
    assert refused.headers["Allow"] == "GET, POST"
    assert problem(await api.call("POST", "/health")) == (405, "method-not-allowed")


async def test_answers_are_kept_nowhere(api: Api) -> None:
    for path in ("/api/v1/whoami", "/api/v1/nothing", "/rooms/list?homeserver=x"):
        headers = (await api.call("GET", path)).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]


async def test_a_defect_of_ours_tells_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(Toolbox, "tools_for", broken)
    with capture_logs() as logs:
        response = await api.call("GET", "/api/v1/tools")
    assert problem(response) == (500, "failed")
    assert [str(line["exc_info"]) for line in logs] == ["a secret"]
    assert "secret" not in response.text
    assert "RuntimeError" not in response.text


async def test_the_database_is_away(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await api.token()

    async def away(*_: object) -> None:
        raise StoreUnavailable("x")

    monkeypatch.setattr(TokenStore, "all", away)
    response = await api.call("GET", "/api/v1/tokens", token)
    assert problem(response) == (503, "unavailable")
    assert response.headers["Retry-After"] == "10"


@pytest.mark.parametrize(("given", "told"), [({}, "10"), ({"Retry-After": "3"}, "3")])
def test_whoever_finds_nothing_at_home_hears_when_to_come_back(
    given: dict[str, str], told: str
) -> None:
    away = response(Problem("unavailable", "A runtime cannot be listed.", given))
    assert (away.status_code, away.headers["Retry-After"]) == (503, told)
    assert "Retry-After" not in response(Problem("refused", "no")).headers


async def test_too_often(api: Api, clock: Clock) -> None:
    clock.stop()
    token = await api.token()
    config = api.stage.config
    seldom = config.access.model_copy(update={"calls_per_minute": 1})
    fresh = Api(api.stage, config.model_copy(update={"access": seldom}))
    assert (await fresh.call("GET", "/api/v1/whoami", token)).status_code == 200
    response = await fresh.call("GET", "/api/v1/whoami", token)
    assert problem(response) == (429, "rate-limited")
    assert response.headers["Retry-After"] == "60"
    clock.advance(60)
    assert (await fresh.call("GET", "/api/v1/whoami", token)).status_code == 200
    await fresh.http.aclose()


async def test_names_and_pages_of_others_are_refused(api: Api) -> None:
    host = await api.call("GET", "/api/v1/whoami", headers={"Host": "evil.example"})
    assert problem(host) == (421, "host-refused")
    assert host.json()["title"] == PROBLEMS["host-refused"].title
    origin = await api.call("GET", "/api/v1/whoami", headers={"Origin": "https://evil.example"})
    assert problem(origin) == (403, "origin-refused")
    assert origin.json()["title"] == PROBLEMS["origin-refused"].title
    assert "Access-Control-Allow-Origin" not in origin.headers


async def test_a_page_that_is_configured_may_call(api: Api) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Origin": ORIGIN}
    asked["Access-Control-Request-Headers"] = "authorization"
    preflight = await api.http.options("/api/v1/tokens", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    answer = await api.call("GET", "/api/v1/whoami", headers={"Origin": ORIGIN})
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_who_am_i(api: Api) -> None:
    bot = (await api.call("GET", "/api/v1/whoami")).json()
    assert (bot["user_id"], bot["agent_id"], bot["rooms"]) == ("@letta:test", "", None)
    token = await api.token(frozenset({Scope.READ}), agent_id="agent-1", rooms=frozenset({ROOM}))
    ada = (await api.call("GET", "/api/v1/whoami", token)).json()
    assert (ada["user_id"], ada["scopes"], ada["rooms"]) == ("@agent_1:test", ["read"], [ROOM])


async def test_figures(fresh: Api) -> None:
    await fresh.call("GET", "/api/v1/nothing")
    told = (await fresh.call("GET", "/api/v1/stats")).json()
    assert told["agents"] == {"active": 1}
    assert told["answers"] == {"4xx": 1}
    assert (await fresh.call("GET", "/api/v1/health")).json() == HEALTH


async def test_only_admins_learn_why_agents_are_in_trouble(api: Api) -> None:
    reader = await api.token(ALL - {Scope.ADMIN})
    for path, token in (("/api/v1/health", reader), ("/health", "")):
        response = await api.call("GET", path, token)
        assert response.json()["agents_in_trouble"] == 1
        assert response.json()["troubles"] == HEALTH["troubles"]
        assert "Ada" not in response.text


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}], ids=["host", "page"]
)
async def test_pages_of_others_see_nothing_of_ours(api: Api, headers: dict[str, str]) -> None:
    for path in ("/", "/chat", "/chat/config.json", "/docs"):
        refused = await api.call("GET", path, "", headers=headers)
        assert problem(refused)[1] in ("host-refused", "origin-refused")
    alive = await api.call("GET", "/health", "", headers=headers)
    assert alive.status_code == 200
    assert alive.json()["status"] == HEALTH["status"]
    assert not alive.json().keys() & {"troubles", "agents_in_trouble", "runtimes", "counters"}
    assert (await api.call("GET", "/ready", "", headers=headers)).json() == {"ready": True}
    assert (await api.call("GET", "/docs", "")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/v1/tokens"), ("GET", "/api/v1/audit"), ("DELETE", "/api/v1/tokens/abc")],
)
async def test_what_is_for_admins(api: Api, method: str, path: str) -> None:
    token = await api.token(ALL - {Scope.ADMIN})
    response = await api.call(method, path, token)
    assert problem(response) == (403, "forbidden")
    assert 'scope="admin"' in response.headers["WWW-Authenticate"]


async def audit_of(api: Api, count: int) -> list[Any]:
    """The audit log, once it has so many entries with their outcomes, which follow a moment after
    the answers."""

    async def entries() -> list[Any]:
        return (await api.call("GET", "/api/v1/audit")).json()["entries"]

    def whole(found: list[Any]) -> bool:
        return len(found) >= count and all(entry["outcome"] for entry in found)

    return await eventually(entries, whole)


async def test_a_token_from_its_making_to_its_end(fresh: Api) -> None:
    wish = {"label": "nightly", "scopes": ["read"], "rooms": [ROOM], "expires_in": 60}
    made = await fresh.call("POST", "/api/v1/tokens", json=wish)
    assert made.status_code == 201
    token, token_id = made.json()["token"], made.json()["token_id"]
    assert (await fresh.call("GET", "/api/v1/whoami", token)).json()["rooms"] == [ROOM]
    listed = (await fresh.call("GET", "/api/v1/tokens")).json()["tokens"]
    (known,) = [one for one in listed if one["token_id"] == token_id]
    assert known["label"] == "nightly"
    assert known["expires_at"] - known["created_at"] == pytest.approx(60)
    assert token not in json.dumps(listed)
    await audit_of(fresh, 1)
    gone = await fresh.call("DELETE", f"/api/v1/tokens/{token_id}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert problem(await fresh.call("GET", "/api/v1/whoami", token)) == (401, "unauthorized")
    await audit_of(fresh, 2)
    unknown = await fresh.call("DELETE", "/api/v1/tokens/abc")
    assert problem(unknown) == (404, "not-found")
    log = await audit_of(fresh, 3)
    assert [(entry["action"], entry["outcome"]) for entry in log] == [
        ("tokens.revoke", "not-found"),
        ("tokens.revoke", "ok"),
        ("tokens.create", "ok"),
    ]
    assert token not in json.dumps(log)


@pytest.mark.parametrize(
    ("own", "wish"),
    [
        ({"scopes": frozenset({Scope.ADMIN})}, {"scopes": ["read"]}),
        ({"rooms": frozenset({ROOM})}, {"scopes": ["read"]}),
        ({"rooms": frozenset({ROOM})}, {"scopes": ["read"], "rooms": [ROOM, "!2:test"]}),
    ],
)
async def test_no_token_grants_more_than_its_makers(
    api: Api, own: dict[str, Any], wish: dict[str, Any]
) -> None:
    response = await api.call("POST", "/api/v1/tokens", await api.token(**own), json=wish)
    assert problem(response) == (403, "forbidden")


async def test_a_token_of_nobody(api: Api) -> None:
    wish = {"scopes": ["read"], "agent_id": "agent-none"}
    assert problem(await api.call("POST", "/api/v1/tokens", json=wish)) == (404, "not-found")


async def test_a_token_ends_by_itself_unless_told_otherwise(api: Api) -> None:
    made = (await api.call("POST", "/api/v1/tokens", json={"scopes": ["read"]})).json()
    assert made["expires_at"] - made["created_at"] == pytest.approx(lifetime_of("90d"))
    wish = {"scopes": ["read"], "expires_in": None}
    assert (await api.call("POST", "/api/v1/tokens", json=wish)).json()["expires_at"] is None


async def test_no_token_outlives_its_maker(api: Api) -> None:
    maker = await api.token(lifetime=3600)
    stored = await api.stage.stores.tokens.get(token_id_of(maker) or "")
    assert stored is not None
    assert stored.expires_at is not None
    for wished in (None, 7200):
        asked_at = time.time()
        wish = {"scopes": ["read"], "expires_in": wished}
        made = (await api.call("POST", "/api/v1/tokens", maker, json=wish)).json()
        late = made["created_at"] - asked_at
        assert -1e-3 <= made["expires_at"] - stored.expires_at <= late + 1e-3
    wish = {"scopes": ["read"], "expires_in": 30}
    made = (await api.call("POST", "/api/v1/tokens", maker, json=wish)).json()
    assert made["expires_at"] - made["created_at"] == pytest.approx(30)


async def test_pages_of_tokens(fresh: Api) -> None:
    for _ in range(4):
        await fresh.token()
    token, found, after = await fresh.token(), list[str](), ""
    while True:
        query = {"limit": 2} | ({"after": after} if after else {})
        page = (await fresh.call("GET", "/api/v1/tokens", token, params=query)).json()
        found += [one["token_id"] for one in page["tokens"]]
        after = page["next"]
        if after is None:
            break
    assert len(found) == len(set(found)) == 5
    wrong = await fresh.call("GET", "/api/v1/tokens", token, params={"after": "nothing"})
    assert problem(wrong) == (422, "invalid-arguments")


async def test_pages_of_the_audit_log(fresh: Api) -> None:
    token = await fresh.token()
    for _ in range(3):
        await fresh.call("POST", "/api/v1/tokens", token, json={"scopes": ["read"]})
    await audit_of(fresh, 3)
    first = (await fresh.call("GET", "/api/v1/audit", token, params={"limit": 2})).json()
    rest = await fresh.call("GET", "/api/v1/audit", token, params={"after": first["next"]})
    seqs = [entry["seq"] for entry in first["entries"] + rest.json()["entries"]]
    assert seqs == sorted(seqs, reverse=True)
    assert len(seqs) == 3
    assert rest.json()["next"] is None


async def test_tools_of_a_token(api: Api) -> None:
    token = await api.token(frozenset({Scope.READ}))
    tools = (await api.call("GET", "/api/v1/tools", token)).json()["tools"]
    assert {tool["scope"] for tool in tools} == {"read"}
    assert all(tool["parameters"]["type"] == "object" for tool in tools)
    refused = await api.call("POST", "/api/v1/tools/matrix_send_message", token, json={})
    assert problem(refused) == (403, "forbidden")
    assert problem(await api.call("POST", "/api/v1/tools/x", token)) == (404, "unknown-tool")


@pytest.mark.parametrize("key", ["abc", '"abc"'])
async def test_a_key_makes_it_once(api: Api, key: str) -> None:
    token = await api.token(agent_id="agent-1", scopes=ALL - {Scope.ADMIN})
    message = f"once with {key}"
    path, given = "/api/v1/tools/matrix_send_message", {"room_id": ROOM, "message": message}
    headers = {"Idempotency-Key": key}
    first = await api.call("POST", path, token, json=given, headers=headers)
    again = await api.call("POST", path, token, json=given, headers=headers)
    assert first.status_code == 200
    assert again.json() == first.json()
    same = await api.call("POST", path, token, json={**given, "transaction_id": "abc"})
    assert same.json() == first.json()
    assert api.stage.fake.bodies(ROOM).count(message) == 1
    other = {**given, "message": "other"}
    conflict = await api.call("POST", path, token, json=other, headers=headers)
    assert problem(conflict) == (409, "conflict")
    differ = await api.call(
        "POST", path, token, json={**given, "transaction_id": "x"}, headers=headers
    )
    assert problem(differ) == (422, "invalid-arguments")


async def test_reading_takes_a_key_too(api: Api) -> None:
    headers = {"Idempotency-Key": "abc"}
    response = await api.call("POST", "/api/v1/tools/matrix_whoami", headers=headers)
    assert response.json()["user_id"] == "@letta:test"


async def test_broken_surrogates_do_no_harm(api: Api) -> None:
    content = b'{"room_id": "\\ud800", "message": "\\udfff"}'
    headers = {"Content-Type": "application/json"}
    path = "/api/v1/tools/matrix_send_message"
    response = await api.call("POST", path, content=content, headers=headers)
    assert problem(response)[0] < 500
