"""A keeper beside its App Server: whom it lets in, and what those are told that it does not."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.contract.relay import Relay
from tests.fake_app_server import FakeAppServer
from tests.servers import free_port
from tests.unit import keeper_remote_bridge
from tests.unit.keeper_remote_bridge import (
    TOKEN,
    answer,
    attached,
    connected,
    said,
)
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.common.addresses import Place, place_of
from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.app_server.connection import ATTACH_WAIT
from letta_matrix.runtimes.app_server.keepers import remote_keeper
from letta_matrix.runtimes.faults import RuntimeFault
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.client import REFUSED_PAUSE, KeeperClient
from letta_matrix.runtimes.keeper.doors import RemoteDoor
from letta_matrix.runtimes.keeper.places import KeeperFault
from letta_matrix.runtimes.keeper.remote import RemoteKeeper
from letta_matrix.runtimes.keeper.server import Keeper, Target
from letta_matrix.stack.certificate import self_signed

upstream, keeper = keeper_remote_bridge.upstream, keeper_remote_bridge.keeper
port = keeper_remote_bridge.port


async def test_a_wrong_token_is_told_and_asked_again_later(port: int, clock: Clock) -> None:
    clock.stop()
    async with attached(port, token="another-one-of-some-length") as bridge:
        await eventually(lambda: bridge.link.refused)
        assert "does not take our token" in said(bridge)
        assert not bridge.link.life
        tries = len(bridge.links)
        clock.advance(REFUSED_PAUSE - 1)
        await settled()
        assert len(bridge.links) == tries


@pytest.mark.parametrize("newer", ["keeper", "bridge"])
async def test_versions_that_differ_are_told_with_what_to_do(port: int, newer: str) -> None:
    place = RemoteKeeper(Place("127.0.0.1", port), lambda: TOKEN)
    if newer == "bridge":
        reader, writer, theirs = await connected(port)
        told = await answer(reader, writer, theirs, {"type": "attach", "protocol": 9})
        assert (told["type"], told["why"], told["protocol"]) == ("refused", "protocol", 4)
        writer.close()
        return
    hello = {"type": "hello", "nonce": "n", "protocol": 9, "version": "9.1.0"}
    async with speaking(wire.pack_control(hello)) as port:
        place = RemoteKeeper(Place("127.0.0.1", port), lambda: TOKEN)
        with pytest.raises(KeeperFault) as fault:
            await place.attach({})
    text = str(fault.value)
    assert f"the keeper at 127.0.0.1:{port} is of letta-matrix 9.1.0 (protocol 9)" in text
    assert "upgrade the older of the two" in text


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no keeper of letta-matrix"),
        (b"", "is no keeper of letta-matrix"),
        (wire.pack(wire.CONTROL, b"[" * 60_000), "is no keeper of letta-matrix"),
        (wire.pack(wire.CONTROL, b" " * 70_000), "is no keeper of letta-matrix"),
    ],
)
async def test_who_is_no_keeper_is_told(says: bytes, reason: str) -> None:
    async with speaking(says) as port:
        place = RemoteKeeper(Place("127.0.0.1", port), lambda: TOKEN)
        with pytest.raises(KeeperFault, match=reason):
            await place.attach({})


async def test_who_takes_the_keepers_port_learns_no_token() -> None:
    heard = asyncio.get_running_loop().create_future()

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(wire.pack_control({"type": "hello", "nonce": "n", **wire.versions()}))
        _, payload = await wire.read_record(reader)
        heard.set_result(payload)
        writer.write(wire.pack_control({"type": "attached", "proof": "guessed"}))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(impostor, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    place = RemoteKeeper(Place("127.0.0.1", port), lambda: TOKEN)
    with pytest.raises(KeeperFault, match="does not know our token") as fault:
        await place.attach({"epoch": 1})
    assert fault.value.refused
    assert TOKEN.encode() not in await within(heard)
    server.close()


async def test_nobody_there_is_told_and_tried_again(
    keeper: Keeper, upstream: FakeAppServer, clock: Clock
) -> None:
    port = free_port()
    async with attached(port) as bridge:
        await eventually(lambda: "cannot be reached: nothing listens at " in said(bridge))
        with socket.create_server(("127.0.0.1", port)) as listening:
            listening.setblocking(False)
            target = Target(upstream.url, upstream.token)
            door = RemoteDoor(keeper, TOKEN, target)
            door.listen([listening])
            await clock.until(lambda: bridge.link.up)
            await door.close()


async def test_a_look_throws_nobody_out(port: int) -> None:
    place = RemoteKeeper(Place("127.0.0.1", port), lambda: TOKEN)
    async with attached(port) as bridge:
        await eventually(lambda: bridge.link.up)
        seen = await place.look()
        assert (seen["up"], seen["life"]) == (True, bridge.link.life)
        assert bridge.link.up


async def test_it_cannot_be_ended_from_elsewhere(
    upstream: FakeAppServer, keeper: Keeper, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = list[bool]()
    monkeypatch.setattr(keeper, "end", lambda: ends.append(True))
    async with attached(port) as bridge:
        await eventually(lambda: bridge.link.up)
        vars(bridge)["_writer"].write(wire.pack_control({"type": "end"}))
        bridge.send(b"{}")
        await upstream.heard(1)
    assert ends == []


async def fault_at(port: int, token: str, clock: Clock) -> str:
    """What is told of a runtime whose keeper refuses the token, or whose App Server does."""
    given = {"keeper": f"127.0.0.1:{port}", "keeper_token": token}
    settings = AppServerRuntime.model_validate(given)
    adapter = AppServer(settings, remote_keeper(settings), 7)
    await adapter.start()
    await eventually(lambda: vars(adapter)["_connection"].link.refused)
    clock.advance(ATTACH_WAIT)
    with pytest.raises(RuntimeFault) as fault:
        await adapter.list_agents()
    await adapter.close()
    return f"{type(fault.value).__name__}: {fault.value}"


async def test_the_operator_is_told_whose_token_is_wrong(
    keeper: Keeper, port: int, upstream: FakeAppServer, clock: Clock
) -> None:
    upstream.token = "another"
    await upstream.drop()
    await clock.until(lambda: keeper.status()["refused"])
    assert await fault_at(port, TOKEN, clock) == (
        "CredentialsRefused: the App Server answered HTTP 401 to the keeper at "
        f"127.0.0.1:{port}: check its --app-server-token-file"
    )
    assert keeper.epoch == 7


async def test_the_operator_is_told_that_the_keeper_knows_another_token(
    port: int, clock: Clock
) -> None:
    assert await fault_at(port, "another-one-of-some-length", clock) == (
        f"CredentialsRefused: the keeper at 127.0.0.1:{port} does not take our token: it should "
        "be the one of its --token-file"
    )


@asynccontextmanager
async def speaking(says: bytes) -> AsyncGenerator[int]:
    """Something that listens, says that, and hangs up; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield int(server.sockets[0].getsockname()[1])
    server.close()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("h:1", ("h", 1, False)),
        ("tls://keeper.example.org:4510", ("keeper.example.org", 4510, True)),
        ("[::1]:4510", ("::1", 4510, False)),
    ],
)
def test_places_are_read_and_written(text: str, place: tuple[str, int, bool]) -> None:
    assert place_of(text) == place
    assert str(place_of(text)) == text.removeprefix("tls://")


async def test_tls_is_spoken_with_a_proxy_that_has_a_good_certificate(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed("localhost", "127.0.0.1")
    chain = tmp_path / "chain.pem"
    chain.write_text(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    async with Relay(port, tls=context) as proxy:
        place = RemoteKeeper(place_of(f"tls://localhost:{proxy.port}"), lambda: TOKEN)
        with pytest.raises(KeeperFault, match="cannot be reached: its certificate is not"):
            await place.look()
        monkeypatch.setenv("SSL_CERT_FILE", str(chain))
        assert (await place.look())["type"] == "status"
        bridge = KeeperClient(place, lambda _: None, lambda _: None)
        bridge.start()
        await eventually(lambda: bridge.link.up)
        await bridge.close()
