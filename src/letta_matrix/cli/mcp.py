"""`letta-matrix mcp`: the MCP server on stdin and stdout, for clients that start programs."""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Annotated, Any

import typer

from letta_matrix.cli.faults import BadInput, Failure
from letta_matrix.cli.options import DataOption, data_directory
from letta_matrix.cli.secrets import secret_in, without_password

_TOKEN = "LETTA_MATRIX_TOKEN"  # noqa: S105 - the name of a variable
_TOOLSETS = ("few", "usual", "all")
_WAITING_LINES = 16
_CHUNK = 2**16


def mcp(
    url: Annotated[
        str,
        typer.Option(
            help="The bridge's MCP WebSocket, such as ws://127.0.0.1:8015/mcp.", show_default=False
        ),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(
            help=f"A file with the token; default: the variable {_TOKEN}, else the embedded "
            "stack's token, for its own bridge alone.",
            show_default=False,
        ),
    ] = None,
    toolset: Annotated[
        str, typer.Option(help="How many tools are shown: few, usual or all.")
    ] = "usual",
    data: DataOption = None,
) -> None:
    """Serve MCP on stdin and stdout, for a client that starts this program.

    It passes everything on to a running bridge: the embedded stack's, or the one at --url.
    """
    from letta_matrix.cli.mcp_relay import Relay, RelayError

    url = without_password(url, f"give the token in {_TOKEN} or --token-file")
    token = _token(token_file)
    if toolset not in _TOOLSETS:
        raise BadInput(f"--toolset {toolset}: should be one of {', '.join(_TOOLSETS)}")
    if not url or not token:
        stack = _stack(data, "--url" if not url else _TOKEN)
        own = _text(stack, "ws_url")
        if url and url != own:
            raise BadInput(f"{url} is not the embedded stack's: give its token in {_TOKEN}")
        url, token = own, token or _text(stack, "token")
    try:
        asyncio.run(Relay(_with(url, toolset), token, _write, _say).run(_lines()))
    except RelayError as error:
        raise Failure(str(error)) from error


def _with(url: str, toolset: str) -> str:
    """The address that names a set of tools."""
    from yarl import URL

    return url if toolset == "usual" else str(URL(url).update_query(toolset=toolset))


def _token(file: Path | None) -> str:
    """The token that was given, "" for none."""
    return os.environ.get(_TOKEN, "").strip() if file is None else secret_in(file)


def _stack(data: Path | None, missing: str) -> Mapping[str, Any]:
    """How the embedded stack's MCP server is reached."""
    from letta_matrix.common.json_fields import mapping
    from letta_matrix.stack.state import read_state

    section = mapping(read_state(data_directory(data)).get("mcp"))
    if not section:
        raise Failure(f"this stack tells nothing of its MCP server; restart it, or give {missing}")
    return section


def _text(section: Mapping[str, Any], key: str) -> str:
    value = section.get(key)
    if not isinstance(value, str) or not value:
        raise Failure(f"this stack tells no `{key}` of its MCP server; restart it")
    return value


async def _lines() -> AsyncIterator[str]:
    """The lines of stdin. A thread reads them: stdin may be a file, a pipe or a terminal."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue(_WAITING_LINES)

    def put(line: str | None) -> None:
        asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()

    def read() -> None:
        rest = b""
        # Not sys.stdin: its lock would be held by this thread when the interpreter ends.
        while chunk := os.read(0, _CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    put(line.decode("utf-8", "replace").strip())
        if rest.strip():
            put(rest.decode("utf-8", "replace").strip())
        put(None)

    def read_on() -> None:
        # The relay may have ended before stdin does.
        with contextlib.suppress(RuntimeError, CancelledError):
            read()

    threading.Thread(target=read_on, daemon=True).start()
    while (line := await queue.get()) is not None:
        yield line


def _write(line: str) -> None:
    data = line.encode("utf-8", "replace") + b"\n"
    while data:
        data = data[os.write(1, data) :]


def _say(text: str) -> None:
    print(f"letta-matrix: {text}", file=sys.stderr, flush=True)
