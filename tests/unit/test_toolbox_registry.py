"""The registry of tools: what models are told of them, what becomes of any call whatever."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.builders import agent, config_for
from tests.fake_homeserver import FakeHomeserver, Fault, failing
from tests.tool_arguments import arguments as tool_arguments

from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.runtimes.protocol import ToolCall, ToolResult
from letta_matrix.store.agents import AgentDirectory, AgentStatus
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import Database, StoreUnavailable
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import TurnStore
from letta_matrix.toolbox import files, registry, writing
from letta_matrix.toolbox.faults import ToolError
from letta_matrix.toolbox.files import safe_name
from letta_matrix.toolbox.rate_limit import RateLimit
from letta_matrix.toolbox.registry import Toolbox
from letta_matrix.toolbox.results import LIMIT, compact, fit_items

ROOM = "!1:test"
NAMES = {
    "matrix_send_message": ["room_id", "message"],
    "matrix_reply_in_thread": ["room_id", "event_id", "message"],
    "matrix_react": ["room_id", "event_id", "key"],
    "matrix_upload_file": ["room_id", "name"],
    "matrix_read_room": ["room_id"],
    "matrix_list_rooms": [],
    "matrix_list_members": ["room_id"],
    "matrix_whoami": [],
    "message_agent": ["agent", "message"],
    "ask_human": ["question"],
}


@pytest.fixture
async def toolbox(
    tmp_path: Path, homeserver: Homeserver, database: Database, directory: AgentDirectory
) -> Toolbox:
    await directory.reserve([agent(1), agent(2, status=AgentStatus.REMOVED)])
    conversations = ConversationStore(database)
    config = config_for(tmp_path, conversations={"tool_calls_per_minute": 5})
    turns, outbox = TurnStore(database, conversations), Outbox(database)
    rooms = Rooms(database)
    audit = AuditStore(database)
    return Toolbox(config, homeserver, directory, rooms, conversations, turns, outbox, audit)


def call(name: str, agent_id: str = "agent-1", /, **arguments: Any) -> ToolCall:
    return ToolCall(agent_id, "conversation", "call-1", name, arguments, "request-1")


def send(**arguments: Any) -> ToolCall:
    return call("matrix_send_message", **{"room_id": ROOM, "message": "hi", **arguments})


def test_every_tool_is_described_for_models(toolbox: Toolbox) -> None:
    specs = {spec.name: spec for spec in toolbox.specs()}
    assert {name: spec.parameters.get("required", []) for name, spec in specs.items()} == NAMES
    for spec in specs.values():
        assert spec.parameters["type"] == "object"
        assert "\n" not in spec.description
        assert len(spec.description) < 100
        assert json.loads(json.dumps(spec.parameters)) == spec.parameters
    assert sum(len(json.dumps(spec.parameters)) for spec in specs.values()) < 5_000


def test_what_only_reads_says_so(toolbox: Toolbox) -> None:
    readers = {name for name, tool in toolbox.tools.items() if tool.read_only}
    assert readers == {
        "matrix_read_room",
        "matrix_list_rooms",
        "matrix_list_members",
        "matrix_whoami",
    }


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"message": None}, "`message` should be a valid string"),
        ({"message": ""}, "`message` string should have at least 1 character"),
        ({"room_id": 7}, "`room_id` should be a valid string"),
        ({"room_id": "a\u202eb"}, "`room_id` should have no control characters"),
        ({"room_id": "x" * 256}, "`room_id` string should have at most 255 characters"),
        ({"who": 1}, "there is no argument `who`, only: room_id, message"),
        ({"message": "\u202e \x00"}, "`message` has no text in it"),
    ],
)
async def test_bad_arguments_are_named(toolbox: Toolbox, arguments: Any, why: str) -> None:
    result = await toolbox.handler("memory")(send(**arguments))
    assert not result.ok
    assert why in result.text


async def test_what_is_missing_is_named(toolbox: Toolbox) -> None:
    result = await toolbox.handler("memory")(call("matrix_send_message"))
    assert result.text == (
        "Wrong arguments for matrix_send_message: `room_id` is missing; `message` is missing."
    )


async def test_unknown_tools_and_agents_are_refused(toolbox: Toolbox) -> None:
    unknown = await toolbox.handler("memory")(call("matrix_delete_everything"))
    assert "There is no tool 'matrix_delete_everything', only: matrix_send_message" in unknown.text
    for agent_id in ("agent-2", "agent-3", ""):
        result = await toolbox.handler("memory")(call("matrix_whoami", agent_id))
        assert not result.ok
        assert "no account" in result.text


async def test_a_runtime_speaks_for_its_own_agents_only(
    toolbox: Toolbox, fake: FakeHomeserver
) -> None:
    with capture_logs() as logs:
        result = await toolbox.handler("other")(send())
    assert (result.ok, "no account" in result.text) == (False, True)
    assert fake.requests == []
    assert [log["runtime"] for log in logs if "another's agent" in log["event"]] == ["other"]


async def test_each_request_is_a_call_of_its_own_whatever_the_model_calls_it(
    toolbox: Toolbox, fake: FakeHomeserver
) -> None:
    run = toolbox.handler("memory")
    results = [await run(replace(send(), request_id=request)) for request in ("r1", "r2", "r1")]
    assert results[0] == results[2] != results[1]
    assert fake.bodies(ROOM) == ["hi", "hi"]


async def test_a_message_that_is_left_counts_though_the_room_cannot_be_left(
    toolbox: Toolbox, directory: AgentDirectory, fake: FakeHomeserver
) -> None:
    await directory.reserve([agent(3)])
    fake.fail("POST .*/leave", Fault(403, {"errcode": "M_FORBIDDEN", "error": "no"}))
    arguments = {"agent": "Agent 3", "message": "hi", "wait_seconds": 0}
    with capture_logs() as logs:
        result = await toolbox.handler("memory")(call("message_agent", **arguments))
    assert result.ok
    assert fake.bodies("!3:test") == ["hi"]
    assert "a room is not left" in [log["event"] for log in logs]


async def test_too_many_calls_are_refused_until_a_time_that_is_told(
    toolbox: Toolbox, fake: FakeHomeserver
) -> None:
    results = [await toolbox.handler("memory")(call("matrix_whoami")) for _ in range(6)]
    assert [result.ok for result in results] == [True] * 5 + [False]
    assert results[-1].text == "Too many tool calls. Try again in 12 seconds."
    assert fake.requests == []


def test_a_bucket_fills_again_and_each_agent_has_its_own() -> None:
    limit = RateLimit(per_minute=6)
    assert [limit.take("a", 0.0) for _ in range(6)] == [0.0] * 6
    assert limit.take("a", 0.0) == pytest.approx(10.0)
    assert limit.take("b", 0.0) == 0.0
    assert limit.take("a", 9.0) == pytest.approx(1.0)
    assert limit.take("a", 10.0) == 0.0
    assert [limit.take("a", 1000.0) == 0.0 for _ in range(7)] == [True] * 6 + [False]


@given(st.lists(st.floats(0, 30), max_size=300), st.integers(1, 120))
def test_no_minute_has_more_calls_than_twice_the_limit(pauses: list[float], limit: int) -> None:
    bucket, now = RateLimit(limit), 0.0
    taken: list[float] = []
    for pause in pauses:
        now += pause
        if bucket.take("a", now) == 0.0:
            taken.append(now)
    for start in taken:
        assert sum(start <= at < start + 60 for at in taken) <= 2 * limit


async def test_a_refusal_of_the_homeserver_is_told_in_one_line(
    toolbox: Toolbox, fake: FakeHomeserver
) -> None:
    fake.fail("PUT .*/send/", Fault(413, {"errcode": "M_TOO_LARGE", "error": "too big"}))
    result = await toolbox.handler("memory")(send())
    assert result == ToolResult("The homeserver refused: M_TOO_LARGE: too big.", ok=False)


async def test_an_absent_homeserver_is_told(
    toolbox: Toolbox, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "GIVE_UP_AFTER", 0)
    fake.fail("GET .*/messages", *[failing(502)] * 9)
    result = await toolbox.handler("memory")(send())
    assert (result.ok, "does not answer now" in result.text) == (False, True)


async def test_a_fault_of_ours_is_logged_and_not_shown(
    toolbox: Toolbox, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = [RuntimeError("secret detail"), StoreUnavailable("gone")]

    async def broken(*_: object) -> None:
        raise faults.pop(0)

    monkeypatch.setattr(ConversationStore, "place_of", broken)
    assert (await toolbox.handler("memory")(send())).text == registry._FAULT
    assert (await toolbox.handler("memory")(send())).text == registry._NO_DATABASE


async def test_a_call_that_hangs_ends(
    toolbox: Toolbox, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried = replace(toolbox.tools["matrix_send_message"], seconds=0.05)
    monkeypatch.setattr(toolbox, "tools", {hurried.name: hurried})
    fake.slow["PUT .*/send/"] = 1.0
    result = await toolbox.handler("memory")(send())
    assert result == ToolResult(registry._UNCERTAIN, ok=False)


async def test_markers_tell_whose_call_it_was(toolbox: Toolbox, fake: FakeHomeserver) -> None:
    assert (await toolbox.handler("memory")(send())).ok
    (event,) = fake.messages(ROOM)
    marker = event["content"][MARKER]
    assert (marker["agent_id"], marker["tool"]) == ("agent-1", "matrix_send_message")
    assert "prompts" not in marker


@given(st.sampled_from(sorted(NAMES)), st.data())
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_nothing_that_models_may_say_breaks_a_tool(
    toolbox: Toolbox,
    directory: AgentDirectory,
    name: str,
    data: st.DataObject,
) -> None:
    # Without a room of its own no question is asked, so that none is waited for.
    known = directory.get("agent-1")
    assert known is not None
    known.room_id = None
    toolbox._limit = RateLimit(1_000_000)
    schema = toolbox.tools[name].parameters()
    arguments = data.draw(tool_arguments(schema, ROOM))
    result = await toolbox.handler("memory")(
        ToolCall("agent-1", "c", "call", name, arguments, "request")
    )
    assert result.text
    assert result.text != registry._FAULT, arguments
    assert len(result.text.encode()) <= LIMIT
    if result.ok:
        json.loads(result.text)


@given(st.text(max_size=2_000))
def test_file_names_are_harmless(name: str) -> None:
    try:
        safe = safe_name(name)
    except ToolError:
        return
    assert 0 < len(safe) <= files._MAX_NAME
    assert not set(safe) & set('/\\\0\n\r<>:"|?*')
    assert safe not in (".", "..")
    assert safe == safe.strip(" .") or len(name) > files._MAX_NAME


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"name": "a.txt"}, "Give either"),
        ({"name": "a.txt", "content": "a", "content_base64": "YQ=="}, "Give either"),
        ({"name": "a.txt", "content_base64": "not base64!"}, "not valid base64"),
        ({"name": "a.txt", "content": "half \ud800"}, "`content` is broken"),
        ({"name": "../", "content": "a"}, "`name` should be a file name"),
        ({"name": "a", "content": "a", "media_type": "text"}, "should look like text/markdown"),
        ({"name": "a", "content": "ü" * 2_600_000}, "at most 5 MB"),
        ({"name": "a", "content": "a" * 9_000_000}, "at most 5 MB"),
    ],
)
async def test_bad_files_are_refused(
    toolbox: Toolbox, fake: FakeHomeserver, arguments: Any, why: str
) -> None:
    result = await toolbox.handler("memory")(call("matrix_upload_file", room_id=ROOM, **arguments))
    assert not result.ok
    assert why in result.text
    assert fake.requests == []


@given(st.text())
def test_results_stay_within_their_bytes(text: str) -> None:
    assert len(compact({"a": text * 2_000}).encode()) <= LIMIT


@given(st.lists(st.text(max_size=3_000), max_size=60), st.integers(0, 70))
def test_lists_are_paged_without_a_gap(texts: list[str], start: int) -> None:
    seen: list[object] = []
    after: object = start
    while isinstance(after, int):
        page = fit_items({}, "items", texts[after:], after, len(texts))
        shown = page["items"]
        assert isinstance(shown, list)
        seen += shown
        assert page.get("next") != after
        after = page.get("next")
    assert seen == texts[start:]
