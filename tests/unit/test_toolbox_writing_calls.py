"""What the writing tools send, against canned answers of a homeserver."""

import asyncio
import base64
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.builders import agent, config_for
from tests.fake_homeserver import LOST_ANSWER, LOST_REQUEST, FakeHomeserver, failing
from tests.fake_homeserver import Fault as Failure
from tests.tool_results import assert_declared
from tests.toolbox_kit import toolbox_on
from tests.waiting import Clock, eventually

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Principal
from letta_matrix.matrix import content as content_module
from letta_matrix.matrix.formatting import Formatted, render
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.operations.toolbox.registry import Toolbox
from letta_matrix.operations.toolbox.tool import LONGEST_WAIT
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database

ROOM = "!1:test"
ADA = "@agent_1:test"
JOINED = Failure(200, {"joined_rooms": [ROOM]})
PNG = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (1).to_bytes(4, "big") * 2 + bytes(9)
).decode()
WAV = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\0\0\0\0"


@pytest.fixture
async def toolbox(
    tmp_path: Path, homeserver: Homeserver, database: Database, directory: AgentDirectory
) -> AsyncGenerator[Toolbox]:
    await directory.reserve([agent(1)])
    async with toolbox_on(config_for(tmp_path), homeserver, directory, database) as made:
        yield made


async def use(toolbox: Toolbox, tool: str, /, **arguments: Any) -> dict[str, Any]:
    principal = Principal("token:1", "agent-1")
    given = {"room_id": ROOM, **arguments}
    told = dict(await toolbox.call(principal, tool, given, door="api"))
    assert_declared(toolbox.tools[tool], told)
    return told


async def refused(toolbox: Toolbox, tool: str, /, **arguments: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        await use(toolbox, tool, **arguments)
    return caught.value


def event(sender: str = ADA, kind: str = "m.room.message", **content: Any) -> Failure:
    content = content or {"msgtype": "m.text", "body": "old"}
    return Failure(200, {"event_id": "$x", "sender": sender, "type": kind, "content": content})


@pytest.mark.parametrize(
    ("tool", "quoted"), [("matrix_reply", [True, False]), ("matrix_reply_in_thread", [False] * 2)]
)
async def test_only_the_first_part_of_a_long_reply_quotes(
    toolbox: Toolbox, fake: FakeHomeserver, tool: str, quoted: list[bool]
) -> None:
    in_thread = {"rel_type": "m.thread", "event_id": "$root"}
    content = {"body": "x", "m.relates_to": in_thread}
    fake.fail("GET .*/event/", Failure(200, {"sender": ADA, "content": content}))
    told = await use(toolbox, tool, event_id="$x", message="word " * 5_000)
    relations = [one["content"]["m.relates_to"] for one in fake.messages(ROOM)]
    assert len(relations) == 1 + len(told["more_event_ids"]) == 2
    assert {relation["event_id"] for relation in relations} == {"$root"}
    assert [not relation["is_falling_back"] for relation in relations] == quoted


async def test_a_long_reply_outside_of_threads_quotes_once(
    toolbox: Toolbox, fake: FakeHomeserver
) -> None:
    fake.fail("GET .*/event/", event())
    await use(toolbox, "matrix_reply", event_id="$x", message="word " * 5_000)
    first, second = (one["content"] for one in fake.messages(ROOM))
    assert first["m.relates_to"] == {"m.in_reply_to": {"event_id": "$x"}}
    assert "m.relates_to" not in second


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (event("@ann:test"), Fault.FORBIDDEN),
        (event(kind="m.sticker"), Fault.INVALID),
        (event(msgtype="m.image", body="x.png"), Fault.INVALID),
        (Failure(200, {"sender": ADA, "type": "m.room.message", "content": {}}), Fault.NOT_FOUND),
    ],
)
async def test_what_is_no_text_of_the_callers_is_not_edited(
    toolbox: Toolbox, fake: FakeHomeserver, found: Failure, fault: Fault
) -> None:
    fake.fail("GET .*/event/", found)
    error = await refused(toolbox, "matrix_edit_message", event_id="$x", message="new")
    assert error.fault is fault
    assert fake.messages(ROOM) == []


async def test_an_edit_stays_what_its_message_was(toolbox: Toolbox, fake: FakeHomeserver) -> None:
    fake.fail("GET .*/event/", event(msgtype="m.notice", body="old"))
    await use(toolbox, "matrix_edit_message", event_id="$x", message="new")
    (edit,) = fake.messages(ROOM)
    assert edit["content"]["m.new_content"]["msgtype"] == "m.notice"


async def test_a_removal_whose_answer_was_lost_is_made_once(
    toolbox: Toolbox, fake: FakeHomeserver, clock: Clock
) -> None:
    because = {"redacted_because": {"event_id": "$r"}}
    removed = Failure(200, {"content": {}, "unsigned": because})
    fake.fail("GET .*/event/", event(), removed)
    fake.fail("PUT .*/redact/", Failure(502), Failure(200, {"event_id": "$r"}))
    arguments = {"event_id": "$x", "reason": "\u202e typo ", "transaction_id": "t"}
    removing = asyncio.create_task(use(toolbox, "matrix_redact", **arguments))
    await clock.until(removing.done)
    told = await removing
    assert told["redaction_event_id"] == "$r"
    first, second = fake.matching("PUT .*/redact/")
    assert first.path == second.path
    assert first.body["reason"] == "typo"
    again = await use(toolbox, "matrix_redact", **arguments | {"transaction_id": "other"})
    assert again == told


async def test_a_message_whose_answer_was_lost_is_sent_once(
    toolbox: Toolbox, fake: FakeHomeserver, clock: Clock
) -> None:
    fake.forgetful = True
    # The second is for aiohttp, which tries a broken connection's request again by itself.
    fake.fail("PUT .*/send/", LOST_ANSWER, LOST_REQUEST)
    arguments = {"message": "once", "transaction_id": "t"}
    sending = asyncio.create_task(use(toolbox, "matrix_send_message", **arguments))
    await clock.until(sending.done)
    await sending
    assert fake.bodies(ROOM) == ["once"]


async def test_a_message_that_is_long_in_going_out_leaves_the_less_time_for_its_answer(
    toolbox: Toolbox, directory: AgentDirectory, fake: FakeHomeserver, clock: Clock
) -> None:
    await directory.reserve([agent(2)])
    released = fake.hold("PUT .*/send/")
    given = {"agent": "Agent 2", "message": "hello", "wait_seconds": LONGEST_WAIT}
    who = Principal("token:1", "agent-1")
    clock.stop()
    began = clock.now()
    calling = asyncio.create_task(toolbox.call(who, "message_agent", given, door="api"))
    await eventually(lambda: fake.matching("PUT .*/send/"))
    clock.advance(20)
    released.set()
    await clock.until(calling.done, step=5)
    assert "not answered yet" in str(await calling)
    assert clock.now() - began < LONGEST_WAIT + 15


async def test_a_client_that_hangs_up_finds_its_message_sent(
    toolbox: Toolbox, fake: FakeHomeserver
) -> None:
    released = fake.hold("PUT .*/send/")
    arguments = {"message": "once", "transaction_id": "t"}
    for _ in range(2):
        call = asyncio.create_task(use(toolbox, "matrix_send_message", **arguments))
        await eventually(lambda: fake.matching("PUT .*/send/"))
        call.cancel()
        await asyncio.wait([call])
    released.set()
    told = await use(toolbox, "matrix_send_message", **arguments)
    assert [one["event_id"] for one in fake.messages(ROOM)] == [told["event_id"]]
    assert len(fake.requests) == 1


async def test_a_file_of_a_call_that_comes_again_is_not_uploaded_again(
    toolbox: Toolbox, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(*_: object, **__: object) -> None:
        """Before it was noted."""

    fake.fail("GET .*/joined_rooms", JOINED)
    arguments = {"name": "a.txt", "content": "a", "transaction_id": "t"}
    with monkeypatch.context() as patch:
        patch.setattr(toolbox.ledger._store, "end", killed)
        first = await use(toolbox, "matrix_upload_file", **arguments)
        assert await use(toolbox, "matrix_upload_file", **arguments) == first
    assert len(fake.matching("POST .*/upload")) == len(fake.messages(ROOM)) == 1


async def test_nothing_is_uploaded_for_a_room_the_caller_is_not_in(
    toolbox: Toolbox, fake: FakeHomeserver
) -> None:
    fake.fail("GET .*/joined_rooms", Failure(200, {"joined_rooms": ["!other:test"]}))
    error = await refused(toolbox, "matrix_upload_file", name="a.txt", content="a")
    assert (error.fault, "You are not in !1:test" in str(error)) == (Fault.FORBIDDEN, True)
    assert fake.matching("POST .*/upload") == []


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (failing(502), Fault.UNAVAILABLE),
        (Failure(404, {"errcode": "M_NOT_FOUND", "error": "none"}), Fault.NOT_FOUND),
        (Failure(403, {"errcode": "M_FORBIDDEN", "error": "no"}), Fault.NOT_FOUND),
    ],
    ids=["away", "none", "not to be seen"],
)
async def test_media_that_cannot_be_had_is_not_sent(
    toolbox: Toolbox,
    fake: FakeHomeserver,
    clock: Clock,
    answer: Failure,
    fault: Fault,
) -> None:
    fake.fail("GET .*/media/download/", answer, answer, answer)
    call = asyncio.create_task(
        refused(toolbox, "matrix_upload_file", name="a", mxc="mxc://test/abc")
    )
    await clock.until(call.done)
    assert (await call).fault is fault
    assert fake.messages(ROOM) == []


BAD: list[tuple[str, dict[str, Any], Fault]] = [
    ("matrix_send_voice", {"content_base64": base64.b64encode(WAV).decode()}, Fault.INVALID),
    ("matrix_send_image", {"content_base64": "A" * 7_000_000}, Fault.TOO_LARGE),
    ("matrix_upload_file", {"name": "a", "content": "a" * 7_000_000}, Fault.TOO_LARGE),
    ("matrix_create_poll", {"question": "?", "options": ["a", " a "]}, Fault.INVALID),
    ("matrix_create_poll", {"question": "?", "options": ["a"]}, Fault.INVALID),
    ("matrix_create_poll", {"question": "\u202e", "options": ["a", "b"]}, Fault.INVALID),
    ("matrix_edit_message", {"event_id": "x", "message": "hi"}, Fault.INVALID),
    ("matrix_send_message", {"message": "hi", "transaction_id": "é"}, Fault.INVALID),
    ("matrix_send_message", {"message": "hi", "transaction_id": "x" * 201}, Fault.INVALID),
    ("matrix_mark_read", {"event_id": "../x"}, Fault.INVALID),
    ("matrix_set_typing", {"seconds": 10**9}, Fault.INVALID),
]


async def test_bad_arguments_reach_no_homeserver(
    toolbox: Toolbox, fake: FakeHomeserver, subtests: pytest.Subtests
) -> None:
    for tool, arguments, fault in BAD:
        with subtests.test(tool=tool, arguments=str(arguments)[:60]):
            assert (await refused(toolbox, tool, **arguments)).fault is fault
    assert fake.requests == []


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("matrix_send_message", {"message": "![" * 4_000}),
        ("matrix_reply", {"event_id": "$x", "message": "![" * 4_000}),
        ("matrix_edit_message", {"event_id": "$x", "message": "![" * 4_000}),
        ("matrix_send_image", {"content_base64": PNG, "caption": "![" * 4_000}),
        ("message_agent", {"agent": "Agent 2", "message": "![" * 4_000, "wait_seconds": 0}),
    ],
)
async def test_others_go_on_while_a_long_text_is_read(
    toolbox: Toolbox,
    directory: AgentDirectory,
    fake: FakeHomeserver,
    monkeypatch: pytest.MonkeyPatch,
    tool: str,
    arguments: dict[str, Any],
) -> None:
    threads: set[threading.Thread] = set()

    def watched(text: str) -> Formatted:
        threads.add(threading.current_thread())
        return render(text)

    monkeypatch.setattr(content_module, "render", watched)
    await directory.reserve([agent(2)])
    fake.fail("GET .*/event/", event())
    fake.fail("GET .*/joined_rooms", JOINED)
    where = {} if tool == "message_agent" else {"room_id": ROOM}
    principal = Principal("token:1", "agent-1")
    await toolbox.call(principal, tool, where | arguments, door="api")
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("matrix_edit_message", {"room_id": ROOM, "event_id": "$x", "message": "![" * 16_000}),
        ("message_agent", {"agent": "Agent 2", "message": "![" * 31_000, "wait_seconds": 0}),
    ],
)
async def test_what_is_too_long_for_one_event_is_not_read(
    toolbox: Toolbox,
    directory: AgentDirectory,
    fake: FakeHomeserver,
    monkeypatch: pytest.MonkeyPatch,
    tool: str,
    arguments: dict[str, Any],
) -> None:
    monkeypatch.delattr(content_module, "render")
    await directory.reserve([agent(2)])
    fake.fail("GET .*/event/", event())
    with pytest.raises(ToolError) as caught:
        await toolbox.call(Principal("token:1", "agent-1"), tool, arguments, door="api")
    assert caught.value.fault is Fault.TOO_LARGE
