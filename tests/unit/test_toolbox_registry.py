"""The registry of tools: what models are told of them, what becomes of any call whatever."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.builders import PERSON, agent, config_for, message, reaction
from tests.fake_homeserver import FakeHomeserver, failing
from tests.fake_homeserver import Fault as Failure
from tests.tool_arguments import arguments as tool_arguments
from tests.tool_results import assert_declared
from tests.toolbox_kit import toolbox_on
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Principal
from letta_matrix.access.rate_limit import RateLimit
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.tools import ToolCall, ToolResult
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.operations.toolbox import outcome, uploads
from letta_matrix.operations.toolbox.registry import Toolbox
from letta_matrix.operations.toolbox.results import LIMIT, _encoded, compact, fit_items, size
from letta_matrix.operations.toolbox.tool import WriteParams
from letta_matrix.operations.toolbox.uploads import safe_name
from letta_matrix.store.agents import AgentDirectory, AgentStatus
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import Database, StoreUnavailable

ROOM = "!1:test"
ORIGINAL = {
    "matrix_send_message": {"room_id": None, "message": None},
    "matrix_list_rooms": {"include_members": False},
    "matrix_read_room": {"room_id": None, "limit": 10},
    "matrix_join_room": {"room_id_or_alias": None},
    "matrix_create_room": {"name": None, "topic": "", "is_public": False},
}
"""The first five tools of all, which others rely on: their arguments, with defaults."""


WAITS_LITTLE = {
    "message_agent": {"wait_seconds": 0},
    "ask_human": {"timeout_seconds": 1},
    "wait_for_message": {"timeout_seconds": 1},
}


@pytest.fixture
async def toolbox(
    tmp_path: Path, homeserver: Homeserver, database: Database, directory: AgentDirectory
) -> AsyncGenerator[Toolbox]:
    await directory.reserve([agent(1), agent(2, status=AgentStatus.REMOVED)])
    settings = {"tool_calls_per_minute": 5, "toolset": "all"}
    config = config_for(tmp_path, conversations=settings)
    async with toolbox_on(config, homeserver, directory, database) as made:
        yield made


def call(name: str, agent_id: str = "agent-1", /, **arguments: Any) -> ToolCall:
    return ToolCall(agent_id, "conversation", "call-1", name, arguments, "request-1")


def send(**arguments: Any) -> ToolCall:
    return call("matrix_send_message", **{"room_id": ROOM, "message": "hi", **arguments})


def test_every_tool_is_described_for_models(toolbox: Toolbox) -> None:
    specs = {spec.name: spec for spec in toolbox.specs()}
    for spec in specs.values():
        assert spec.parameters["type"] == "object"
        assert "transaction_id" not in dict(mapping(spec.parameters["properties"]))
        assert "\n" not in spec.description
        assert len(spec.description) < 100
        assert json.loads(json.dumps(spec.parameters)) == spec.parameters


def test_every_tool_says_what_it_does_and_gives(toolbox: Toolbox) -> None:
    for tool in toolbox.tools.values():
        assert tool.read_only != issubclass(tool.params, WriteParams), tool.name
        assert not (tool.read_only and tool.destructive), tool.name
        assert tool.results["type"] == "object", tool.name
        assert tool.results["properties"], tool.name
        assert "$defs" in tool.results or "$ref" not in json.dumps(tool.results)
        assert ("transaction_id" in tool.parameters["properties"]) != tool.read_only


def test_the_original_tools_take_what_they_took(toolbox: Toolbox) -> None:
    for name, wanted in ORIGINAL.items():
        properties = toolbox.tools[name].parameters["properties"]
        assert {key: properties[key].get("default") for key in wanted} == wanted
        needed = toolbox.tools[name].parameters.get("required", [])
        assert needed == [key for key, default in wanted.items() if default is None]


@pytest.mark.parametrize("destructive", [True, False])
def test_what_cannot_be_undone_needs_more_trust(toolbox: Toolbox, destructive: bool) -> None:
    principal = Principal("token:1", "", destructive=destructive)
    names = {tool.name for tool in toolbox.tools_for(principal)}
    assert ("matrix_redact" in names) == destructive
    assert "matrix_edit_message" in names


BAD: list[tuple[dict[str, Any], str]] = [
    ({"message": None}, "`message` should be a valid string"),
    ({"message": ""}, "`message` string should have at least 1 character"),
    ({"room_id": 7}, "`room_id` should be a valid string"),
    ({"room_id": "a\u202eb"}, "`room_id` should have no control characters"),
    ({"room_id": "x" * 256}, "`room_id` string should have at most 255 characters"),
    ({"who": 1}, "there is no argument `who`, only: room_id, message"),
    ({"message": "\u202e \x00"}, "`message` has no text in it"),
]


async def test_bad_arguments_are_named(
    toolbox: Toolbox, subtests: pytest.Subtests, clock: Clock
) -> None:
    for number, (arguments, why) in enumerate(BAD):
        with subtests.test(why=why):
            call = replace(send(**arguments), request_id=f"r{number}")
            result = await toolbox.handler("memory")(call)
            assert not result.ok
            assert why in result.text
        clock.advance(12)


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


async def test_a_message_that_is_left_counts_though_the_room_cannot_be_left_at_once(
    toolbox: Toolbox, directory: AgentDirectory, fake: FakeHomeserver, clock: Clock
) -> None:
    await directory.reserve([agent(3)])
    fake.fail("POST .*/leave", Failure(403, {"errcode": "M_FORBIDDEN", "error": "no"}))
    arguments = {"agent": "Agent 3", "message": "hi", "wait_seconds": 0}
    with capture_logs() as logs:
        result = await toolbox.handler("memory")(call("message_agent", **arguments))
    assert result.ok
    assert fake.bodies("!3:test") == ["hi"]
    assert "a room is not left" in [log["event"] for log in logs]
    # What is said there from now on is for others.
    await clock.until(lambda: len(fake.matching("POST .*/leave")) > 1, step=1)
    await clock.until(lambda: "@agent_1:test" not in fake.members["!3:test"])


async def test_too_many_calls_are_refused_until_a_time_that_is_told(
    toolbox: Toolbox, fake: FakeHomeserver, clock: Clock
) -> None:
    clock.stop()
    results = [await toolbox.handler("memory")(call("matrix_whoami")) for _ in range(6)]
    assert [result.ok for result in results] == [True] * 5 + [False]
    assert results[-1].text == "Too many tool calls. Try again in 12 seconds."
    assert fake.requests == []
    clock.advance(12)
    assert (await toolbox.handler("memory")(call("matrix_whoami"))).ok


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
    fake.fail("PUT .*/send/", Failure(413, {"errcode": "M_TOO_LARGE", "error": "too big"}))
    result = await toolbox.handler("memory")(send())
    assert result == ToolResult("The homeserver refused: M_TOO_LARGE: too big.", ok=False)


async def test_an_absent_homeserver_is_told(
    toolbox: Toolbox, fake: FakeHomeserver, clock: Clock
) -> None:
    fake.fail("PUT .*/send/", *[failing(502)] * 1000)
    call = asyncio.ensure_future(toolbox.handler("memory")(send()))
    await clock.until(call.done, step=1)
    assert await call == ToolResult(outcome._MAYBE, ok=False)


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("matrix_send_message", {"message": "hi"}, outcome._MAYBE),
        (
            "matrix_send_message",
            {"message": "hi", "transaction_id": "t1"},
            f"The homeserver does not answer now. {outcome._SAFE}",
        ),
        ("matrix_read_room", {}, outcome._AWAY),
    ],
)
async def test_a_write_whose_answer_is_lost_may_have_happened(
    toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch, tool: str, arguments: Any, told: str
) -> None:
    async def away(*_: object) -> None:
        raise HomeserverUnavailable("away")

    monkeypatch.setattr(toolbox, "tools", {tool: replace(toolbox.tools[tool], run=away)})
    principal = Principal("token:1", "agent-1")
    with pytest.raises(ToolError) as caught:
        await toolbox.call(principal, tool, {"room_id": ROOM, **arguments}, door="mcp")
    assert (str(caught.value), caught.value.fault) == (told, Fault.UNAVAILABLE)


async def test_a_question_that_cannot_be_waited_for_is_closed(
    toolbox: Toolbox, fake: FakeHomeserver
) -> None:
    arguments = {"question": "Which?", "room_id": ROOM, "transaction_id": "t1"}
    principal = Principal("token:1", "agent-1")
    fake.forgetful = True
    fake.fail("GET .*/joined_rooms", *[Failure(200, {"joined_rooms": [ROOM]})] * 4)
    fake.fail("GET .*/m.room.tombstone", *[Failure(404, {"errcode": "M_NOT_FOUND"})] * 4)
    for path in ("event/", "relations/"):
        # The second time it stands in the room already, and its reactions are looked at.
        fake.fail(f"GET .*/{path}", Failure(403, {"errcode": "M_FORBIDDEN", "error": "no"}))
        with pytest.raises(ToolError, match="M_FORBIDDEN"):
            await toolbox.call(principal, "ask_human", arguments, door="mcp")
    assert len(fake.matching("GET .*/relations/")) == 1
    await toolbox.close()
    assert toolbox._asking._standing == {}
    (closed,) = (one for one in fake.messages(ROOM) if "m.new_content" in one["content"])
    assert "Nobody answered" in closed["content"]["body"]


async def test_who_is_of_our_server_is_invited_before_others(
    toolbox: Toolbox, fake: FakeHomeserver
) -> None:
    given = ["@bob:away.example", "@bob:test", "@ann:away.example", "@ann:test"]
    arguments = {"name": "Plans", "invite": given}
    inviting = fake.hold("POST .*/invite")
    making = asyncio.create_task(
        toolbox.call(Principal("token:1", "agent-1"), "matrix_create_room", arguments, door="mcp")
    )
    await eventually(lambda: len(fake.matching("POST .*/invite")) >= 2)
    await settled(making)
    invited = {request.body["user_id"] for request in fake.matching("POST .*/invite")}
    assert invited == {"@bob:test", "@ann:test"}
    inviting.set()
    assert (await making)["invited"] == given


async def test_who_answers_before_we_listen_is_heard(
    toolbox: Toolbox, fake: FakeHomeserver
) -> None:
    fake.fail("GET .*/joined_rooms", *[Failure(200, {"joined_rooms": [ROOM]})] * 4)
    fake.fail("GET .*/m.room.tombstone", *[Failure(404, {"errcode": "M_NOT_FOUND"})] * 4)
    looked = fake.hold("GET .*/event/")
    arguments = {"question": "Which?", "room_id": ROOM, "options": ["tea", "coffee"]}
    principal = Principal("token:1", "agent-1")
    asked = asyncio.create_task(toolbox.call(principal, "ask_human", arguments, door="mcp"))
    await eventually(lambda: fake.matching("GET .*/event/"))
    (question,) = fake.messages(ROOM)
    tap = reaction(question["event_id"], "2️⃣", ROOM)
    tap["origin_server_ts"] = question["origin_server_ts"]
    toolbox.caller(principal).house.event_bus.publish(tap)
    looked.set()
    assert (await asked)["answer"] == "coffee"


async def test_words_that_answer_a_question_which_cannot_be_posted_are_handed_back(
    toolbox: Toolbox, fake: FakeHomeserver
) -> None:
    fake.fail("GET .*/joined_rooms", *[Failure(200, {"joined_rooms": [ROOM]})] * 4)
    fake.fail("GET .*/m.room.tombstone", *[Failure(404, {"errcode": "M_NOT_FOUND"})] * 4)
    fake.fail("PUT .*/send/", Failure(413, {"errcode": "M_TOO_LARGE", "error": "too big"}))
    posted = fake.hold("PUT .*/send/")
    arguments = {"question": "Which?", "room_id": ROOM, "options": ["tea", "coffee"]}
    asked = asyncio.ensure_future(toolbox.handler("memory")(call("ask_human", **arguments)))
    await eventually(lambda: fake.matching("PUT .*/send/"))
    words = message("Tea", room_id=ROOM, origin_server_ts=2**45)
    assert toolbox.questions.match(words) is not None
    posted.set()
    assert await asked == ToolResult(
        f'The homeserver refused: M_TOO_LARGE: too big. Meanwhile {PERSON} wrote "tea".', ok=False
    )
    assert toolbox.questions.match(words) is None


@pytest.mark.parametrize(
    ("broken", "error", "told"),
    [
        ((Intent, "send"), RuntimeError("secret detail"), outcome._BROKEN),
        ((ConversationStore, "place_of"), StoreUnavailable("gone"), outcome.NO_DATABASE),
        ((AuditStore, "begin"), StoreUnavailable("gone"), outcome.NO_DATABASE),
    ],
)
async def test_a_fault_of_ours_is_logged_and_not_shown(
    toolbox: Toolbox,
    monkeypatch: pytest.MonkeyPatch,
    broken: tuple[type, str],
    error: Exception,
    told: str,
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(*broken, fail)
    assert await toolbox.handler("memory")(send()) == ToolResult(told, ok=False)


async def test_a_message_costs_one_request(toolbox: Toolbox, fake: FakeHomeserver) -> None:
    arguments = {"room_id": ROOM, "message": "hi", "transaction_id": "t1"}
    principal = Principal("token:1", "agent-1")
    first = await toolbox.call(principal, "matrix_send_message", arguments, door="api")
    assert await toolbox.call(principal, "matrix_send_message", arguments, door="mcp") == first
    assert [request.method for request in fake.requests] == ["PUT"]


async def test_a_call_that_hangs_ends(
    toolbox: Toolbox, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    hurried = replace(toolbox.tools["matrix_send_message"], seconds=10)
    monkeypatch.setattr(toolbox, "tools", {hurried.name: hurried})
    released = fake.hold("PUT .*/send/")
    clock.stop()
    sending = asyncio.ensure_future(toolbox.handler("memory")(send()))
    await eventually(lambda: fake.requests)
    clock.advance(9)
    await settled()
    assert not sending.done()
    clock.advance(1)
    assert await within(sending) == ToolResult(outcome._UNCERTAIN, ok=False)
    released.set()


async def test_markers_tell_whose_call_it_was(toolbox: Toolbox, fake: FakeHomeserver) -> None:
    assert (await toolbox.handler("memory")(send())).ok
    (event,) = fake.messages(ROOM)
    marker = event["content"][MARKER]
    assert (marker["agent_id"], marker["tool"]) == ("agent-1", "matrix_send_message")
    assert "prompts" not in marker


@given(st.data())
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_nothing_that_models_may_say_breaks_a_tool(
    toolbox: Toolbox, directory: AgentDirectory, data: st.DataObject
) -> None:
    # Without a room of its own no question is asked, so that none is waited for.
    known = directory.get("agent-1")
    assert known is not None
    known.room_id = None
    toolbox._limit = RateLimit(1_000_000)
    tool = toolbox.tools[data.draw(st.sampled_from(sorted(toolbox.tools)))]
    arguments = data.draw(tool_arguments(tool.parameters, ROOM))
    if tool.seconds is None:
        arguments |= WAITS_LITTLE.get(tool.name, {})
    principal = Principal("agent:1", "agent-1")
    try:
        result = await toolbox.call(principal, tool.name, arguments, door="mcp")
    except ToolError as error:
        result, fault = None, error.fault
    else:
        assert_declared(tool, result)
        fault = None
    assert fault is not Fault.FAILED, arguments
    if result is not None:
        assert len(compact(result).encode()) <= LIMIT
        json.loads(compact(result))


@given(st.text(max_size=2_000))
def test_file_names_are_harmless(name: str) -> None:
    try:
        safe = safe_name(name)
    except ToolError:
        return
    assert 0 < len(safe) <= uploads._MAX_NAME
    assert not set(safe) & set('/\\\0\n\r<>:"|?*')
    assert safe not in (".", "..")
    assert safe == safe.strip(" .") or len(name) > uploads._MAX_NAME


BAD_FILES: list[tuple[dict[str, str], str]] = [
    ({"name": "a.txt"}, "Give either"),
    ({"name": "a.txt", "content": "a", "content_base64": "YQ=="}, "Give either"),
    ({"name": "a.txt", "content_base64": "not base64!"}, "not valid base64"),
    ({"name": "a.txt", "content": "half \ud800"}, "`content` is broken"),
    ({"name": "../", "content": "a"}, "`name` should be a file name"),
    ({"name": "a", "content": "a", "media_type": "text"}, "should look like text/markdown"),
    ({"name": "a", "content": "ü" * 2_600_000}, "at most 5 MB"),
    ({"name": "a", "content": "a" * 9_000_000}, "at most 5 MB"),
]


async def test_bad_files_are_refused(
    toolbox: Toolbox, fake: FakeHomeserver, subtests: pytest.Subtests, clock: Clock
) -> None:
    for number, (arguments, why) in enumerate(BAD_FILES):
        with subtests.test(why=why):
            upload = call("matrix_upload_file", room_id=ROOM, **arguments)
            result = await toolbox.handler("memory")(replace(upload, request_id=f"r{number}"))
            assert not result.ok
            assert why in result.text
        clock.advance(12)
    assert fake.requests == []


async def test_a_message_of_another_room_is_no_context_whatever_the_homeserver_tells(
    toolbox: Toolbox, fake: FakeHomeserver
) -> None:
    fake.fail("GET .*/joined_rooms", Failure(200, {"joined_rooms": [ROOM]}))
    said = {"type": "m.room.message", "content": {"body": "secret"}, "room_id": "!other:test"}
    event = {"event_id": "$x", "sender": "@ann:test", **said}
    fake.fail("GET .*/context/", Failure(200, {"event": event}))
    about = {"room_id": ROOM, "event_id": "$x"}
    with pytest.raises(ToolError, match=r"no message \$x") as caught:
        await toolbox.call(Principal("token:1", ""), "matrix_get_context", about, door="api")
    assert caught.value.fault is Fault.NOT_FOUND


@given(st.text())
def test_results_stay_within_their_bytes(text: str) -> None:
    assert len(compact({"a": text * 2_000}).encode()) <= LIMIT


def test_each_entry_is_measured_once_and_none_beyond_the_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded: list[int] = []

    def counted(part: object) -> bytes:
        encoded.append(len(_encoded(part)))
        return _encoded(part)

    monkeypatch.setattr("letta_matrix.operations.toolbox.results._encoded", counted)
    page = fit_items({}, "items", ["x" * 1_000] * 5_000, 0, 5_000)
    assert page["next"] == 15
    assert sum(encoded) <= 2 * LIMIT


@given(st.lists(st.text(max_size=3_000), max_size=60), st.integers(0, 70))
def test_lists_are_paged_without_a_gap(texts: list[str], start: int) -> None:
    seen: list[object] = []
    after: object = start
    while isinstance(after, int):
        page = fit_items({}, "items", texts[after:], after, len(texts))
        shown = page["items"]
        assert isinstance(shown, list)
        seen += shown
        assert size(page) <= LIMIT
        assert page.get("next") != after
        after = page.get("next")
    assert seen == texts[start:]
