"""Requests to an App Server and the frames of its conversations, through the keeper."""

import asyncio
import itertools
import json
import secrets
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from letta_matrix import __version__
from letta_matrix.common import clock
from letta_matrix.common.json_fields import Json, id_of, mapping
from letta_matrix.common.tasks import Tasks
from letta_matrix.common.waiting import is_set
from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server.external_tools import ExternalTools
from letta_matrix.runtimes.app_server.feeds import Feeds, Mark
from letta_matrix.runtimes.app_server.frames import (
    MUTED,
    SINGLE,
    TRANSIENT,
    Scope,
    ScopedFrame,
    parse,
    refusal,
    scope_of,
)
from letta_matrix.runtimes.error_lines import error_line
from letta_matrix.runtimes.faults import (
    CredentialsRefused,
    RuntimeFault,
    RuntimeUnavailable,
)
from letta_matrix.runtimes.keeper.client import KeeperClient, KeeperGone, Link, Replay
from letta_matrix.runtimes.keeper.places import KeeperPlace
from letta_matrix.runtimes.keeper.wire import Frame

ATTACH_WAIT = 3.0
"""Seconds after the start in which requests wait for the first connection."""
KNOWN = 500
"""Conversations whose registration of our tools is made again on a new connection."""
_log = structlog.get_logger()


class Connection:
    """Speaks with one App Server; every wait in here ends.

    `counters` counts what was ignored: `unknown ...`, `not json`, `unasked`.
    """

    def __init__(self, config: AppServerRuntime, keeper: KeeperPlace, epoch: int = 0) -> None:
        self.counters: Counter[str] = Counter()
        self.unsettled: set[Scope] = set()
        """Conversations aborted without a `turn_finished` on this connection so far; they start
        nothing new."""
        self.stopped: set[Scope] = set()
        """Conversations whose turn was told to stop since we began to follow it."""
        self._stream = ("", 0)
        self._config = config
        self.has_spare = False
        """Whether turns outlive a broken connection, by the keeper's second one."""
        self.tools = ExternalTools(self._tell, self.counters)
        self._client = KeeperClient(
            keeper,
            self._frame,
            self._linked,
            muted=MUTED,
            transient=TRANSIENT,
            single=SINGLE,
            epoch=epoch,
        )
        self.link = self._client.link
        self._asked: dict[str, asyncio.Future[Json]] = {}
        self.feeds = Feeds()
        self._started: set[Scope] = set()
        self._known: OrderedDict[Scope, None] = OrderedDict()
        self._tasks = Tasks()
        self._closing = False
        self._up = asyncio.Event()
        self._patient_until = 0.0
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def start(self) -> None:
        self._patient_until = clock.now() + ATTACH_WAIT
        self._client.start()

    async def close(self) -> None:
        self._closing = True
        await self._tasks.cancel()
        await self.tools.close()
        await self._client.close()

    @property
    def seq(self) -> int:
        """Sequence number of the newest frame."""
        return self._client.seq

    def unavailable(self) -> RuntimeFault:
        """Why nothing can be asked just now."""
        link, keeper = self.link, self._config.keeper
        reason = link.reason or "the connection broke and was made anew"
        if keeper is not None and link.refused and link.life:
            reason += f" to the keeper at {keeper}: check its --app-server-token-file"
        return outage(self._config, reason, refused=link.refused)

    async def request(
        self, kind: str, *, request_id: str = "", everywhere: bool = False, **fields: object
    ) -> Json:
        """Send a frame of type `kind` and wait for its answer.

        Raises:
            RuntimeUnavailable: down, broken off, or no answer within `request_timeout`
                (unknown types and invalid frames are ignored in silence by the App Server).
        """
        if not self.link.up:
            # What was left undone by an earlier process comes before the keeper is attached.
            await is_set(self._up, self._patient_until - clock.now())
        if not self.link.up:
            raise self.unavailable()
        number = request_id or f"{self._prefix}-{next(self._numbers)}"
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        frame = {"type": kind, "request_id": number, **fields}
        try:
            self._client.send(json.dumps(frame).encode(), everywhere=everywhere)
            async with asyncio.timeout(self._config.request_timeout):
                return await future
        except KeeperGone:
            raise self.unavailable() from None
        except TimeoutError:
            raise RuntimeUnavailable(
                f"{self._config.server} did not answer {kind} "
                f"within {self._config.request_timeout:g} s"
            ) from None
        finally:
            self._asked.pop(number, None)

    async def call(self, kind: str, **fields: Any) -> Json:
        """A request whose answer must be a success.

        Raises:
            RuntimeUnavailable: as `request`.
            ConversationGone, AgentGone: there is no such conversation, no such agent.
            RuntimeRefused: the App Server answered with another error.
        """
        answer = await self.request(kind, **fields)
        if not answer.get("success"):
            raise refusal(error_line(answer.get("error")), f"the App Server refused {kind}")
        return answer

    async def create(self, kind: str, field: str, **fields: Any) -> Json:
        """A call that makes something: the object in the answer's `field`, which has an id.

        Raises:
            RuntimeUnavailable, RuntimeRefused: as `call`.
        """
        made = mapping((await self.call(kind, **fields)).get(field))
        if not id_of(made):
            raise self.malformed(kind, field)
        return made

    def malformed(self, kind: str, field: str) -> RuntimeUnavailable:
        """An answer that lacks what it is for."""
        return RuntimeUnavailable(f"{self._config.server} answered {kind} without `{field}`")

    async def start_runtime(self, scope: Scope, *, again: bool = False) -> None:
        """Subscribe to a conversation, once per upstream connection unless `again`.

        The permission mode is always named: without it the App Server takes `unrestricted`.
        """
        if scope in self._started and not again:
            return
        tools: dict[str, Any] = {"external_tools": groups} if (groups := self.tools.groups) else {}
        await self.call(
            "runtime_start",
            everywhere=True,
            **scope.as_json(),
            mode=self._config.permission_mode,
            client_info={"name": "letta-matrix", "version": __version__},
            **tools,
        )
        self._started.add(scope)
        self._known[scope] = None
        self._known.move_to_end(scope)
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)

    async def replay(self, scope: Scope, since: int) -> Replay:
        """Kept frames of a conversation after `since`.

        Raises:
            RuntimeUnavailable: the keeper went away.
        """
        try:
            return await self._client.replay(since, scope.conversation_id)
        except KeeperGone:
            raise self.unavailable() from None

    def acknowledge(self, seq: int) -> None:
        self._client.acknowledge(seq)

    def _frame(self, frame: Frame) -> None:
        data = parse(frame.text)
        if data is None:
            self.counters["not json"] += 1
            return
        asked = self._asked.get(str(data.get("request_id")))
        if asked is not None and not asked.done():
            asked.set_result(data)
        self.tools.read(frame.seq, data)
        scope = scope_of(data)
        if scope is None:
            if asked is None:
                self.counters["unasked"] += 1
            return
        scoped = ScopedFrame(frame.seq, frame.generation, data)
        if scoped.type == "turn_finished":
            self.unsettled.discard(scope)
        self.feeds.put(scope, scoped)

    def _linked(self, link: Link) -> None:
        before, self.link = self.link, link
        if link.life:
            self.has_spare = link.spare
        same = before.up and link.same_stream(before.life, before.generation)
        if link.up:
            self._up.set()
        if link.up and self._stream != (link.life, link.generation):
            self._stream = (link.life, link.generation)
            self.unsettled.clear()
        if link.made != before.made:
            self._started.clear()  # a new spare connection is subscribed to nothing yet
            if same:
                self._background(self._start_spare)
        if link.up and (link.made != before.made or not same) and self.tools.groups:
            self._background(self._renew_tools)
        if same:
            return
        for future in self._asked.values():
            if not future.done():
                future.set_exception(self.unavailable())
        self.feeds.put_everywhere(Mark.LOST)
        if self._closing:
            return
        if link.up:
            _log.info("app server connected", runtime=self._config.name, at=self._config.address)
        elif before.up or (link.refused and not before.refused):
            _log.warning("app server unreachable", runtime=self._config.name, reason=link.reason)

    def _tell(self, frame: Json) -> bool:
        """Send a frame that has no answer, on every connection; whether it went out."""
        if not self.link.up:
            return False
        try:
            self._client.send(json.dumps(frame).encode(), everywhere=True)
        except KeeperGone:
            return False
        return True

    def _background(self, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.start(self._quietly(work))

    async def _quietly(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except RuntimeFault as fault:
            _log.info("not told to the app server", runtime=self._config.name, reason=str(fault))

    async def _start_spare(self) -> None:
        """Subscribe a new spare connection to the turns under way."""
        for scope in self.feeds.scopes:
            await self.start_runtime(scope)

    async def _renew_tools(self) -> None:
        """Take up the calls that came while nobody was here, and offer our tools again on a
        connection that may be new."""
        try:
            replay = await self._client.replay(0, '"tool_call_id"')
        except KeeperGone:
            return
        frames = [
            (frame.seq, data)
            for frame in replay.frames
            if frame.generation == self.link.generation or self.has_spare
            if (data := parse(frame.text)) is not None
        ]
        self.tools.recover(frames)
        if self._known:
            runtimes = [scope.as_json() for scope in self._known]
            updates = [{"runtimes": runtimes, "external_tools": self.tools.groups}]
            await self.call("runtime_external_tools_update", everywhere=True, updates=updates)


def outage(config: AppServerRuntime, reason: str, *, refused: bool) -> RuntimeFault:
    """What it means that there is no connection with an App Server; `refused`: it does not take
    our token, or its keeper does not."""
    if not refused:
        return RuntimeUnavailable(f"{config.server} cannot be reached: {reason}")
    if config.keeper is None:
        reason = f"{reason} at {config.shown_url}: check the runtime's `token`"
    return CredentialsRefused(reason)
