"""`letta-matrix mcp` as a program: what it is given, what it says, and what it loads."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from tests.mcp_socket import INITIALIZE
from tests.unit.mcp_door import Door, door_on
from tests.waiting import eventually, within

from letta_matrix.cli.main import main
from letta_matrix.cli.mcp_relay import Relay
from letta_matrix.store.database import Database


@pytest.fixture
async def door(tmp_path: Path, database: Database) -> AsyncGenerator[Door]:
    async with door_on(tmp_path, database) as opened:
        yield opened


def parameters(door: Door, token: str) -> StdioServerParameters:
    arguments = ["-m", "letta_matrix", "mcp", "--url", door.url.replace("http", "ws")]
    return StdioServerParameters(
        command=sys.executable, args=arguments, env={"LETTA_MATRIX_TOKEN": token}
    )


async def test_the_official_client_starts_the_program(door: Door) -> None:
    async with (
        stdio_client(parameters(door, await door.token())) as (read, write),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        called = await session.call_tool("echo", {"text": "ä\u2028\n"})
        assert called.structured_content == {"text": "ä\u2028\n"}
        assert (await session.list_prompts()).prompts


async def started(*arguments: str, **env: str) -> asyncio.subprocess.Process:
    """`letta-matrix mcp` as a process."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "letta_matrix", "mcp", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **env},
    )


async def test_what_is_piped_is_said_to_its_last_line(door: Door, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{await door.token()}\n")
    opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": INITIALIZE}
    first, last = (
        {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        for number, params in enumerate(
            ({"name": "echo", "arguments": {"text": text}} for text in ("first", "last")), 1
        )
    )
    lines = [opening, {"jsonrpc": "2.0", "method": "notifications/initialized"}, first]
    process = await started("--url", door.url, "--token-file", str(token))
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"".join(json.dumps(line).encode() + b"\n\n" for line in lines))
    for number in (0, 1):
        assert json.loads(await within(process.stdout.readline()))["id"] == number
    out, err = await within(process.communicate(json.dumps(last).encode()))
    assert (process.returncode, err) == (0, b"")
    assert [json.loads(line)["id"] for line in out.splitlines()] in ([2], [])
    await eventually(lambda: door.fake.said == ["first", "last"])


async def test_faults_are_one_line(door: Door) -> None:
    process = await started("--url", door.url, LETTA_MATRIX_TOKEN="lm_x_wrong")
    out, err = await within(process.communicate())
    assert (process.returncode, out) == (1, b"")
    assert err.count(b"\n") == 1
    assert b"does not accept the token" in err


OWN = "ws://127.0.0.1:8015/mcp"
Command = Callable[..., object]


@pytest.fixture
def stack(tmp_path: Path) -> str:
    """The folder of an embedded stack, in the present one."""
    folder = tmp_path / "stack"
    folder.mkdir()
    (folder / "stack.json").write_text(json.dumps({"mcp": {"ws_url": OWN, "token": "lm_own"}}))
    return folder.name


@pytest.fixture
def relays_to(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The URLs and tokens that relays are started with; they end at once."""
    given: list[tuple[str, str]] = []

    async def run(relay: Relay, _: object) -> None:
        given.append((relay._url, relay._token))

    monkeypatch.setattr(Relay, "run", run)
    return given


@pytest.fixture
def command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `letta-matrix mcp` in this process; its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LETTA_MATRIX_TOKEN", raising=False)

    def run(*arguments: str) -> object:
        monkeypatch.setattr(sys, "argv", ["letta-matrix", "mcp", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    return run


def test_the_embedded_stack_tells_where_its_door_is(
    command_line: Command, stack: str, relays_to: list[tuple[str, str]]
) -> None:
    assert command_line("--data", stack) == 0
    assert command_line("--data", stack, "--url", OWN) == 0
    assert relays_to == [(OWN, "lm_own")] * 2
    assert command_line("--data", stack, "--toolset", "few") == 0
    assert relays_to[2:] == [(f"{OWN}?toolset=few", "lm_own")]


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("--data", "."), 1, "no stack runs in"),
        (("--token-file", "none"), 2, "cannot be read"),
        (("--data", "stack", "--toolset", "most"), 2, "one of few, usual, all"),
        (
            ("--data", "stack", "--url", "ws://127.0.0.1:8016/mcp"),
            2,
            "is not the embedded stack's: give its token in LETTA_MATRIX_TOKEN",
        ),
    ],
)
@pytest.mark.usefixtures("stack")
def test_what_cannot_be_relayed_is_told(
    command_line: Command,
    relays_to: list[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
    told: str,
) -> None:
    assert command_line(*arguments) == status
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), told in err) == ("", 1, True), err
    assert relays_to == []


async def test_the_program_loads_little() -> None:
    loaded = "print({'mcp', 'pydantic', 'sqlalchemy', 'mautrix'} & sys.modules.keys())"
    code = f"import sys, letta_matrix.cli.commands, letta_matrix.cli.mcp_relay; {loaded}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    assert (await process.communicate())[0] == b"set()\n"
