"""How many tools models are shown, and the one that finds and calls the rest."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.builders import agent, config_for
from tests.fake_homeserver import FakeHomeserver
from tests.toolbox_kit import toolbox_on

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.common.tools import ToolCall, ToolResult
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.operations.toolbox import toolsets
from letta_matrix.operations.toolbox.others import OTHERS
from letta_matrix.operations.toolbox.registry import Toolbox
from letta_matrix.operations.toolbox.toolsets import Toolset
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.database import Database

ROOM = "!1:test"
TOKEN = Principal("token:1", "")
FEW = {
    *("matrix_send_message", "matrix_reply", "matrix_react", "matrix_read_room"),
    *("matrix_list_rooms", "matrix_upload_file", "message_agent", "ask_human", OTHERS),
}


@pytest.fixture
async def toolbox(
    tmp_path: Path, homeserver: Homeserver, database: Database, directory: AgentDirectory
) -> AsyncGenerator[Toolbox]:
    await directory.reserve([agent(1)])
    async with toolbox_on(config_for(tmp_path), homeserver, directory, database) as made:
        yield made


async def other(toolbox: Toolbox, **arguments: Any) -> ToolResult:
    call = ToolCall("agent-1", "conversation", "call-1", OTHERS, arguments, "request-1")
    return await toolbox.handler("memory")(call)


async def found(toolbox: Toolbox, words: str, principal: Principal = TOKEN) -> list[str]:
    told: Any = await toolbox.call(principal, OTHERS, {"find": words}, door="mcp")
    return [tool["name"] for tool in told["tools"]]


def test_agents_pay_for_few(toolbox: Toolbox) -> None:
    specs = toolbox.specs()
    assert {spec.name for spec in specs} == FEW
    told = [
        {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
        for spec in specs
    ]
    assert sum(len(json.dumps(one)) for one in told) <= 5_000


@pytest.mark.parametrize("toolset", ["usual", "all"])
async def test_agents_can_be_shown_more(
    tmp_path: Path,
    homeserver: Homeserver,
    database: Database,
    directory: AgentDirectory,
    toolset: str,
) -> None:
    config = config_for(tmp_path, conversations={"toolset": toolset})
    async with toolbox_on(config, homeserver, directory, database) as toolbox:
        names = {spec.name for spec in toolbox.specs()}
    assert names > FEW - {OTHERS}
    assert (OTHERS in names) == (toolset == "usual")
    assert ("matrix_get_state" in names) == (toolset == "all")


def test_clients_are_shown_no_more_than_they_bear(toolbox: Toolbox) -> None:
    usual = {tool.name for tool in toolbox.shown_to(TOKEN, Toolset.USUAL)}
    assert len(usual) <= 40
    assert {"matrix_join_room", "matrix_create_room", OTHERS} <= usual
    everything = [tool.name for tool in toolbox.shown_to(TOKEN, Toolset.ALL)]
    assert everything == list(toolbox.tools)
    assert set(everything) >= toolsets._FEW | toolsets._RARE
    # Who sees all there is for them needs no other.
    agents = Principal("token:1", "", frozenset({Scope.AGENTS}))
    assert OTHERS not in {tool.name for tool in toolbox.shown_to(agents, Toolset.USUAL)}


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("search messages for words", "matrix_search"),
        ("edit what I said", "matrix_edit_message"),
        ("members", "matrix_list_members"),
        ("invite somebody into a room", "matrix_invite"),
        ("inviting", "matrix_invite"),
        ("create a poll", "matrix_create_poll"),
        ("Unread?", "matrix_list_unread"),
        ("wait for a message", "wait_for_message"),
        ("download an attachment", "matrix_download_media"),
    ],
)
async def test_words_find_tools(toolbox: Toolbox, words: str, first: str) -> None:
    names = await found(toolbox, words)
    assert names[0] == first
    assert len(names) <= 5


@pytest.mark.parametrize("words", ["", "xyzzy", "!"])
async def test_without_words_that_fit_all_are_named(toolbox: Toolbox, words: str) -> None:
    assert await found(toolbox, words) == list(toolbox.tools)


async def test_only_what_one_may_call_is_found(toolbox: Toolbox) -> None:
    reader = Principal("token:1", "", frozenset({Scope.READ}))
    assert "matrix_redact" not in await found(toolbox, "redact", reader)
    told = json.loads((await other(toolbox, find="kick")).text)
    assert "matrix_kick" not in [tool["name"] for tool in told["tools"]]


async def test_what_is_found_can_be_called(toolbox: Toolbox) -> None:
    told = json.loads((await other(toolbox, find="whoami")).text)
    assert told["tools"][0]["name"] == "matrix_whoami"
    assert told["tools"][0]["parameters"]["type"] == "object"
    result = await other(toolbox, name="matrix_whoami", arguments={})
    assert json.loads(result.text)["user_id"] == "@agent_1:test"


@pytest.mark.parametrize("as_text", [False, True])
async def test_a_call_is_that_of_the_tool_itself(
    toolbox: Toolbox, fake: FakeHomeserver, database: Database, as_text: bool
) -> None:
    sent: Any = {"room_id": ROOM, "message": "hi"}
    arguments = json.dumps(sent) if as_text else sent
    results = [
        await other(toolbox, name="matrix_send_message", arguments=arguments) for _ in range(2)
    ]
    assert results[0].ok, results[0].text
    assert results[0] == results[1]
    assert fake.bodies(ROOM) == ["hi"]
    await toolbox.ledger.close()
    (entry,) = await AuditStore(database).newest(10)
    assert (entry.tool, entry.outcome) == ("matrix_send_message", "ok")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"name": "matrix_fry"}, "There is no tool 'matrix_fry', only: "),
        ({"name": OTHERS}, "`name` should be another tool"),
        ({"name": "matrix_whoami", "arguments": [1]}, "`arguments` an object"),
        ({"name": "matrix_whoami", "arguments": "{"}, "`arguments` an object"),
        ({"name": "matrix_whoami", "arguments": {"x": 1}}, "there is no argument `x`"),
        ({"name": "matrix_kick", "arguments": {}}, "matrix_kick is not for you"),
        ({"name": "matrix_whoami", "transaction_id": "1"}, "`transaction_id` belongs into `arg"),
        ({"names": "x"}, "there is no argument `names`, only: find, name, arguments"),
        ({"find": 7}, "`find` should be a valid string"),
    ],
)
async def test_mistakes_are_told(toolbox: Toolbox, arguments: dict[str, Any], why: str) -> None:
    result = await other(toolbox, **arguments)
    assert not result.ok
    assert why in result.text


async def test_scopes_hold_behind_it(toolbox: Toolbox) -> None:
    reader = Principal("token:1", "", frozenset({Scope.READ}))
    call = {"name": "matrix_send_message", "arguments": {"room_id": ROOM, "message": "hi"}}
    with pytest.raises(ToolError) as raised:
        await toolbox.call(reader, OTHERS, call, door="mcp")
    assert raised.value.fault is Fault.FORBIDDEN
