"""Another user's program takes a port of ours before our server does, or while it is away."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from mautrix.api import ClientPath, Method
from tests.builders import config_for
from tests.fake_app_server import FakeAppServer
from tests.servers import free_offset, free_port
from tests.squatter import UID, squatting
from tests.waiting import eventually, within

from letta_matrix.access.principal import Principal
from letta_matrix.cli.up.stack import Options, up
from letta_matrix.common.connections.known_servers import KnownServer, note_process
from letta_matrix.config import load_config
from letta_matrix.doors.rest.downloading import Found, forward
from letta_matrix.doors.rest.problems import Problem
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.matrix.route import Route
from letta_matrix.matrix.watch import ServerState, look
from letta_matrix.runtimes.keeper.client import KeeperClient
from letta_matrix.runtimes.keeper.doors import LocalDoor
from letta_matrix.runtimes.keeper.local import LocalKeeper
from letta_matrix.runtimes.keeper.secret import secret_at
from letta_matrix.runtimes.keeper.server import Keeper, Target
from letta_matrix.stack.bridge_config import write_bridge_files
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.held_ports import HeldPorts
from letta_matrix.stack.ports import Ports
from letta_matrix.stack.supervisor import Child, Command

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who listens")


@pytest.mark.parametrize("taken", ["synapse", "app_server", "api"])
async def test_up_tells_a_squatter_nothing(
    taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came just behind the look whether the ports are free."""
    ports = Ports.with_offset(offset := free_offset())
    port: int = getattr(ports, taken)
    monkeypatch.setattr(Ports, "check_free", print)
    known = taken == "app_server"
    said = f"port {port} was taken by another program" if known else f"127.0.0.1:{port}"
    async with squatting(port, tmp_path / "heard") as squatter:
        with pytest.raises(StackError, match=said) as fault:
            await up(Options(tmp_path / "data", offset), print)
        assert squatter.heard == ""
    assert not known or f"uid {UID}" in str(fault.value)


async def test_the_bridge_tells_a_squatter_nothing(tmp_path: Path) -> None:
    port, pid_file = free_port(), tmp_path / "synapse.pid"
    known, said = list[KnownServer](), list[str]()
    known.append(KnownServer("homeserver", port, pid_file, said.append))
    homeserver = Homeserver(f"http://127.0.0.1:{port}", "as-secret", Pacer(1), Route(known))
    path = ClientPath.v3.account.whoami
    config = config_for(tmp_path, homeserver={"url": homeserver.url, "domain": "test"})
    caller = Mock(user_id="@a:b", intent=Mock(homeserver=homeserver))
    toolbox = Mock(caller=Mock(return_value=caller))
    api: Any = SimpleNamespace(config=config, homeserver=homeserver, toolbox=toolbox)
    try:
        async with squatting(port, tmp_path / "heard") as squatter:
            for _ in range(2):
                with pytest.raises(HomeserverUnavailable, match="was taken by another program"):
                    await homeserver.request(Method.GET, path, give_up_after=0)
                assert await look(homeserver) is ServerState.AWAY
            with pytest.raises(HomeserverUnavailable, match="was taken"):
                await homeserver.read("file", "@a:b", 10)
            with pytest.raises(Problem):
                async with AsyncExitStack() as opened:
                    await forward(api, Principal("token:1", ""), Found("mxc://a/b"), opened)
            assert squatter.heard == ""
            assert said == [homeserver.trouble]
            assert f"(uid {UID})" in homeserver.trouble

            note_process(pid_file, squatter.pid)
            answer = await homeserver.request(Method.GET, path, give_up_after=0)
            assert answer == {"nonce": "a"}
            assert homeserver.trouble == ""
            assert "as-secret" in squatter.heard
    finally:
        await homeserver.close()


@pytest.fixture
async def keeper_socket(tmp_path: Path) -> AsyncGenerator[Path]:
    path = tmp_path / "k"
    keeper = Keeper(1_000, lambda _: None, lambda: None)
    server = await asyncio.start_unix_server(LocalDoor(keeper, secret_at(path)).serve, path)
    yield path
    server.close()
    await keeper.close()


async def test_the_keeper_tells_a_squatter_nothing(keeper_socket: Path, tmp_path: Path) -> None:
    port, pid_file = free_port(), tmp_path / "app-server.pid"
    url = f"ws://127.0.0.1:{port}/ws"
    place = LocalKeeper(keeper_socket, Target(url, "secret", str(pid_file)))
    client = KeeperClient(place, lambda _: None, lambda _: None)
    async with squatting(port, tmp_path / "heard") as squatter:
        client.start()
        try:
            await eventually(lambda: f"taken by another program (uid {UID})" in client.link.reason)
            assert not client.link.up
            assert squatter.heard == ""
            note_process(pid_file, squatter.pid)
            await eventually(lambda: "Bearer secret" in squatter.heard)
        finally:
            await client.close()


async def test_the_keeper_knows_its_app_server(keeper_socket: Path, tmp_path: Path) -> None:
    note_process(tmp_path / "pid", os.getpid())
    async with FakeAppServer() as server:
        place = LocalKeeper(keeper_socket, Target(server.url, None, str(tmp_path / "pid")))
        client = KeeperClient(place, lambda _: None, lambda _: None)
        client.start()
        await eventually(lambda: client.link.up)
        await client.close()


_BRIDGE = """
import socket, sys
from letta_matrix.common.connections.listener import bound
(listening,) = bound("127.0.0.1", int(sys.argv[1]))
listening.setblocking(True)
while True:
    connection, _ = listening.accept()
    connection.sendall(b"bridge")
    connection.close()
"""


_SYNAPSE = """
import sys
from twisted.internet import protocol, reactor
from letta_matrix.stack.our_port import OurPort
OurPort({}, None)
class Greets(protocol.Protocol):
    def connectionMade(self):
        self.transport.write(b"bridge")
        self.transport.loseConnection()
reactor.listenTCP(int(sys.argv[1]), protocol.Factory.forProtocol(Greets), 50, "127.0.0.1")
reactor.run()
"""


@pytest.mark.parametrize("server", ["bridge", "synapse"])
@pytest.mark.parametrize("options", [(), ("SO_REUSEPORT",)])
async def test_a_port_that_is_held_is_never_free(
    tmp_path: Path, options: tuple[str, ...], server: str
) -> None:
    """Whoever connects while its server is away waits for it; a page in a browser, too."""
    ports = Ports.with_offset(free_offset())
    port, program = (
        (ports.synapse, _SYNAPSE) if server == "synapse" else (ports.appservice, _BRIDGE)
    )
    config = write_bridge_files(tmp_path, ports, "@admin:localhost", "token")
    assert load_config(tmp_path / "config.yaml") == config
    held, said = HeldPorts(), list[str]()
    held.take(config, ports)
    argv = (sys.executable, "-c", program, str(port))
    sockets = {**held.bridge, **held.synapse}
    command = Command(server, argv, tmp_path / "log", tmp_path, sockets=sockets)
    child = Child(command, said.append)
    address = ("127.0.0.1", port)
    try:
        with pytest.raises(AssertionError, match="Address already in use"):
            async with squatting(port, tmp_path / "heard", *options):
                pass
        with socket.create_connection(address):
            await child.start()
            for _ in range(2):
                reader, writer = await asyncio.open_connection(*address)
                assert await within(reader.read()) == b"bridge"
                writer.close()
                child._signal(signal.SIGKILL)
                with pytest.raises(AssertionError, match="Address already in use"):
                    async with squatting(port, tmp_path / "heard", *options):
                        pass
    finally:
        child.terminate()
        await child.wait_ended(1.0)
        held.close()
