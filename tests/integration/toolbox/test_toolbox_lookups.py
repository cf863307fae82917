"""The tools that tell of rooms, people and files, and what no reading tool tells, on a real
homeserver."""

import base64
import secrets
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.bridge_world import Json
from tests.integration.toolbox.readers import Read, fault_of, post_file, say, upload
from tests.integration.toolbox.toolbox_bench import Bench
from tests.stress import examples
from tests.tool_arguments import arguments as tool_arguments

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.matrix.content import text_content
from letta_matrix.matrix.intent import Intent
from letta_matrix.operations.toolbox.results import LIMIT, size
from letta_matrix.operations.toolbox.tool import Tool
from letta_matrix.store.agents import Agent

READERS = {
    "matrix_read_room",
    "matrix_get_context",
    "matrix_read_thread",
    "matrix_search",
    "matrix_list_unread",
    "matrix_list_rooms",
    "matrix_get_room",
    "matrix_get_state",
    "matrix_list_members",
    "matrix_get_profile",
    "matrix_download_media",
    "matrix_whoami",
}

_NO_CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


def test_the_reading_tools_say_so(bench: Bench) -> None:
    readers = [bench.toolbox.tools[name] for name in READERS]
    assert all(tool.read_only and tool.scope is Scope.READ for tool in readers)


async def test_a_room_tells_what_it_is(bench: Bench, ada: Agent, read: Read) -> None:
    alias = f"info{secrets.token_hex(4)}"
    room_id = await bench.room(ada, name="Info", topic="All about it", room_alias_name=alias)
    parent = {"via": ["localhost"], "canonical": True}
    path = f"/rooms/{room_id}/state"
    await bench.ann.call("PUT", f"{path}/m.space.parent/!space", parent)
    told = await read(ada, "matrix_get_room", room_id=room_id)
    assert (told["name"], told["topic"]) == ("Info", "All about it")
    assert (told["alias"], told["spaces"]) == (f"#{alias}:localhost", ["!space"])
    assert (told["encrypted"], told["joined"], told["version"]) == (False, 2, "12")
    power = told["power"]
    assert (power["yours"], power["you_may"]) == (0, ["send", "invite"])
    assert power["creators"] == [bench.ann.user_id]
    status, made = await bench.ann.call("POST", f"/rooms/{room_id}/upgrade", {"new_version": "12"})
    assert status == 200
    told = await read(ada, "matrix_get_room", room_id=room_id)
    assert told["replaced_by"] == made["replacement_room"]
    assert "upgraded" in told["note"]


async def test_any_state_is_read(bench: Bench, ada: Agent, read: Read) -> None:
    room_id = str(ada.room_id)
    ghost = Intent(bench.client, ada.user_id)
    await ghost.set_state(room_id, "org.example.big", {"text": "x" * 30_000})
    kind = "m.room.member"
    told = await read(
        ada, "matrix_get_state", room_id=room_id, event_type=kind, state_key=ada.user_id
    )
    assert told["content"]["membership"] == "join"
    big = await read(ada, "matrix_get_state", room_id=room_id, event_type="org.example.big")
    assert 5_000 < len(big["cut_content"]) < 10_000
    none = [("org.example.none", ""), (kind, "@x:y"), ("..", "messages"), (kind, "..")]
    for event_type, key in none:
        arguments = {"event_type": event_type, "state_key": key}
        gone = read(ada, "matrix_get_state", room_id=room_id, **arguments)
        assert await fault_of(gone) is Fault.NOT_FOUND


async def test_profiles_are_told(bench: Bench, ada: Agent, read: Read) -> None:
    told = await read(ada, "matrix_get_profile", user_id=ada.user_id)
    assert (told["name"], told["agent_id"]) == ("Ada", ada.agent_id)
    assert "agent_id" not in await read(ada, "matrix_get_profile", user_id=bench.ann.user_id)
    gone = read(ada, "matrix_get_profile", user_id="@nobody:localhost")
    assert await fault_of(gone) is Fault.NOT_FOUND


async def test_a_limited_token_is_told_of_no_other_agents(
    ada: Agent, bea: Agent, read: Read
) -> None:
    limited = await read(ada, "matrix_get_profile", user_id=bea.user_id, rooms={str(ada.room_id)})
    assert (limited["name"], "agent_id" in limited) == ("Bea", False)
    told = await read(ada, "matrix_get_profile", user_id=bea.user_id)
    assert told["agent_id"] == bea.agent_id


async def test_many_members_are_told_in_pieces(
    bench: Bench, ada: Agent, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = {f"@{number:04}{'x' * 200}:localhost": "\x01" * 200 for number in range(5_000)}

    async def crowd(_reader: Intent, _room_id: str) -> dict[str, str]:
        return people

    monkeypatch.setattr(Intent, "joined_members", crowd)
    told = await read(ada, "matrix_list_rooms", include_members=True)
    assert size(told) <= LIMIT
    assert told["rooms"][0]["joined"] == 5_000
    assert 0 < len(told["rooms"][0]["members"]) <= 20


async def test_a_room_is_named_without_asking_for_all_of_them(
    bench: Bench, ada: Agent, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, asked = f"Name {secrets.token_hex(4)}", list[str]()
    room_id = await bench.room(ada, name=name)
    room_name = Intent.room_name

    async def counted(reader: Intent, asked_for: str) -> str:
        asked.append(asked_for)
        return await room_name(reader, asked_for)

    await read(ada, "matrix_list_members", room_id=name)
    monkeypatch.setattr(Intent, "room_name", counted)
    assert (await read(ada, "matrix_list_members", room_id=name))["room_id"] == room_id
    assert asked == [room_id]
    # It is renamed, and the bridge has not heard of it.
    path = f"/rooms/{room_id}/state/m.room.name"
    await bench.ann.call("PUT", path, {"name": f"{name} now"})
    call = read(ada, "matrix_list_members", room_id=name)
    assert await fault_of(call) is Fault.NOT_FOUND
    told = await read(ada, "matrix_list_members", room_id=f"{name} now")
    assert told["room_id"] == room_id


async def test_files_are_read_whole_and_in_pieces(bench: Bench, ada: Agent, read: Read) -> None:
    room_id = str(ada.room_id)
    text = "Zeile äöü\n" * 3_000
    info = {"mimetype": "text/markdown"}
    event_id = await post_file(bench, room_id, text.encode(), "notes.md", info=info)
    about = {"room_id": room_id, "event_id": event_id}
    told = await read(ada, "matrix_download_media", max_bytes=1_000_000, **about)
    assert (told["content"], told["bytes"]) == (text, len(text.encode()))
    assert (told["name"], told["media_type"]) == ("notes.md", "text/markdown")
    pieces, offset = "", 0
    while offset is not None:
        told = await read(ada, "matrix_download_media", offset=offset, max_bytes=9_999, **about)
        pieces, offset = pieces + told["content"], told.get("next")
    assert pieces == text
    data = bytes(range(256)) * 4
    event_id = await post_file(bench, room_id, data, "data.bin")
    told = await read(ada, "matrix_download_media", room_id=room_id, event_id=event_id)
    assert base64.b64decode(told["content_base64"]) == data
    named = await read(ada, "matrix_download_media", mxc=told["mxc"])
    assert named["content_base64"] == told["content_base64"]
    lines = await post_file(bench, room_id, b"\n" * 30_000, "lines.txt")
    ok, told = await bench.call(
        ada, "matrix_download_media", room_id=room_id, event_id=lines, max_bytes=10_000
    )
    assert ok, "an agent's result is whole JSON, however its text is escaped"
    assert told["next"] == len(told["content"])


async def test_files_that_are_none_are_told_apart(bench: Bench, ada: Agent, read: Read) -> None:
    room_id = str(ada.room_id)
    (message,) = await say(bench, room_id, "no file")
    large = await post_file(bench, room_id, b"x" * 1_000_001, "large")
    foreign = {"msgtype": "m.file", "body": "x", "url": "https://example.org/x"}
    elsewhere = await bench.ann.send_content(room_id, foreign)
    sealed = {"msgtype": "m.file", "body": "x", "file": {"url": "mxc://localhost/x"}}
    encrypted = await bench.ann.send_content(room_id, sealed)
    known = await upload(bench, b"known")
    ghost = Intent(bench.client, ada.user_id)
    await ghost.set_state(room_id, "m.room.avatar", {"url": known})
    avatar = (await ghost.recent_events(room_id, filters={"types": ["m.room.avatar"]}))[-1]
    cases: list[tuple[Json, Fault]] = [
        ({}, Fault.INVALID),
        ({"mxc": known, "event_id": message, "room_id": room_id}, Fault.INVALID),
        ({"event_id": message}, Fault.INVALID),
        ({"mxc": known, "room_id": room_id}, Fault.INVALID),
        ({"mxc": "https://localhost/x"}, Fault.INVALID),
        ({"mxc": "mxc://localhost/../x"}, Fault.INVALID),
        ({"mxc": "mxc://../config"}, Fault.INVALID),
        ({"mxc": f"mxc://localhost/{'x' * 24}"}, Fault.NOT_FOUND),
        ({"mxc": known, "offset": 6}, Fault.INVALID),
        ({"mxc": known, "rooms": {room_id}}, Fault.FORBIDDEN),
        ({"event_id": message, "room_id": room_id}, Fault.NOT_FOUND),
        ({"event_id": "$gone", "room_id": room_id}, Fault.NOT_FOUND),
        ({"event_id": message, "room_id": "!elsewhere"}, Fault.FORBIDDEN),
        ({"event_id": avatar["event_id"], "room_id": room_id}, Fault.NOT_FOUND),
        ({"event_id": large, "room_id": room_id}, Fault.TOO_LARGE),
        ({"event_id": elsewhere, "room_id": room_id}, Fault.INVALID),
        ({"event_id": encrypted, "room_id": room_id}, Fault.REFUSED),
    ]
    for arguments, fault in cases:
        assert await fault_of(read(ada, "matrix_download_media", **arguments)) is fault, arguments


IN_A_ROOM: list[tuple[str, Json]] = [
    ("matrix_read_room", {}),
    ("matrix_get_context", {"event_id": "$x"}),
    ("matrix_read_thread", {"event_id": "$x"}),
    ("matrix_search", {"query": "x"}),
    ("matrix_get_room", {}),
    ("matrix_get_state", {"event_type": "m.room.create"}),
    ("matrix_list_members", {}),
    ("matrix_download_media", {"event_id": "$x"}),
]


@pytest.fixture(scope="module")
async def closed(bench: Bench, ada: Agent) -> list[str]:
    """Rooms that are not for Ada: one she left, one that the world may read, some that are none."""
    left, public = await bench.room(ada), await bench.room(preset="public_chat")
    await Intent(bench.client, ada.user_id).leave(left)
    path = f"/rooms/{public}/state/m.room.history_visibility"
    await bench.ann.call("PUT", path, {"history_visibility": "world_readable"})
    return [left, public, "!nowhere", "!a/../b", "!.."]


@pytest.mark.parametrize(("name", "arguments"), IN_A_ROOM)
async def test_nothing_is_read_where_the_caller_is_not_or_may_not_be(
    bench: Bench, ada: Agent, read: Read, closed: list[str], name: str, arguments: Json
) -> None:
    for room_id in closed:
        call = read(ada, name, room_id=room_id, **arguments)
        assert await fault_of(call) is Fault.FORBIDDEN, room_id
    call = read(ada, name, rooms={"!other"}, room_id=ada.room_id, **arguments)
    assert await fault_of(call) is Fault.FORBIDDEN


async def test_one_that_left_is_noticed_though_it_was_there_a_moment_ago(
    bench: Bench, ada: Agent, read: Read
) -> None:
    room_id = await bench.room(ada, name="Before")
    await say(bench, room_id, "while it was there")
    await read(ada, "matrix_read_room", room_id=room_id)
    await Intent(bench.client, ada.user_id).leave(room_id)
    gone = {"type": "m.room.member", "room_id": room_id, "state_key": ada.user_id}
    bench.toolbox.event_bus.publish(gone)
    call = read(ada, "matrix_read_room", room_id=room_id)
    assert await fault_of(call) is Fault.FORBIDDEN


async def test_a_new_name_shows_once_the_bridge_hears_of_it(
    bench: Bench, ada: Agent, read: Read
) -> None:
    room_id = await bench.room(ada, name="Before")

    async def name() -> str:
        rooms = (await read(ada, "matrix_list_rooms"))["rooms"]
        return next(room["name"] for room in rooms if room["room_id"] == room_id)

    assert await name() == "Before"
    renamed = {"type": "m.room.name", "room_id": room_id, "state_key": ""}
    path = f"/rooms/{room_id}/state/m.room.name"
    await bench.ann.call("PUT", path, {"name": "After"})
    bench.toolbox.event_bus.publish(renamed)
    assert await name() == "After"


EVENTS: dict[str, Json] = {
    "matrix_reply": {"message": "x"},
    "matrix_reply_in_thread": {"message": "x"},
    "matrix_react": {"key": "x"},
    "matrix_edit_message": {"message": "x"},
    "wait_for_message": {"timeout_seconds": 0},
    "ask_human": {"question": "x?", "timeout_seconds": 5},
}


def test_each_tool_that_takes_an_event_is_tried(bench: Bench) -> None:
    assert {tool.name for tool in bench.toolbox.tools.values() if event_argument(tool)} >= {
        *EVENTS,
        "matrix_get_context",
        "matrix_read_thread",
        "matrix_download_media",
        "matrix_mark_read",
        "matrix_redact",
        "matrix_close_poll",
        "matrix_read_poll",
    }


def event_argument(tool: Tool[Any]) -> str:
    """The argument of a tool that is an event id, "" if there is none."""
    properties = tool.parameters["properties"]
    named = (name for name, about in properties.items() if "\\$" in about.get("pattern", ""))
    return next(named, "")


async def test_no_event_of_another_room_is_had_in_a_room_one_is_in(
    bench: Bench, ada: Agent
) -> None:
    here, there = await bench.room(ada), await bench.room(ada)
    ghost = Intent(bench.client, ada.user_id)
    poll = await bench.call_as(
        ada, "matrix_create_poll", room_id=there, question="?", options=["a", "b"]
    )
    own = await ghost.send(there, "m.room.message", text_content("own", marker={}), "own-1")
    file = await post_file(bench, there, b"abc", "a.txt")
    before = [len(await bench.ann.timeline(room_id)) for room_id in (here, there)]
    for tool in bench.toolbox.tools.values():
        argument = event_argument(tool)
        if not argument:
            continue
        for event_id in (poll["event_id"], own, file):
            arguments: Json = {"room_id": here, argument: event_id, **EVENTS.get(tool.name, {})}
            call = bench.call_as(ada, tool.name, rooms={here}, **arguments)
            assert await fault_of(call) is Fault.NOT_FOUND, tool.name
    assert [len(await bench.ann.timeline(room_id)) for room_id in (here, there)] == before


@pytest.fixture(scope="module")
async def things(bench: Bench, ada: Agent) -> dict[str, list[str]]:
    """What there is to read, by argument."""
    room_id = str(ada.room_id)
    (root,) = await say(bench, room_id, "root")
    event_ids = [
        root,
        await bench.ann.say_in_thread(room_id, root, "in it"),
        await bench.ann.react(room_id, root, "👍"),
        await post_file(bench, room_id, b"abc", "a.txt"),
    ]
    types = ["m.room.create", "m.room.power_levels", "m.room.member"]
    mxc = [await upload(bench, b"abc"), "mxc://localhost/none"]
    return {"event_id": event_ids, "event_type": types, "mxc": mxc, "query": ["root"]}


@pytest.mark.parametrize("name", sorted(READERS))
@given(data=st.data())
@settings(max_examples=examples(6, searching=15), deadline=None, suppress_health_check=_NO_CHECKS)
async def test_nothing_that_callers_may_say_breaks_a_reader(
    bench: Bench,
    ada: Agent,
    read: Read,
    things: dict[str, list[str]],
    name: str,
    data: st.DataObject,
) -> None:
    schema = bench.toolbox.tools[name].parameters
    arguments = data.draw(tool_arguments(schema, str(ada.room_id), "Ada's", **things))
    agent = data.draw(st.sampled_from([ada, ada, None]))
    fault = None
    try:
        await read(agent, name, **arguments)
    except ToolError as error:
        fault = error.fault
    assert fault not in (Fault.FAILED, Fault.TIMEOUT, Fault.UNAVAILABLE), arguments
