"""What the MCP server says over Streamable HTTP."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.unit.mcp_http_door import META, MODERN, OLDER, HttpDoor, Json, lasting_door, rpc
from tests.waiting import eventually

from letta_matrix.access.principal import Scope
from letta_matrix.doors.mcp import http
from letta_matrix.operations.toolbox.others import OTHERS


@pytest.fixture(scope="module")
async def shared(
    migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[HttpDoor]:
    async with lasting_door(migrated, tmp_path_factory.mktemp("door")) as opened:
        yield opened


@pytest.fixture
async def mcp(shared: HttpDoor) -> HttpDoor:
    """The door, with a token of this test's own."""
    shared.door.fake.go.clear()
    return shared.with_token(await shared.door.token())


async def test_a_stateless_client_needs_no_handshake(mcp: HttpDoor) -> None:
    found = await mcp.modern("server/discover")
    assert MODERN in found.result["supportedVersions"]
    assert "untrusted" in found.result["instructions"]
    listed = (await mcp.modern("tools/list")).result
    assert listed["cacheScope"] == "private"
    echo = next(tool for tool in listed["tools"] if tool["name"] == "echo")
    assert echo["inputSchema"]["properties"] == {"text": {"default": "", "type": "string"}}
    assert echo["outputSchema"]["type"] == "object"
    assert echo["annotations"] == {"title": "echo", "readOnlyHint": True, "openWorldHint": True}
    called = await mcp.call("echo", text="hi 👍")
    assert called.headers["Content-Type"] == "application/json"
    assert called.result["structuredContent"] == {"text": "hi 👍"}
    assert called.result["content"] == [{"type": "text", "text": '{"text":"hi 👍"}'}]
    assert "Mcp-Session-Id" not in called.headers


@pytest.mark.parametrize("version", OLDER)
async def test_a_session_of_each_older_revision(mcp: HttpDoor, version: str) -> None:
    before = mcp.sessions()
    session = await mcp.session(version)
    listed = (await session.request("tools/list")).result["tools"]
    assert {"echo", "wait"} <= {tool["name"] for tool in listed}
    params = {"name": "echo", "arguments": {"text": "hi"}}
    called = (await session.request("tools/call", params)).result
    assert called["content"] == [{"type": "text", "text": '{"text":"hi"}'}]
    assert mcp.sessions() == before + 1
    assert (await session.ask("DELETE")).status == 200
    assert (await session.request("ping")).status == 404
    assert mcp.sessions() == before


async def test_a_token_sees_and_calls_what_it_is_for(mcp: HttpDoor) -> None:
    mcp.token = await mcp.door.token(Scope.AGENTS)
    listed = (await mcp.modern("tools/list")).result["tools"]
    assert [tool["name"] for tool in listed] == ["list_agents"]
    refused = (await mcp.call("echo")).result
    assert refused["isError"]
    assert "scope read" in refused["content"][0]["text"]
    assert refused["_meta"]["org.letta.matrix/fault"] == "forbidden"


async def test_the_address_says_how_many_tools_are_shown(mcp: HttpDoor) -> None:
    async def listed(query: str) -> list[str]:
        sent = {"MCP_Protocol_Version": MODERN, "Mcp_Method": "tools/list"}
        asked = rpc("tools/list", {"_meta": META})
        answer = await mcp.ask(path=f"/mcp{query}", data=asked, **sent)
        return [tool["name"] for tool in answer.result["tools"]]

    usual = await listed("")
    assert "echo" in usual
    assert await listed("?toolset=usual") == await listed("?toolset=all") == usual
    few = await listed("?toolset=few")
    assert few[-1] == OTHERS
    assert "echo" not in few
    answer = await mcp.ask(path="/mcp?toolset=most", data=rpc("ping", {}))
    assert answer.status == 400
    assert answer.error["message"] == "`toolset` should be one of `few`, `usual`, `all`."
    session = await mcp.session()
    path, asked = "/mcp?toolset=few", rpc("tools/list", {})
    shown = (await mcp.ask(path=path, data=asked, **session.own)).result["tools"]
    assert [tool["name"] for tool in shown] == few


async def test_what_is_not_shown_can_be_called(mcp: HttpDoor) -> None:
    called = await mcp.call(OTHERS, name="echo", arguments={"text": "hi"})
    assert called.result["structuredContent"] == {"text": "hi"}
    unknown = (await mcp.call(OTHERS, name="fry")).result
    assert unknown["isError"]
    assert "no tool 'fry'" in unknown["content"][0]["text"]
    described = (await mcp.call(OTHERS, find="echo")).result["structuredContent"]
    assert [tool["name"] for tool in described["tools"]] == ["echo"]


@pytest.mark.parametrize("modern", [True, False])
async def test_long_calls_tell_how_far_they_are(mcp: HttpDoor, modern: bool) -> None:
    params: Json = {"name": "steps", "_meta": {"progressToken": "p", **(META if modern else {})}}
    ask = mcp.modern if modern else (await mcp.session()).request
    told, ended = (await ask("tools/call", params)).messages
    expected = {"progressToken": "p", "progress": 1.0, "total": 2.0, "message": "half"}
    assert (told["method"], told["params"]) == ("notifications/progress", expected)
    # No stream of UTF-8 can carry half of a pair.
    assert ended["result"]["structuredContent"] == {"text": "?"}


async def test_a_stateless_call_ends_when_its_client_leaves(mcp: HttpDoor) -> None:
    call = asyncio.create_task(mcp.call("wait"))
    await eventually(lambda: mcp.door.fake.waiting == 1)
    call.cancel()
    await eventually(lambda: mcp.door.fake.waiting == 0)


async def test_a_call_of_a_session_can_be_cancelled(mcp: HttpDoor) -> None:
    session = await mcp.session()
    call = asyncio.create_task(session.request("tools/call", {"name": "wait"}))
    await eventually(lambda: mcp.door.fake.waiting == 1)
    cancel = {"method": "notifications/cancelled", "params": {"requestId": 1}}
    assert (await session.ask(data={"jsonrpc": "2.0", **cancel})).status == 202
    assert "cancelled" in (await call).error["message"]
    assert mcp.door.fake.waiting == 0


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"GIF89a\x01\0\x01\0", "image/gif"),
        (b"OggS\0", "audio/ogg"),
        (b"\x89PNG, or so it is said", ""),
    ],
)
async def test_a_file_comes_as_a_block_of_its_own(mcp: HttpDoor, data: bytes, kind: str) -> None:
    encoded = base64.b64encode(data).decode()
    result = (await mcp.call("file", text=encoded)).result
    text, block = result["content"]
    assert json.loads(text["text"]) == {"mxc": "mxc://a/b", "media_type": "image/png"}
    assert result["structuredContent"]["content_base64"] == encoded
    if kind:
        assert block == {"type": kind.split("/", maxsplit=1)[0], "data": encoded, "mimeType": kind}
    else:
        file = {"uri": "mxc://a/b", "mimeType": "image/png", "blob": encoded}
        assert block == {"type": "resource", "resource": file}


async def test_a_piece_of_a_file_is_no_file(mcp: HttpDoor) -> None:
    (text,) = (await mcp.call("file", text="R0lGODlhAQABAA== 10")).result["content"]
    assert json.loads(text["text"])["content_base64"] == "R0lGODlhAQABAA=="


async def test_what_a_tool_refuses_is_told_to_the_model(mcp: HttpDoor) -> None:
    result = (await mcp.call("refuse")).result
    assert result["isError"]
    assert result["content"] == [{"type": "text", "text": "Not so fast."}]
    assert result["_meta"]["org.letta.matrix/fault"] == "rate-limited"
    assert result["_meta"]["org.letta.matrix/retryAfter"] == 2.5
    wrong = (await mcp.call("echo", txet="x")).result
    assert wrong["isError"]
    assert "there is no argument `txet`" in wrong["content"][0]["text"]


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("tools/call", {"name": "nope"}, -32602),
        ("tools/call", {"name": 5}, -32602),
        ("tools/call", {"name": "echo", "arguments": ["x"]}, -32602),
        ("tools/list", {"cursor": "2"}, -32602),
        ("tools/fry", {}, -32601),
        ("x" * 10_000, {}, -32601),
    ],
)
async def test_mistakes_have_codes(
    mcp: HttpDoor, modern: bool, method: str, params: Json, code: int
) -> None:
    if modern:
        headers = {"Mcp_Name": "5"} if params.get("name") == 5 else {}
        answer = await mcp.modern(method, params, **headers)
    else:
        answer = await (await mcp.session()).request(method, params)
    assert answer.error["code"] in (code, -32020 if params.get("name") == 5 else code)
    assert "Traceback" not in json.dumps(answer.messages)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"jsonrpc":"2.0","id":1e999,"method":"ping"}',
        b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
        b"[]",
        json.dumps([rpc("ping", {}), rpc("tools/list", {}, 2)]).encode(),
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
    ],
    ids=["empty", "cut", "bytes", "deep", "id", "version", "none", "batch", "answer"],
)
@pytest.mark.parametrize("modern", [True, False])
async def test_what_is_no_message(mcp: HttpDoor, body: bytes, modern: bool) -> None:
    headers = {"MCP_Protocol_Version": MODERN, "Mcp_Method": "ping"} if modern else {}
    before = mcp.sessions()
    answer = await mcp.ask(data=body, **headers)
    assert answer.status == 400
    assert mcp.sessions() == before
    assert (await mcp.call("echo")).status == 200


async def test_a_body_that_is_too_large_is_not_read(mcp: HttpDoor) -> None:
    host, port = mcp.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = {"Host": host, "Authorization": f"Bearer {mcp.token}", "Content-Type": "text/json"}
    lines = [f"{name}: {value}" for name, value in head.items()]
    lines += [f"Content-Length: {http.LARGEST_BODY + 1}", "", ""]
    writer.write("\r\n".join(["POST /mcp HTTP/1.1", *lines]).encode())
    assert b" 413 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_headers_must_say_what_the_body_says(mcp: HttpDoor) -> None:
    answer = await mcp.modern("tools/call", {"name": "echo"}, Mcp_Name="wait")
    assert answer.status == 400
    answer = await mcp.modern("tools/list", MCP_Protocol_Version="2099-01-01")
    assert answer.status == 400


async def test_an_unknown_revision_is_told_the_known_ones(mcp: HttpDoor) -> None:
    version = "2099-01-01"
    params = {"_meta": {**META, "io.modelcontextprotocol/protocolVersion": version}}
    answer = await mcp.modern("tools/list", params, MCP_Protocol_Version=version)
    assert answer.status == 400
    assert answer.error["data"]["supported"] == [MODERN]
    assert (await mcp.begin(version)).result["protocolVersion"] == OLDER[-1]
