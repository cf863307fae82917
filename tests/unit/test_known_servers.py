"""Who listens, by the kernel's table; and sockets that are handed down."""

import asyncio
import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from tests.servers import free_port
from tests.waiting import Clock, eventually, within

from letta_matrix.common.connections import socket_table
from letta_matrix.common.connections.inherited import VARIABLE, address, handed_down
from letta_matrix.common.connections.known_servers import (
    CheckedConnector,
    KnownServer,
    NotOurServerError,
    note_process,
    server_at,
)
from letta_matrix.common.connections.listener import bound
from letta_matrix.common.connections.socket_table import (
    Entry,
    entry_in,
    held_by,
    identity_of,
    listeners,
    socket_between,
)

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the table")

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F48 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1 0
   1: 0100007F:1F48 0100007F:C350 01 00000000:00000000 00:00000000 00000000 65534        0 222 1 0
   2: 0100007F:C350 0100007F:1F48 01 00000000:00000000 00:00000000 00000000  1000        0 333 1 0
   3: 0100007F:1F48 0100007F:C351 01 00000000:00000000 00:00000000 00000000     0        0 0 1 0
   4: 0100007F:1F48 0100007F:C352 05 00000000:00000000 00:00000000 00000000     0        0 0 1 0
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the table is in the machine's order")
def test_a_table_is_read() -> None:
    server = ("127.0.0.1", 8008)
    assert entry_in(TABLE, server, ("127.0.0.1", 50000)) == Entry(65534, 222, 1)
    assert entry_in(TABLE, ("127.0.0.1", 50000), server) == Entry(1000, 333, 1)
    assert entry_in(TABLE, server, ("127.0.0.1", 50003)) is None
    assert entry_in("", server, server) is None
    waiting = entry_in(TABLE, server, ("127.0.0.1", 50001))
    ended = entry_in(TABLE, server, ("127.0.0.1", 50002))
    assert waiting is not None
    assert ended is not None
    assert (waiting.waits, ended.waits) == (True, False)


@on_linux
def test_a_connection_is_found_at_both_ends() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as ours,
    ):
        ends = ours.getpeername(), ours.getsockname()
        entry = socket_between(*ends)
        assert entry is not None
        assert entry.waits
        accepted, _ = listening.accept()
        with accepted:
            entry = socket_between(*ends)
            assert entry is not None
            assert (entry.uid, entry.waits) == (os.geteuid(), False)
            assert entry.inode == os.fstat(accepted.fileno()).st_ino
            assert entry.inode in held_by(os.getpid())
            assert entry.inode not in held_by(os.getppid())
    assert entry.inode not in held_by(2**22 + 1)


@on_linux
def test_the_users_who_listen_are_known() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert listeners(server.getsockname()[1]) == {os.geteuid()}
    assert listeners(0) == set()


@pytest.mark.skipif(sys.byteorder != "little", reason="the table is in the machine's order")
def test_those_who_listen_are_told_from_those_who_are_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four, six = tmp_path / "tcp", tmp_path / "tcp6"
    four.write_text(TABLE)
    six.write_text(TABLE.replace("0100007F:1F48", f"{'0' * 32}:1F48").replace("1000", "1001"))
    monkeypatch.setattr(socket_table, "_TABLES", (four, six, tmp_path / "none"))
    assert listeners(8008) == {1000, 1001}
    assert listeners(50000) == set()


@on_linux
def test_a_process_is_more_than_its_number() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        other = identity_of(process.pid)
        process.communicate(b"\n")
    own = identity_of(os.getpid())
    assert own == identity_of(os.getpid())
    assert own is not None
    assert own.split()[0] == str(os.getpid())
    assert other is not None
    assert identity_of(process.pid) is None


async def _answer(_: web.Request) -> web.Response:
    return web.Response(text="ok")


@on_linux
async def test_a_server_is_known_by_its_process(tmp_path: Path) -> None:
    app = web.Application()
    app.router.add_get("/", _answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port := free_port())
    await site.start()
    pid_file, said = tmp_path / "pid", list[str]()
    known = KnownServer("server", port, pid_file, said.append)
    number, started = str(identity_of(os.getpid())).split()
    try:
        for told in ("", "x", str(os.getppid()), number, f"{number} {int(started) + 1}"):
            pid_file.write_text(told)
            async with aiohttp.ClientSession(connector=CheckedConnector([known])) as http:
                with pytest.raises(NotOurServerError, match=f"port {port} was taken"):
                    await http.get(f"http://127.0.0.1:{port}/")
        assert len(said) == 1
        note_process(pid_file, os.getpid())
        async with aiohttp.ClientSession(connector=CheckedConnector([known])) as http:
            for _ in range(2):
                async with http.get(f"http://127.0.0.1:{port}/") as response:
                    assert await response.text() == "ok"
        assert known.trouble == ""
    finally:
        await runner.cleanup()


@on_linux
async def test_who_accepts_nobody_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    """A server that is busy or stopped is no stranger for that."""
    note_process(tmp_path / "pid", os.getpid())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port: int = listening.getsockname()[1]
        known = KnownServer("server", port, tmp_path / "pid")
        async with aiohttp.ClientSession(connector=CheckedConnector([known])) as http:
            late = asyncio.create_task(http.get(f"http://127.0.0.1:{port}/"))
            await eventually(lambda: select.select([listening], [], [], 0)[0])
            clock.advance(aiohttp.client.DEFAULT_TIMEOUT.total or 0)
            with pytest.raises(TimeoutError):
                await late
            asking = asyncio.create_task(http.get(f"http://127.0.0.1:{port}/"))
            loop = asyncio.get_running_loop()
            first, _ = await within(loop.sock_accept(listening))
            second, _ = await within(loop.sock_accept(listening))
            with first, second:
                assert await within(loop.sock_recv(first, 100)) == b""
                assert (await within(loop.sock_recv(second, 100))).startswith(b"GET / ")
                await loop.sock_sendall(second, b"HTTP/1.1 204 No Content\r\n\r\n")
                assert (await within(asking)).status == 204


async def test_systems_without_the_table_are_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_table, "is_known_here", lambda: False)
    said = list[str]()
    known = KnownServer("server", 1, tmp_path / "pid", said.append)
    for _ in range(2):
        await known.check(("127.0.0.1", 2), ("127.0.0.1", 1))
    assert said == [
        "this system does not tell who listens on port 1, so other users of it could pretend to "
        "be the server"
    ]
    assert known.trouble == ""
    assert identity_of(7) == "7"


def test_only_what_a_file_tells_is_known(tmp_path: Path) -> None:
    assert server_at("http://127.0.0.1:1", None, "server") == []
    (known,) = server_at("ws://127.0.0.1:2/ws", tmp_path, "server")
    assert known.port == 2


def test_sockets_are_handed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    (given,) = bound("127.0.0.1", 0)
    port: int = given.getsockname()[1]
    environment = handed_down({address("127.0.0.1", port): [given]})
    assert json.loads(environment[VARIABLE]) == {f"127.0.0.1:{port}": [given.fileno()]}
    assert handed_down({}) == {}
    monkeypatch.setenv(VARIABLE, environment[VARIABLE])
    for _ in range(2):
        (copy,) = bound("127.0.0.1", port)
        assert copy.getsockname() == given.getsockname()
        assert copy.fileno() != given.fileno()
        copy.close()
    (other,) = bound("127.0.0.1", 0)
    assert other.getsockname()[1] != port
    other.close()
    given.close()
