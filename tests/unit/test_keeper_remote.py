"""A keeper beside its App Server: who is let in over TCP, who is cut off, and what is noticed."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from structlog.testing import capture_logs
from tests.contract.relay import Relay
from tests.fake_app_server import FakeAppServer
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.common.addresses import Place, place_of
from letta_matrix.common.connections.admission import STALLED
from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.app_server.connection import ATTACH_WAIT
from letta_matrix.runtimes.app_server.keepers import remote_keeper
from letta_matrix.runtimes.faults import RuntimeFault
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.client import REFUSED_PAUSE, KeeperClient, KeeperGone, Link
from letta_matrix.runtimes.keeper.doors import RemoteDoor
from letta_matrix.runtimes.keeper.line import BEAT, SILENCE
from letta_matrix.runtimes.keeper.places import KeeperFault
from letta_matrix.runtimes.keeper.remote import RemoteKeeper
from letta_matrix.runtimes.keeper.secret import nonce, proof
from letta_matrix.runtimes.keeper.server import Guest, Keeper, Target
from letta_matrix.runtimes.keeper.wire import Frame
from letta_matrix.stack.certificate import self_signed

TOKEN = "of-a-keeper-and-its-bridges"
Json = dict[str, Any]


class Bridge(KeeperClient):
    """A client that notes what it gets."""

    def __init__(self, port: int, epoch: int = 0, token: str = TOKEN) -> None:
        self.frames: list[Frame] = []
        self.links: list[Link] = []
        place = RemoteKeeper(Place("127.0.0.1", port), lambda: token)
        super().__init__(place, self.frames.append, self.links.append, epoch=epoch)


@asynccontextmanager
async def attached(port: int, epoch: int = 0, token: str = TOKEN) -> AsyncGenerator[Bridge]:
    bridge = Bridge(port, epoch, token)
    bridge.start()
    try:
        yield bridge
    finally:
        await bridge.close()


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeAppServer]:
    async with FakeAppServer(token="of-the-app-server") as server:
        yield server


@pytest.fixture
async def keeper(upstream: FakeAppServer) -> AsyncGenerator[Keeper]:
    """Aimed at the App Server, with no door yet."""
    keeper = Keeper(100_000, lambda _: None, lambda: None)
    await keeper.aim(Target(upstream.url, upstream.token))
    yield keeper
    await keeper.close()


@pytest.fixture
async def port(keeper: Keeper, upstream: FakeAppServer) -> AsyncGenerator[int]:
    """Where it listens."""
    async with opened(keeper, upstream) as port:
        yield port


@asynccontextmanager
async def opened(keeper: Keeper, upstream: FakeAppServer) -> AsyncGenerator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        door = RemoteDoor(keeper, TOKEN, Target(upstream.url, upstream.token))
        yield door.listen([listening])
        await door.close()


async def test_frames_pass_both_ways(port: int, upstream: FakeAppServer) -> None:
    async with attached(port) as bridge:
        await eventually(lambda: bridge.link.up)
        assert upstream.headers["Authorization"] == "Bearer of-the-app-server"
        bridge.send(b'{"a":1}')
        assert await upstream.heard(1) == ['{"a":1}']
        await upstream.say('{"b":2}')
        await eventually(lambda: bridge.frames)
        assert bridge.frames[0].text == b'{"b":2}'


async def test_another_machine_goes_on_where_the_first_was(
    port: int, upstream: FakeAppServer
) -> None:
    async with attached(port, 1) as bridge:
        await eventually(lambda: bridge.link.up)
        life, generation, seq = bridge.link.life, bridge.link.generation, bridge.seq
    await upstream.say('{"n":1,"c":"x"}', '{"n":2,"c":"y"}')
    await settled()
    async with attached(port, 2) as bridge:
        await eventually(lambda: bridge.link.up)
        assert bridge.link.same_stream(life, generation)
        replay = await bridge.replay(seq, '"x"')
        assert [frame.text for frame in replay.frames] == [b'{"n":1,"c":"x"}']


async def test_a_later_epoch_cuts_the_earlier_off_at_once(
    port: int, keeper: Keeper, upstream: FakeAppServer, clock: Clock
) -> None:
    def refusals() -> int:
        return sum("an earlier bridge is refused" in log["event"] for log in logs)

    with capture_logs() as logs:
        async with attached(port, 1) as old:
            await eventually(lambda: old.link.up)
            async with attached(port, 2) as new:
                await eventually(lambda: new.link.up)
                await eventually(lambda: "(its epoch is 2)" in said(old))
                heard = len(old.links)
                with pytest.raises(KeeperGone):
                    old.send(b"{}")
                await upstream.say('{"n":1}')
                await eventually(lambda: new.frames)
                assert old.frames == []
                # Nor is it let in when it comes again, with the other one there or not.
                await clock.until(lambda: refusals() == 1, BEAT / 4)
                assert new.link.up
            await clock.until(lambda: refusals() == 2, BEAT / 4)
            assert not any(link.up for link in old.links[heard:])
    assert keeper.epoch == 2
    assert upstream.received == []


async def test_what_a_sleeper_had_sent_is_not_done(
    port: int, keeper: Keeper, upstream: FakeAppServer
) -> None:
    """It had been stopped with a request in its hands, and its connection was still open."""
    reader, writer = await introduced(port, {"type": "attach", "epoch": 1})
    await eventually(lambda: keeper.epoch == 1)
    async with attached(port, 2) as new:
        await eventually(lambda: new.link.up)
        await upstream.say('{"n":1}')
        await eventually(lambda: new.frames)
        generation = new.link.generation
        late = (
            wire.pack_send(generation, b'{"late":1}', everywhere=False),
            wire.pack_send(generation, b'{"late":2}', everywhere=True),
            wire.pack_ack(1_000),
            wire.pack_control({"type": "end"}),
        )
        writer.writelines(late)
        new.send(b'{"fresh":1}')
        assert await upstream.heard(1) == ['{"fresh":1}']
        await settled()
        assert upstream.received == ['{"fresh":1}']
        assert len((await new.replay(0, "")).frames) == 1
        assert new.link.up
        await within(ended(reader))
    writer.close()


async def test_what_had_come_already_is_not_done_either(
    keeper: Keeper, upstream: FakeAppServer
) -> None:
    """It lies in the keeper's memory at the moment of the takeover, unread."""
    target = Target(upstream.url, upstream.token)
    await eventually(lambda: keeper.status()["up"])
    readers = [asyncio.StreamReader() for _ in range(2)]
    guests = [
        Guest({"epoch": epoch}, reader, MagicMock(asyncio.StreamWriter))
        for epoch, reader in enumerate(readers)
    ]
    tasks = [asyncio.create_task(keeper.attend(guests[0], target))]
    await settled(tasks[0])
    tasks.append(asyncio.create_task(keeper.attend(guests[1], target)))
    generation = keeper.generation
    readers[0].feed_data(wire.pack_send(generation, b'{"late":1}', everywhere=False))
    await within(tasks[0])
    readers[1].feed_data(wire.pack_send(generation, b'{"fresh":1}', everywhere=False))
    assert await upstream.heard(1) == ['{"fresh":1}']
    readers[1].feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        await within(tasks[1])


@pytest.mark.parametrize("epoch", [1, 2])
async def test_whoever_reads_nothing_is_cut_off_too(
    port: int, keeper: Keeper, upstream: FakeAppServer, epoch: int, clock: Clock
) -> None:
    """As one that is stopped: what waits to be sent to it is not waited for, or not for long where
    the next one is of the same epoch."""
    _, stopped = await introduced(port, {"type": "attach", "epoch": 1})
    await eventually(lambda: keeper.epoch == 1)
    stopped.transport.pause_reading()  # type: ignore[attr-defined]
    bridge = vars(keeper)["_bridge"]
    for _ in range(40):
        await upstream.say('{"x":"' + "y" * 500_000 + '"}')
    await eventually(lambda: bridge.transport.get_write_buffer_size() > 0)
    async with attached(port, epoch) as new:
        await eventually(lambda: new.link.up)
        assert bridge.is_closing()
        if epoch == 1:
            await clock.until(lambda: not bridge.transport.get_write_buffer_size(), BEAT / 4)
        assert not bridge.transport.get_write_buffer_size()
        assert new.link.up
    stopped.transport.abort()


async def test_one_that_is_slow_and_lives_stays(
    port: int, keeper: Keeper, upstream: FakeAppServer, clock: Clock
) -> None:
    """Over a thin line there may be something to send at all times."""
    _, slow = await introduced(port, {"type": "attach", "epoch": 1})
    slow.transport.pause_reading()  # type: ignore[attr-defined]
    bridge = await eventually(lambda: vars(keeper)["_bridge"])
    for _ in range(40):
        await upstream.say('{"x":"' + "y" * 500_000 + '"}')
    await eventually(lambda: bridge.transport.get_write_buffer_size() > 0)
    began = clock.now()

    def is_later() -> bool:
        slow.write(wire.pack_control({"type": "beat"}))
        return clock.now() > began + 2 * STALLED

    await clock.until(is_later, BEAT / 2)
    assert vars(keeper)["_bridge"] is bridge
    slow.transport.abort()


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
        with pytest.raises(KeeperFault, match="cannot be spoken to by TLS: CERTIFICATE_VERIFY"):
            await place.look()
        monkeypatch.setenv("SSL_CERT_FILE", str(chain))
        assert (await place.look())["type"] == "status"
        bridge = KeeperClient(place, lambda _: None, lambda _: None)
        bridge.start()
        await eventually(lambda: bridge.link.up)
        await bridge.close()


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


async def test_bridges_without_replicas_take_it_from_each_other_as_ever(port: int) -> None:
    async with attached(port) as old:
        await eventually(lambda: old.link.up)
        async with attached(port) as new:
            await eventually(lambda: new.link.up)
            await eventually(lambda: said(old) == "another letta-matrix took the keeper over")


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


async def test_a_bridge_that_is_gone_without_a_word_is_noticed(
    port: int, keeper: Keeper, clock: Clock
) -> None:
    clock.stop()
    reader, writer = await introduced(port, {"type": "attach", "epoch": 1})
    await eventually(lambda: vars(keeper)["_bridge"] is not None)
    clock.advance(SILENCE - 1)
    await settled()
    assert vars(keeper)["_bridge"] is not None
    await clock.until(lambda: vars(keeper)["_bridge"] is None, BEAT)
    await within(ended(reader))
    writer.close()


async def test_a_keeper_that_is_gone_without_a_word_is_noticed(
    port: int, upstream: FakeAppServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with attached(port) as bridge:
        await eventually(lambda: bridge.link.up)
        began = clock.now()
        # Signs of life keep it for as long as they come.
        await clock.until(lambda: clock.now() > began + 3 * SILENCE, BEAT / 4)
        await settled()
        assert bridge.link.up
        monkeypatch.setattr("letta_matrix.runtimes.keeper.line._BEAT", b"")
        began = clock.now()
        await clock.until(lambda: not bridge.link.up, BEAT / 4)
        assert clock.now() - began <= 10
        monkeypatch.undo()
        await clock.until(lambda: bridge.link.up)


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
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    async with attached(port) as bridge:
        await eventually(lambda: "cannot be reached: Connection refused" in said(bridge))
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


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    """A connection by hand, and the keeper's nonce on it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _, payload = await within(wire.read_record(reader))
    hello = wire.unpack_control(payload)
    assert hello["type"] == "hello"
    return reader, writer, str(hello["nonce"])


async def answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, theirs: str, message: Json
) -> Json:
    """What the keeper says to a greeting with a good proof."""
    ours = nonce()
    shown = {"nonce": ours, "proof": proof(TOKEN, "bridge", theirs, ours)}
    writer.write(wire.pack_control({**wire.versions(), **shown, **message}))
    _, payload = await within(wire.read_record(reader))
    return wire.unpack_control(payload)


async def introduced(port: int, message: Json) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bridge that is attached, and says nothing more by itself."""
    reader, writer, theirs = await connected(port)
    assert (await answer(reader, writer, theirs, message))["type"] == "attached"
    return reader, writer


@asynccontextmanager
async def speaking(says: bytes) -> AsyncGenerator[int]:
    """Something that listens, says that, and hangs up; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield int(server.sockets[0].getsockname()[1])
    server.close()


async def ended(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(65_536):
            pass
    except ConnectionError:
        return


def said(bridge: KeeperClient) -> str:
    return bridge.link.reason
