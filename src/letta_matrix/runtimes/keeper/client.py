"""The bridge's side of the keeper: attach, send, replay."""

import asyncio
import itertools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from letta_matrix.common.parts import part
from letta_matrix.common.waiting import ended
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.places import Attached, KeeperFault, KeeperPlace, refusal
from letta_matrix.runtimes.keeper.wire import Frame

REPLACED_PAUSE = 30.0
"""Seconds before a bridge that another one threw out tries again."""
REFUSED_PAUSE = 10.0
"""The same for one that a keeper does not let in."""
REPLAY_TIMEOUT = 20.0
FAULTY = (ValueError, KeyError, TypeError, struct.error)
"""What reading a record raises that is none of the protocol's."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Link:
    """What the keeper said last of itself and of the App Server; `made` counts connections,
    the `spare` one's too, if there is one. Without a `life` it is the keeper itself that is away,
    or has `refused` us."""

    life: str = ""
    generation: int = 0
    made: int = 0
    up: bool = False
    spare: bool = False
    refused: bool = False
    reason: str = "the keeper is not attached yet"

    def same_stream(self, life: object, generation: object) -> bool:
        return self.up and self.life == life and self.generation == generation


@dataclass(slots=True)
class Replay:
    """Kept frames; `gap` tells that older ones had to go, `seq` where live frames go on."""

    gap: bool
    seq: int
    frames: list[Frame] = field(default_factory=list[Frame])


class KeeperGone(Exception):
    """The keeper went away while it was asked something."""


class Replaced(Exception):
    """Another bridge attached."""


@part
class KeeperClient:
    """Keeps one attachment to the keeper at `place`, for ever.

    `on_frame` gets each live frame in order, `on_link` each change of `link`. Frames that
    start with a `muted` prefix never come; those with a `transient` one are not kept; those
    with a `single` one are taken from the spare connection too. `epoch` is the how manieth of
    several replicas that take over from each other this one is, 0 where there are none: the keeper
    hears nobody of an earlier one any more.
    """

    _place: KeeperPlace
    _on_frame: Callable[[Frame], None]
    _on_link: Callable[[Link], None]
    muted: Sequence[str] = ()
    transient: Sequence[str] = ()
    single: Sequence[str] = ()
    epoch: int = 0

    def __post_init__(self) -> None:
        self.link = Link()
        self.seq = 0
        self._writer: asyncio.StreamWriter | None = None
        self._replays: dict[int, asyncio.Future[Replay]] = {}
        self._ids = itertools.count(1)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Detach; the keeper and what it holds stay."""
        if self._task is not None:
            await ended(self._task)

    def send(self, text: bytes, *, everywhere: bool = False) -> None:
        """Send a frame on the upstream connection of `link`'s generation, or nowhere; on the
        spare one too with `everywhere`."""
        self._write(wire.pack_send(self.link.generation, text, everywhere=everywhere))

    def acknowledge(self, seq: int) -> None:
        if self._writer is not None:
            self._write(wire.pack_ack(seq))

    async def replay(self, since: int, contains: str) -> Replay:
        """Kept frames after `since` that have `contains` in their text.

        Raises:
            KeeperGone: the keeper is not there, or did not answer within `REPLAY_TIMEOUT`.
        """
        number = next(self._ids)
        future = asyncio.get_running_loop().create_future()
        self._replays[number] = future
        try:
            message = {"type": "replay", "id": number, "since": since, "contains": contains}
            self._write(wire.pack_control(message))
            async with asyncio.timeout(REPLAY_TIMEOUT):
                return await future
        except TimeoutError:
            raise KeeperGone("the keeper does not answer") from None
        finally:
            self._replays.pop(number, None)

    def _write(self, record: bytes) -> None:
        if self._writer is None:
            raise KeeperGone("the keeper is not attached")
        self._writer.write(record)

    async def _run(self) -> None:
        pauses, least = iter(self._place.pauses), 0.0
        while True:
            try:
                if (attached := await self._place.attach(self._wanted())) is not None:
                    pauses = iter(self._place.pauses)
                    least = await self._stay(attached)
            except KeeperFault as fault:
                least = REFUSED_PAUSE if fault.final else 0.0
                self._miss(fault)
                if fault.outdated and await self._place.end_outdated():
                    _log.warning("ended a keeper that served other replicas")
            await asyncio.sleep(max(next(pauses), least))
            least = 0.0

    def _wanted(self) -> dict[str, object]:
        prefixes = {"muted": self.muted, "transient": self.transient, "single": self.single}
        return {**prefixes, "epoch": self.epoch}

    def _miss(self, fault: KeeperFault) -> None:
        if self.link.reason != str(fault):
            _log.warning("not attached to a keeper", reason=str(fault))
            self._unlink(str(fault), refused=fault.refused)

    async def _stay(self, attached: Attached) -> float:
        """Be attached until that ends; how many seconds to wait at least then."""
        self._writer = attached.writer
        pause, reason = 0.0, "not attached to the keeper"
        try:
            for answer in attached.answers:
                await self._control(answer, attached.reader)
            while True:
                kind, payload = await wire.read_record(attached.reader)
                if kind == wire.FRAME:
                    frame = wire.unpack_frame(payload)
                    self.seq = frame.seq
                    self._on_frame(frame)
                elif kind == wire.CONTROL:
                    await self._control(wire.unpack_control(payload), attached.reader)
        except (asyncio.IncompleteReadError, OSError):
            pass
        except FAULTY as error:
            pause, reason = REFUSED_PAUSE, f"{self._place.name} sends what makes no sense"
            _log.warning(reason, error=type(error).__name__, next_try_in_seconds=pause)
        except Replaced:
            # Attaching at once would only throw the newer bridge out.
            pause, reason = REPLACED_PAUSE, "another letta-matrix took the keeper over"
            _log.warning(
                reason,
                keeper=self._place.name,
                advice=self._place.advice,
                next_try_in_seconds=pause,
            )
        finally:
            self._writer = None
            attached.writer.close()
            self._unlink(reason)
        return pause

    async def _control(self, message: dict[str, Any], reader: asyncio.StreamReader) -> None:
        match message["type"]:
            case "replay":
                await self._read_replay(message, reader)
            case "replaced":
                raise Replaced
            case "refused":
                raise refusal(self._place.name, message)
            case "attached" | "status":
                self._told(message)
            case _:
                pass  # a sign of life

    def _told(self, status: dict[str, Any]) -> None:
        if status.get("protocol") != wire.PROTOCOL:
            # Where it is not ours to end, it has let nobody in who speaks another one.
            _log.warning("ending a keeper of another version", keeper=self._place.name)
            self._write(wire.pack_control({"type": "end"}))
            return
        self.seq = status["seq"]
        fields = ("life", "generation", "made", "up", "spare", "refused", "reason")
        self.link = Link(**{name: status[name] for name in fields})
        self._on_link(self.link)

    async def _read_replay(self, message: dict[str, Any], reader: asyncio.StreamReader) -> None:
        replay = Replay(message["gap"], message["seq"])
        for _ in range(message["count"]):
            _, payload = await wire.read_record(reader)
            replay.frames.append(wire.unpack_frame(payload))
        future = self._replays.get(message["id"])
        if future is not None and not future.done():
            future.set_result(replay)

    def _unlink(self, reason: str, *, refused: bool = False) -> None:
        self.link = Link(refused=refused, reason=reason)
        for future in self._replays.values():
            if not future.done():
                future.set_exception(KeeperGone(reason))
        self._on_link(self.link)
