"""Requests to an App Server and the frames of its conversations, through the keeper."""

import asyncio
import itertools
import json
import secrets
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import structlog

from letta_matrix import __version__
from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server.frames import (
    MUTED,
    TRANSIENT,
    Json,
    Scope,
    ScopedFrame,
    as_dict,
    error_line,
    id_of,
    is_gone,
    parse,
    scope_of,
)
from letta_matrix.runtimes.keeper.client import KeeperClient, KeeperGone, Link, Replay
from letta_matrix.runtimes.keeper.server import is_remote
from letta_matrix.runtimes.keeper.wire import Frame
from letta_matrix.runtimes.protocol import ConversationGone, RuntimeRefused, RuntimeUnavailable

_log = structlog.get_logger()


class Mark(Enum):
    """What a feed can hold besides frames."""

    LOST = "the stream broke; frames may be missing from here on"
    CANCELLED = "the turn was aborted and nothing more came"


Feed = asyncio.Queue[ScopedFrame | Mark]


class Connection:
    """Speaks with one App Server; every wait in here ends.

    `counters` counts what was ignored: `unknown ...`, `not json`, `unasked`.
    """

    def __init__(self, config: AppServerRuntime, socket: Path) -> None:
        token = config.token.get_secret_value() if config.token else None
        self.counters: Counter[str] = Counter()
        self.unsettled: set[Scope] = set()
        """Conversations aborted without a `turn_finished` so far; they start nothing new."""
        self._config = config
        self._url = _websocket_url(config.url)
        self.has_spare = is_remote(self._url)
        """Whether turns outlive a broken connection, by the keeper's second one."""
        self._client = KeeperClient(
            socket, self._url, token, self._frame, self._linked, muted=MUTED, transient=TRANSIENT
        )
        self._link = self._client.link
        self._asked: dict[str, asyncio.Future[Json]] = {}
        self._feeds: dict[Scope, list[Feed]] = {}
        self._started: set[Scope] = set()
        self._closing = False
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def start(self) -> None:
        self._client.start()

    async def close(self) -> None:
        self._closing = True
        await self._client.close()

    @property
    def link(self) -> Link:
        return self._link

    @property
    def seq(self) -> int:
        """Sequence number of the newest frame."""
        return self._client.seq

    def unavailable(self) -> RuntimeUnavailable:
        """Why nothing can be asked just now."""
        hint = "; check the runtime's `token`" if self._link.refused else ""
        reason = self._link.reason or "the connection broke and was made anew"
        return RuntimeUnavailable(
            f"the App Server at {self._config.url} cannot be reached: {reason}{hint}"
        )

    async def request(
        self, kind: str, *, request_id: str = "", everywhere: bool = False, **fields: object
    ) -> Json:
        """Send a frame of type `kind` and wait for its answer.

        Raises:
            RuntimeUnavailable: down, broken off, or no answer within `request_timeout`
                (unknown types and invalid frames are ignored in silence by the App Server).
        """
        if not self._link.up:
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
                f"the App Server at {self._config.url} did not answer {kind} "
                f"within {self._config.request_timeout:g} s"
            ) from None
        finally:
            self._asked.pop(number, None)

    async def call(
        self, kind: str, *, request_id: str = "", everywhere: bool = False, **fields: object
    ) -> Json:
        """A request whose answer must be a success.

        Raises:
            RuntimeUnavailable: as `request`.
            ConversationGone: there is no such conversation.
            RuntimeRefused: the App Server answered with another error.
        """
        answer = await self.request(kind, request_id=request_id, everywhere=everywhere, **fields)
        if not answer.get("success"):
            line = error_line(answer.get("error"))
            kind_of_error = ConversationGone if is_gone(line) else RuntimeRefused
            raise kind_of_error(f"the App Server refused {kind}: {line}")
        return answer

    async def create(self, kind: str, field: str, **fields: Any) -> Json:
        """A call that makes something: the object in the answer's `field`, which has an id.

        Raises:
            RuntimeUnavailable, RuntimeRefused: as `call`.
        """
        made = as_dict((await self.call(kind, **fields)).get(field))
        if not id_of(made):
            raise self.malformed(kind, field)
        return made

    def malformed(self, kind: str, field: str) -> RuntimeUnavailable:
        """An answer that lacks what it is for."""
        return RuntimeUnavailable(
            f"the App Server at {self._config.url} answered {kind} without `{field}`"
        )

    async def start_runtime(self, scope: Scope, *, again: bool = False) -> None:
        """Subscribe to a conversation, once per upstream connection unless `again`.

        The permission mode is always named: without it the App Server takes `unrestricted`.
        """
        if scope in self._started and not again:
            return
        await self.call(
            "runtime_start",
            everywhere=True,
            **scope.as_json(),
            mode=self._config.permission_mode,
            client_info={"name": "letta-matrix", "version": __version__},
        )
        self._started.add(scope)

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

    @contextmanager
    def subscribe(self, scope: Scope) -> Generator[Feed]:
        """The conversation's frames from now on."""
        feed: Feed = asyncio.Queue()
        feeds = self._feeds.setdefault(scope, [])
        feeds.append(feed)
        try:
            yield feed
        finally:
            feeds.remove(feed)
            if not feeds:
                del self._feeds[scope]

    def feeds(self, scope: Scope) -> list[Feed]:
        return list(self._feeds.get(scope, ()))

    def _frame(self, frame: Frame) -> None:
        data = parse(frame.text)
        if data is None:
            self.counters["not json"] += 1
            return
        asked = self._asked.get(str(data.get("request_id")))
        if asked is not None and not asked.done():
            asked.set_result(data)
        scope = scope_of(data)
        if scope is None:
            if asked is None:
                self.counters["unasked"] += 1
            return
        scoped = ScopedFrame(frame.seq, frame.generation, data)
        if scoped.type == "turn_finished":
            self.unsettled.discard(scope)
        for feed in self._feeds.get(scope, ()):
            feed.put_nowait(scoped)

    def _linked(self, link: Link) -> None:
        before, self._link = self._link, link
        if link.made != before.made:
            self._started.clear()  # a new spare connection is subscribed to nothing yet
        if link.same_stream(before.epoch, before.generation) and before.up:
            return
        for future in self._asked.values():
            if not future.done():
                future.set_exception(self.unavailable())
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.put_nowait(Mark.LOST)
        if self._closing:
            return
        if link.up:
            _log.info("app server connected", runtime=self._config.name, url=self._config.url)
        elif before.up or (link.refused and not before.refused):
            _log.warning("app server unreachable", runtime=self._config.name, reason=link.reason)


def _websocket_url(url: str) -> str:
    return url if url.rstrip("/").endswith("/ws") else url.rstrip("/") + "/ws"
