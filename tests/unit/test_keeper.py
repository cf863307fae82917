"""The keeper: what it passes on, what it remembers, when it ends."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.fake_app_server import FakeAppServer

from letta_matrix.runtimes.keeper.buffer import FrameBuffer
from letta_matrix.runtimes.keeper.client import KeeperClient, KeeperGone, Link
from letta_matrix.runtimes.keeper.server import Keeper, is_remote
from letta_matrix.runtimes.keeper.wire import Frame


class Bridge(KeeperClient):
    """A client that notes what it gets."""

    def __init__(self, socket: Path, upstream: FakeAppServer, *arguments: str) -> None:
        self.frames: list[Frame] = []
        self.links: list[Link] = []
        super().__init__(
            socket,
            upstream.url,
            upstream.token,
            self.frames.append,
            self.links.append,
            muted=('{"type":"noise"',),
            transient=('{"type":"answer"',),
            single=('{"type":"call"',),
            arguments=arguments,
        )

    @property
    def texts(self) -> list[str]:
        return [frame.text.decode() for frame in self.frames]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - what it waits for sets no event
                await asyncio.sleep(0.01)


@asynccontextmanager
async def attached(
    socket: Path, upstream: FakeAppServer, *arguments: str
) -> AsyncGenerator[Bridge]:
    bridge = Bridge(socket, upstream, *arguments)
    bridge.start()
    try:
        await bridge.until(lambda: bridge.link.up)
        yield bridge
    finally:
        await bridge.close()


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeAppServer]:
    async with FakeAppServer() as server:
        yield server


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncGenerator[Path]:
    """The socket of a keeper in this process that keeps at most 100 bytes."""
    keeper = Keeper(100, lambda _: None, lambda: None)
    path = tmp_path / "keeper.sock"
    server = await asyncio.start_unix_server(keeper.serve, path)
    yield path
    server.close()
    await keeper.close()


async def test_frames_pass_both_ways_unchanged(socket: Path, upstream: FakeAppServer) -> None:
    async with attached(socket, upstream) as bridge:
        bridge.send('{"a": "ü"}'.encode())
        assert await upstream.heard(1) == ['{"a": "ü"}']
        await upstream.say('{"b":\n "ö"}', '{"c":1}')
        await bridge.until(lambda: len(bridge.frames) == 2)
        assert bridge.texts == ['{"b":\n "ö"}', '{"c":1}']
        assert [frame.seq for frame in bridge.frames] == [1, 2]


async def test_frames_that_came_without_a_bridge_are_replayed(
    socket: Path, upstream: FakeAppServer
) -> None:
    async with attached(socket, upstream) as bridge:
        epoch, seq = bridge.link.epoch, bridge.seq
    await upstream.say('{"n":1,"c":"x"}', '{"n":2,"c":"y"}', '{"n":3,"c":"x"}')
    async with attached(socket, upstream) as bridge:
        assert bridge.link.same_stream(epoch, 1)
        replay = await bridge.replay(seq, '"x"')
        assert [frame.text for frame in replay.frames] == [b'{"n":1,"c":"x"}', b'{"n":3,"c":"x"}']
        assert (replay.gap, replay.seq) == (False, 3)
        assert [frame.seq for frame in (await bridge.replay(2, "")).frames] == [3]
        bridge.acknowledge(2)
        assert [frame.seq for frame in (await bridge.replay(0, "")).frames] == [3]
        assert bridge.frames == []


async def test_noise_is_dropped_and_answers_are_not_kept(
    socket: Path, upstream: FakeAppServer
) -> None:
    async with attached(socket, upstream) as bridge:
        await upstream.say('{"type":"noise"}', '{"type":"answer"}', '{"type":"text"}')
        await bridge.until(lambda: len(bridge.frames) == 2)
        assert bridge.texts == ['{"type":"answer"}', '{"type":"text"}']
        replay = await bridge.replay(0, "")
        assert [frame.text for frame in replay.frames] == [b'{"type":"text"}']
        assert not replay.gap


async def test_the_oldest_frames_go_first_and_the_gap_is_told(
    socket: Path, upstream: FakeAppServer
) -> None:
    async with attached(socket, upstream) as bridge:
        for number in range(4):
            await upstream.say(f'{{"n":{number},"x":"{"y" * 30}"}}')
        await bridge.until(lambda: len(bridge.frames) == 4)
        replay = await bridge.replay(0, "")
        assert [frame.seq for frame in replay.frames] == [3, 4]
        assert replay.gap
        assert not (await bridge.replay(2, "")).gap


async def test_a_newer_bridge_takes_over(socket: Path, upstream: FakeAppServer) -> None:
    async with attached(socket, upstream) as old, attached(socket, upstream) as new:
        await old.until(lambda: not old.link.up)
        await upstream.say('{"n":1}')
        await new.until(lambda: new.frames)
        assert old.frames == []
        with pytest.raises(KeeperGone):
            old.send(b"{}")
        await asyncio.sleep(0.3)
        assert new.link.up
        assert old.link.reason == "another letta-matrix took the keeper over"


async def test_a_bridge_that_was_thrown_out_comes_back(
    socket: Path, upstream: FakeAppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.runtimes.keeper.client.REPLACED_PAUSE", 0.3)
    async with attached(socket, upstream) as old:
        with capture_logs() as logs:
            async with attached(socket, upstream):
                await old.until(lambda: not old.link.up)
            await old.until(lambda: old.link.up)
        assert [log["log_level"] for log in logs] == ["warning"]
        assert "took the keeper over" in logs[0]["event"]


async def test_a_keeper_that_cannot_be_started_is_tried_again(
    tmp_path: Path, upstream: FakeAppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.runtimes.keeper.client.SPAWN_PAUSE", 0.05)
    blocked = tmp_path / "folder"
    blocked.write_text("in the way")
    bridge = Bridge(blocked / "k.sock", upstream, "--idle", "0.5")
    with capture_logs() as logs:
        bridge.start()
        await bridge.until(lambda: "a keeper cannot be started: " in bridge.link.reason)
        await asyncio.sleep(0.5)
    warnings = [log for log in logs if log["log_level"] == "warning"]
    assert [log["event"] for log in warnings] == ["a keeper cannot be started"]
    assert "File exists" in bridge.link.reason
    blocked.unlink()
    await bridge.until(lambda: bridge.link.up)
    await bridge.close()
    await bridge.until(lambda: not (blocked / "k.sock").exists())


async def test_a_broken_upstream_is_made_again(socket: Path, upstream: FakeAppServer) -> None:
    async with attached(socket, upstream) as bridge:
        await upstream.drop()
        await bridge.until(lambda: bridge.link.generation == 2 and bridge.link.up)
        assert [(link.up, link.generation) for link in bridge.links][-2:] == [(False, 1), (True, 2)]
        await upstream.say('{"n":1}')
        await bridge.until(lambda: bridge.frames)
        assert bridge.frames[0].generation == 2
        assert len({link.epoch for link in bridge.links}) == 1


async def test_a_token_goes_with_the_handshake(socket: Path) -> None:
    async with FakeAppServer(token="secret") as upstream, attached(socket, upstream):
        assert upstream.headers["Authorization"] == "Bearer secret"


async def test_a_wrong_token_is_told(socket: Path) -> None:
    async with FakeAppServer(token="secret") as upstream:
        bridge = Bridge(socket, upstream)
        upstream.token = "another"
        bridge.start()
        await bridge.until(lambda: bridge.link.refused)
        assert "HTTP 401" in bridge.link.reason
        await bridge.close()


async def test_a_keeper_is_started_and_outlives_its_bridge(
    tmp_path: Path, upstream: FakeAppServer
) -> None:
    path = tmp_path / "k.sock"
    async with attached(path, upstream, "--idle", "60") as bridge:
        epoch = bridge.link.epoch
        pid = int((tmp_path / "k.sock.pid").read_text())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.getsid(pid) == pid
    async with attached(path, upstream) as bridge:
        assert bridge.link.epoch == epoch
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "letta_matrix.runtimes.keeper", "--socket", str(path)
    )
    assert await asyncio.wait_for(second.wait(), 10) == 0
    os.kill(pid, signal.SIGTERM)
    await bridge.until(lambda: not path.exists())
    assert not (tmp_path / "k.sock.pid").exists()


async def test_a_keeper_without_a_bridge_ends(tmp_path: Path, upstream: FakeAppServer) -> None:
    path = tmp_path / "k.sock"
    async with attached(path, upstream, "--idle", "0.5") as bridge:
        await asyncio.sleep(1)
        assert path.exists()
    await bridge.until(lambda: not path.exists())


async def test_a_killed_keeper_is_replaced(tmp_path: Path, upstream: FakeAppServer) -> None:
    path = tmp_path / "k.sock"
    async with attached(path, upstream, "--idle", "5") as bridge:
        epoch = bridge.link.epoch
        os.kill(int((tmp_path / "k.sock.pid").read_text()), signal.SIGKILL)
        await bridge.until(lambda: bridge.link.up and bridge.link.epoch != epoch)
    await bridge.until(lambda: not path.exists())


async def test_a_socket_path_that_is_too_long_is_told(
    tmp_path: Path, upstream: FakeAppServer
) -> None:
    bridge = Bridge(tmp_path / ("k" * 120), upstream)
    bridge.start()
    await bridge.until(lambda: "longer than 107" in bridge.link.reason)
    await bridge.close()


def test_a_buffer_counts_bytes() -> None:
    buffer = FrameBuffer(10)
    for _ in range(3):
        buffer.number(1, b"12345", keep=True)
    assert len(buffer) == 2
    assert buffer.lost == 1
    buffer.acknowledge(3)
    assert len(buffer) == 0
    assert buffer.after(1, b"") == ([], False)


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("ws://127.0.0.1:4500", False),
        ("ws://localhost:4500/ws", False),
        ("ws://[::1]:4500", False),
        ("ws://192.0.2.7:4500", True),
        ("wss://letta.example", True),
    ],
)
def test_a_second_connection_is_for_other_machines(url: str, remote: bool) -> None:
    assert is_remote(url) is remote


async def test_a_second_connection_takes_over(
    tmp_path: Path, upstream: FakeAppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.runtimes.keeper.server.is_remote", bool)
    keeper = Keeper(1000, lambda _: None, lambda: None)
    path = tmp_path / "keeper.sock"
    server = await asyncio.start_unix_server(keeper.serve, path)
    async with attached(path, upstream) as bridge:
        await bridge.until(lambda: len(upstream.sockets) == 2)
        bridge.send(b'{"to":"all"}', everywhere=True)
        bridge.send(b'{"to":"one"}')
        assert sorted(await upstream.heard(3)) == ['{"to":"all"}', '{"to":"all"}', '{"to":"one"}']
        await upstream.say('{"n":1}')
        await upstream.say('{"type":"call"}')
        await bridge.until(lambda: len(bridge.frames) == 3)
        assert bridge.texts == ['{"n":1}', '{"type":"call"}', '{"type":"call"}']
        bridge.frames.clear()
        generation = bridge.link.generation
        await upstream.sockets[0].close()
        await bridge.until(lambda: bridge.link.generation > generation and bridge.link.up)
        await upstream.say('{"n":2}')
        await bridge.until(lambda: bridge.frames)
        assert bridge.texts == ['{"n":2}']
    server.close()
    await keeper.close()


async def test_nothing_goes_out_on_another_connection_than_meant(
    socket: Path, upstream: FakeAppServer
) -> None:
    async with attached(socket, upstream) as bridge:
        old = bridge.link
        await upstream.drop()
        await bridge.until(lambda: bridge.link.generation == 2 and bridge.link.up)
        new, bridge.link = bridge.link, old
        bridge.send(b'{"late":1}')
        bridge.link = new
        bridge.send(b'{"fresh":1}')
        assert await upstream.heard(1) == ['{"fresh":1}']


async def test_a_keeper_of_another_version_is_replaced(
    tmp_path: Path, upstream: FakeAppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "k.sock"
    async with attached(path, upstream) as bridge:
        epoch = bridge.link.epoch
        monkeypatch.setattr("letta_matrix.runtimes.keeper.wire.PROTOCOL", 0)
        await upstream.drop()
        await bridge.until(lambda: not path.exists())
        monkeypatch.undo()
        await bridge.until(lambda: bridge.link.up and bridge.link.epoch != epoch)
    os.kill(int((tmp_path / "k.sock.pid").read_text()), signal.SIGTERM)
    await bridge.until(lambda: not path.exists())


async def test_a_replay_that_does_not_come_is_not_waited_for(
    socket: Path, upstream: FakeAppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say_nothing(*_: object) -> None:
        pass

    monkeypatch.setattr(Keeper, "_replay", say_nothing)
    monkeypatch.setattr("letta_matrix.runtimes.keeper.client.REPLAY_TIMEOUT", 0.1)
    async with attached(socket, upstream) as bridge:
        with pytest.raises(KeeperGone, match="does not answer"):
            await asyncio.wait_for(bridge.replay(0, ""), 5)
