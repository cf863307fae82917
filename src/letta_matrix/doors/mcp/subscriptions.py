"""Who wants to know that a resource has changed, and being told so.

Both ways of it: `resources/subscribe` of the older revisions, `subscriptions/listen` of 2026-07-28
(MCP specification, server/resources and basic/patterns/subscriptions). A notification says only
that something is new; reading it anew asks for permission as ever.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import mcp_types as types
import structlog
from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.shared import subscriptions as sdk
from mcp.shared.exceptions import MCPError

from letta_matrix.access.authenticator import bearer_of
from letta_matrix.access.faults import ToolError
from letta_matrix.access.principal import Principal
from letta_matrix.access.refusals import IdentityUnavailable, TooOften, Unauthorized
from letta_matrix.access.streams import OpenStreams
from letta_matrix.doors.mcp.caller import connection_of, principal_of
from letta_matrix.doors.mcp.changes import LIST, Changes
from letta_matrix.doors.mcp.kept_subscriptions import Topics
from letta_matrix.doors.mcp.resources import ROOMS, Resources, messages_uri, parsed
from letta_matrix.doors.mcp.services import Services
from letta_matrix.operations.records import StoreUnavailable

log = structlog.get_logger()

Context = ServerRequestContext[Any, Any]

MOST = 200
"""Resources that one client may subscribe to."""

LISTENING = 300
"""`subscriptions/listen` requests of a token that are open at once."""

INTERVAL = 1.0
"""Seconds between two notifications of the same resource, at least."""

_WATCH = "letta_matrix.watch"

Tell = Callable[[str], Awaitable[None]]
Still = Callable[[], Awaitable[object]]
Reads = Callable[[str], Awaitable[bool]]


class Watch:
    """What one client wants to know. `tell` is given the URI of what has changed, "" for the list
    of resources; `still` looks at the token again, `reads` tells whether a room can be read."""

    def __init__(self, tell: Tell, changes: Changes, still: Still, reads: Reads) -> None:
        self._changes = changes
        self._tell = tell
        self._still = still
        self._reads = reads
        self.topics: dict[str, str] = {}
        self.unsure: set[str] = set()
        """Rooms that may have been left since they were subscribed to."""
        self.ended = asyncio.Event()
        self._dirty: set[str] = set()
        self._renamed: set[str] = set()
        self._telling: asyncio.Task[None] | None = None

    def see(self, event: Mapping[str, Any]) -> None:
        """Take note of an event of any room."""
        change = self._changes.by(event)
        if change.left:
            self.topics.pop(change.left, None)
        self._dirty |= change.topics & self.topics.keys()
        if change.renamed and ROOMS in self.topics and len(self._renamed) < MOST:
            self._renamed.add(change.renamed)
        self._wake()

    def renew(self, changes: Changes, still: Still, reads: Reads) -> None:
        """Go by a newer token, also after the older one has ended it."""
        self._changes, self._still, self._reads = changes, still, reads
        self.ended.clear()

    def stop(self) -> None:
        """Tell nothing any more."""
        self.topics.clear()
        self.ended.set()
        if self._telling is not None:
            self._telling.cancel()

    def _wake(self) -> None:
        if self._telling is None and (self._dirty or self._renamed):
            self._telling = asyncio.create_task(self._tell_all())
            self._telling.add_done_callback(self._told)

    async def _tell_all(self) -> None:
        while self._dirty or self._renamed:
            try:
                await self._still()
            except (IdentityUnavailable, StoreUnavailable, TooOften):
                await asyncio.sleep(INTERVAL)
                continue
            for topic in await self._due():
                if topic in self.topics and self._changes.sees(topic):
                    if topic not in self.unsure or await self._reads(topic):
                        await self._tell(self.topics[topic])
                    self.unsure.discard(topic)
            await asyncio.sleep(INTERVAL)

    async def _due(self) -> list[str]:
        dirty, self._dirty = self._dirty, set[str]()
        renamed, self._renamed = self._renamed, set[str]()
        for room_id in renamed:
            if ROOMS not in dirty and await self._reads(room_id):
                dirty.add(ROOMS)
        return sorted(dirty)

    def _told(self, telling: asyncio.Task[None]) -> None:
        self._telling = None
        error = None if telling.cancelled() else telling.exception()
        if self.ended.is_set():
            return
        if isinstance(error, Unauthorized):
            self.stop()
        elif error is not None:
            log.error("a subscriber is not told", exc_info=error)
        else:
            self._wake()


class Subscriptions:
    """The handlers; a session has one watch, and so has each `subscriptions/listen`."""

    def __init__(self, services: Services, resources: Resources) -> None:
        self._services = services
        self._resources = resources
        self._event_bus = services.toolbox.event_bus
        self._kept = services.subscriptions
        self._listening = OpenStreams(LISTENING, "`subscriptions/listen` requests")

    async def keep_up(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Middleware: what watches for a session goes by the token of its newest request."""
        watch: Watch | None = connection_of(ctx).state.get(_WATCH)
        if watch is not None:
            had_ended = watch.ended.is_set()
            watch.renew(*self._means(ctx))
            if had_ended:
                self._watch_list(ctx, watch)
        return await call_next(ctx)

    async def greet(self, ctx: Context, _params: types.NotificationParams) -> None:
        """`notifications/initialized`: tell from now on when the list of resources changes, and
        what a session that is taken up again has subscribed to."""
        watch = self._watch_of(ctx)
        self._watch_list(ctx, watch)
        if session_id := _session_of(ctx):
            kept = await self._kept_of(session_id)
            watch.topics |= kept
            watch.unsure |= kept.keys()

    async def subscribe(
        self, ctx: Context, params: types.SubscribeRequestParams
    ) -> types.EmptyResult:
        """`resources/subscribe`. Raises MCPError where the resource cannot be read."""
        watch = self._watch_of(ctx)
        if len(watch.topics) >= MOST:
            raise _too_many()
        topic = await self._topic(principal_of(ctx), params.uri)
        watch.topics[topic] = params.uri
        watch.unsure.discard(topic)
        await self._keep(ctx, watch)
        return types.EmptyResult()

    async def unsubscribe(
        self, ctx: Context, params: types.UnsubscribeRequestParams
    ) -> types.EmptyResult:
        """`resources/unsubscribe`; nothing happens to what was not subscribed to."""
        watch = self._watch_of(ctx)
        for topic, uri in list(watch.topics.items()):
            if uri == params.uri:
                del watch.topics[topic]
        await self._keep(ctx, watch)
        return types.EmptyResult()

    async def listen(
        self, ctx: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """`subscriptions/listen`: the request stays open. What the client cannot read is not
        among what is acknowledged."""
        request_id = ctx.request_id
        if request_id is None:
            raise MCPError(
                types.INVALID_REQUEST, "subscriptions/listen is a request; give it an id."
            )
        meta: dict[str, Any] = {sdk.SUBSCRIPTION_ID_META_KEY: request_id}

        async def tell(uri: str) -> None:
            changed = sdk.ResourceUpdated(uri) if uri else sdk.ResourcesListChanged()
            await ctx.session.send_notification(
                sdk.event_to_notification(changed, meta), request_id
            )

        watch = Watch(tell, *self._means(ctx))
        principal = principal_of(ctx)
        with self._listening.opened(principal), self._event_bus.listen(watch.see):
            honored = await self._honored(principal, params.notifications, watch)
            acknowledged = types.SubscriptionsAcknowledgedNotificationParams(
                notifications=honored, _meta=meta
            )
            try:
                await ctx.session.send_notification(
                    types.SubscriptionsAcknowledgedNotification(params=acknowledged), request_id
                )
                await watch.ended.wait()
            finally:
                watch.stop()
        return types.SubscriptionsListenResult(_meta=meta)

    async def _kept_of(self, session_id: str) -> Topics:
        try:
            return await self._kept.of(session_id)
        except StoreUnavailable as error:
            log.warning("what was subscribed to is not known", reason=str(error))
            return {}

    async def _keep(self, ctx: Context, watch: Watch) -> None:
        if session_id := _session_of(ctx):
            topics = {topic: uri for topic, uri in watch.topics.items() if topic != LIST}
            try:
                await self._kept.keep(session_id, topics)
            except StoreUnavailable as error:
                log.warning("a subscription ends with this process", reason=str(error))

    async def _honored(
        self, principal: Principal, wanted: types.SubscriptionFilter, watch: Watch
    ) -> types.SubscriptionFilter:
        """Watch what is wanted and may be read; tells what that is."""
        uris = list(dict.fromkeys(wanted.resource_subscriptions or []))
        if len(uris) > MOST:
            raise _too_many()
        topics: dict[str, str] = {}
        for uri in uris:
            try:
                # Each is looked up in the room: one request must not cause hundreds for free.
                self._services.authenticator.count(principal)
                topics[await self._topic(principal, uri)] = uri
            except (MCPError, ToolError) as error:
                log.info("a subscription is not honored", who=principal.key, reason=str(error))
        honored = types.SubscriptionFilter(resource_subscriptions=list(topics.values()) or None)
        if wanted.resources_list_changed and self._resources.may_read(principal, ROOMS):
            topics[LIST] = LIST
            honored.resources_list_changed = True
        watch.topics |= topics
        return honored

    async def _topic(self, principal: Principal, uri: str) -> str:
        """What a URI is about, for somebody who may read it. Raises MCPError."""
        kind, room = parsed(uri)
        if room:
            return str((await self._resources.read(principal, uri, limit=1))["room_id"])
        if not self._resources.may_read(principal, kind):
            raise MCPError(types.INVALID_PARAMS, f"Your token is not for {uri}.", {"uri": uri})
        return kind

    def _watch_of(self, ctx: Context) -> Watch:
        """The watch of a session, which ends with it."""
        connection: Connection = connection_of(ctx)
        watch: Watch | None = connection.state.get(_WATCH)
        if watch is None:
            watch = Watch(partial(_tell_session, connection), *self._means(ctx))
            connection.state[_WATCH] = watch
            connection.exit_stack.enter_context(self._event_bus.listen(watch.see))
            connection.exit_stack.callback(watch.stop)
        return watch

    def _watch_list(self, ctx: Context, watch: Watch) -> None:
        if self._resources.may_read(principal_of(ctx), ROOMS):
            watch.topics[LIST] = LIST

    def _means(self, ctx: Context) -> tuple[Changes, Still, Reads]:
        """What a watch goes by, for whoever sent a request."""
        services, principal = self._services, principal_of(ctx)
        # The HTTP request, or what stands for it on the WebSocket.
        headers: Mapping[str, str] = getattr(ctx.request, "headers", {})
        bearer = bearer_of(headers.get("authorization"))
        agent = services.directory.get(principal.agent_id)
        user_id = services.config.bot_user_id if agent is None else agent.user_id
        return (
            Changes(principal, user_id, services.directory),
            partial(services.authenticator.identify, bearer),
            partial(self._reads, principal),
        )

    async def _reads(self, principal: Principal, room_id: str) -> bool:
        try:
            await self._resources.read(principal, messages_uri(room_id), limit=1)
        except (MCPError, ToolError):
            return False
        return True


def _session_of(ctx: Context) -> str:
    """The name of a session over HTTP, "" for others, which end with their connection."""
    headers: Mapping[str, str] = getattr(ctx.request, "headers", {})
    return headers.get(MCP_SESSION_ID_HEADER) or ""


async def _tell_session(connection: Connection, uri: str) -> None:
    if uri:
        await connection.send_resource_updated(uri)
    else:
        await connection.send_resource_list_changed()


def _too_many() -> MCPError:
    return MCPError(types.INVALID_REQUEST, f"No more than {MOST} resources can be subscribed to.")
