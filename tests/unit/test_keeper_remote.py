"""A keeper beside its App Server: who takes it over, who is cut off, and what is noticed."""

import asyncio
from unittest.mock import MagicMock

import pytest
from structlog.testing import capture_logs
from tests.fake_app_server import FakeAppServer
from tests.unit import keeper_remote_bridge
from tests.unit.keeper_remote_bridge import (
    attached,
    ended,
    introduced,
    said,
)
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.common.connections.admission import STALLED
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.client import KeeperGone
from letta_matrix.runtimes.keeper.line import BEAT, SILENCE
from letta_matrix.runtimes.keeper.server import Guest, Keeper, Target

upstream, keeper = keeper_remote_bridge.upstream, keeper_remote_bridge.keeper
port = keeper_remote_bridge.port


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


async def test_bridges_without_replicas_take_it_from_each_other_as_ever(port: int) -> None:
    async with attached(port) as old:
        await eventually(lambda: old.link.up)
        async with attached(port) as new:
            await eventually(lambda: new.link.up)
            await eventually(lambda: said(old) == "another letta-matrix took the keeper over")


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
        clock.stop()
        began = clock.now()
        # Signs of life keep it for as long as they come.
        await clock.until(lambda: clock.now() > began + 3 * SILENCE, BEAT / 4)
        await settled()
        assert bridge.link.up
        monkeypatch.setattr("letta_matrix.runtimes.keeper.line._SIGN_OF_LIFE", b"")
        began = clock.now()
        await clock.until(lambda: not bridge.link.up, BEAT / 4)
        assert clock.now() - began <= 10
        monkeypatch.undo()
        await clock.until(lambda: bridge.link.up)
