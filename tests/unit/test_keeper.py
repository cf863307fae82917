"""The keeper: what it passes on, and what it remembers."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.fake_app_server import FakeAppServer
from tests.unit import keeper_bridge
from tests.unit.keeper_bridge import Bridge, attached
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.runtimes.keeper.buffer import FrameBuffer
from letta_matrix.runtimes.keeper.client import (
    REPLACED_PAUSE,
    REPLAY_TIMEOUT,
    KeeperGone,
)
from letta_matrix.runtimes.keeper.doors import SILENCE, LocalDoor
from letta_matrix.runtimes.keeper.secret import secret_at
from letta_matrix.runtimes.keeper.server import Keeper, is_remote

upstream, socket = keeper_bridge.upstream, keeper_bridge.socket


async def test_who_says_nothing_is_hung_up_on(
    socket: Path, upstream: FakeAppServer, clock: Clock
) -> None:
    reader, writer = await asyncio.open_unix_connection(socket)
    async with attached(socket, upstream) as bridge:
        clock.advance(SILENCE)
        assert await within(reader.read()) == b""
        bridge.send(b"{}")
        assert await upstream.heard(1) == ["{}"]
    writer.close()


async def test_frames_pass_both_ways_unchanged(socket: Path, upstream: FakeAppServer) -> None:
    async with attached(socket, upstream) as bridge:
        bridge.send('{"a": "ü"}'.encode())
        assert await upstream.heard(1) == ['{"a": "ü"}']
        await upstream.say('{"b":\n "ö"}', '{"c":1}')
        await eventually(lambda: len(bridge.frames) == 2)
        assert bridge.texts == ['{"b":\n "ö"}', '{"c":1}']
        assert [frame.seq for frame in bridge.frames] == [1, 2]


async def test_frames_that_came_without_a_bridge_are_replayed(
    socket: Path, upstream: FakeAppServer
) -> None:
    async with attached(socket, upstream) as bridge:
        life, seq = bridge.link.life, bridge.seq
    await upstream.say('{"n":1,"c":"x"}', '{"n":2,"c":"y"}', '{"n":3,"c":"x"}')
    await settled()
    async with attached(socket, upstream) as bridge:
        assert bridge.link.same_stream(life, 1)
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
        await eventually(lambda: len(bridge.frames) == 2)
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
        await eventually(lambda: len(bridge.frames) == 4)
        replay = await bridge.replay(0, "")
        assert [frame.seq for frame in replay.frames] == [3, 4]
        assert replay.gap
        assert not (await bridge.replay(2, "")).gap


async def test_a_newer_bridge_takes_over(
    socket: Path, upstream: FakeAppServer, clock: Clock
) -> None:
    clock.stop()
    async with attached(socket, upstream) as old, attached(socket, upstream) as new:
        await eventually(lambda: not old.link.up)
        await upstream.say('{"n":1}')
        await eventually(lambda: new.frames)
        assert old.frames == []
        with pytest.raises(KeeperGone):
            old.send(b"{}")
        clock.advance(REPLACED_PAUSE - 1)
        await settled()
        assert new.link.up
        assert old.link.reason == "another letta-matrix took the keeper over"


async def test_a_bridge_that_was_thrown_out_comes_back(
    socket: Path, upstream: FakeAppServer, clock: Clock
) -> None:
    clock.stop()
    async with attached(socket, upstream) as old:
        with capture_logs() as logs:
            async with attached(socket, upstream):
                await eventually(lambda: not old.link.up)
            clock.advance(REPLACED_PAUSE)
            await eventually(lambda: old.link.up)
        assert [log["log_level"] for log in logs] == ["warning"]
        assert "took the keeper over" in logs[0]["event"]


async def test_a_broken_upstream_is_made_again(socket: Path, upstream: FakeAppServer) -> None:
    async with attached(socket, upstream) as bridge:
        await upstream.drop()
        await eventually(lambda: bridge.link.generation == 2 and bridge.link.up)
        assert [(link.up, link.generation) for link in bridge.links][-2:] == [(False, 1), (True, 2)]
        await upstream.say('{"n":1}')
        await eventually(lambda: bridge.frames)
        assert bridge.frames[0].generation == 2
        assert len({link.life for link in bridge.links}) == 1


async def test_a_token_goes_with_the_handshake(socket: Path) -> None:
    async with FakeAppServer(token="secret") as upstream, attached(socket, upstream):
        assert upstream.headers["Authorization"] == "Bearer secret"


async def test_a_wrong_token_is_told(socket: Path) -> None:
    async with FakeAppServer(token="secret") as upstream:
        bridge = Bridge(socket, upstream)
        upstream.token = "another"
        bridge.start()
        await eventually(lambda: bridge.link.refused)
        assert "HTTP 401" in bridge.link.reason
        await bridge.close()


async def test_a_page_at_the_handshake_is_about_no_token(socket: Path) -> None:
    async with FakeAppServer(token="secret", refusal="text/html") as upstream:
        bridge = Bridge(socket, upstream)
        upstream.token = "another"
        bridge.start()
        await eventually(lambda: "HTTP 401" in bridge.link.reason)
        assert not bridge.link.refused
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
    path = tmp_path / "keeper.sock"
    keeper = Keeper(1000, lambda _: None, lambda: None)
    door = LocalDoor(keeper, secret_at(path))
    server = await asyncio.start_unix_server(door.serve, path)
    async with attached(path, upstream) as bridge:
        await eventually(lambda: bridge.link.made == 2)
        bridge.send(b'{"to":"all"}', everywhere=True)
        bridge.send(b'{"to":"one"}')
        assert sorted(await upstream.heard(3)) == ['{"to":"all"}', '{"to":"all"}', '{"to":"one"}']
        await upstream.say('{"n":1}')
        await eventually(lambda: bridge.frames)
        await upstream.say('{"type":"call"}')
        await eventually(lambda: len(bridge.frames) == 3)
        assert bridge.texts == ['{"n":1}', '{"type":"call"}', '{"type":"call"}']
        bridge.frames.clear()
        generation = bridge.link.generation
        await upstream.senders[upstream.received.index('{"to":"one"}')].close()
        await eventually(lambda: bridge.link.generation > generation and bridge.link.up)
        await eventually(lambda: bridge.link.made == 3)
        await upstream.say('{"n":2}')
        await eventually(lambda: bridge.frames)
        await settled()
        assert bridge.texts == ['{"n":2}']
    server.close()
    await keeper.close()


async def test_nothing_goes_out_on_another_connection_than_meant(
    socket: Path, upstream: FakeAppServer
) -> None:
    async with attached(socket, upstream) as bridge:
        old = bridge.link
        await upstream.drop()
        await eventually(lambda: bridge.link.generation == 2 and bridge.link.up)
        new, bridge.link = bridge.link, old
        bridge.send(b'{"late":1}')
        bridge.link = new
        bridge.send(b'{"fresh":1}')
        assert await upstream.heard(1) == ['{"fresh":1}']


async def test_a_replay_that_does_not_come_is_not_waited_for(
    socket: Path, upstream: FakeAppServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say_nothing(*_: object) -> None:
        pass

    monkeypatch.setattr(Keeper, "_replay", say_nothing)
    clock.stop()
    async with attached(socket, upstream) as bridge:
        replay = asyncio.create_task(bridge.replay(0, ""))
        await settled(replay)
        clock.advance(REPLAY_TIMEOUT - 1)
        await settled(replay)
        clock.advance(2)
        with pytest.raises(KeeperGone, match="does not answer"):
            await replay
