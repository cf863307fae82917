"""The App Server (`letta server`) as a place where agents live."""

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Sequence

from letta_matrix.common import clock
from letta_matrix.common.json_fields import Json, as_list, id_of, items, mapping
from letta_matrix.common.tools import ToolHandler, ToolSpec
from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server.activity import Activity
from letta_matrix.runtimes.app_server.connection import Connection
from letta_matrix.runtimes.app_server.feeds import Feed, Mark, next_of
from letta_matrix.runtimes.app_server.following import Follower
from letta_matrix.runtimes.app_server.frames import Scope
from letta_matrix.runtimes.app_server.speech import SpeechReader
from letta_matrix.runtimes.app_server.trails import Trail
from letta_matrix.runtimes.error_lines import error_line
from letta_matrix.runtimes.faults import (
    AgentGone,
    ConversationGone,
    CredentialsRefused,
    RuntimeRefused,
    RuntimeUnavailable,
    TurnLost,
)
from letta_matrix.runtimes.keeper.places import KeeperPlace
from letta_matrix.runtimes.letta_json import agent_of
from letta_matrix.runtimes.protocol import (
    ABORT_GRACE,
    AgentInfo,
    AgentRuntime,
    ApprovalRequested,
    Capabilities,
    SaveTurnState,
    TurnEvent,
    TurnRequest,
    TurnState,
)
from letta_matrix.runtimes.speech import Said

PAGE = 100
LOOK_EVERY = 2.0
"""Longest pause in seconds between two looks at who has talked in any conversation."""
RECOVERY_GRACE = 120.0
"""Seconds after the start in which no frame is given up: turns of a killed bridge may want it."""


class AppServer(AgentRuntime):
    """Implements `AgentRuntime` over a keeper's WebSocket to an App Server.

    `epoch` tells replicas apart that take over from each other, see `KeeperClient`.
    """

    def __init__(self, config: AppServerRuntime, keeper: KeeperPlace, epoch: int = 0) -> None:
        self._config = config
        self._connection = Connection(config, keeper, epoch)
        self.name, self.counters = config.name, self._connection.counters
        self._activity = Activity(self._connection)
        self._next_look = 0.0
        self._speech = SpeechReader(self._connection)
        self._trails: dict[TurnRequest, Trail] = {}
        self._started_at = clock.now()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    def offer_tools(self, tools: Sequence[ToolSpec], handler: ToolHandler) -> None:
        """See `AgentRuntime.offer_tools`; they are offered in every conversation that this
        process runs a turn in, whoever starts turns there later."""
        self._connection.tools.offer(tools, handler)

    async def start(self) -> None:
        self._started_at = clock.now()
        self._connection.start()

    async def close(self) -> None:
        await self._connection.close()

    async def list_agents(self) -> list[AgentInfo]:
        agents = await self._agents()
        await self._look_at_conversations()
        return [agent_of(item, self._activity.last_run(item)) for item in agents]

    async def _look_at_conversations(self) -> None:
        # Not at every listing: each takes time of the App Server's one thread from the turns.
        now = clock.now()
        if self._config.speech and now >= self._next_look:
            await self._activity.look()
            self._next_look = now + min(self._config.speech_interval, LOOK_EVERY)

    async def create_agent(self, name: str, *, model: str = "", description: str = "") -> AgentInfo:
        body: Json = {"name": name, "tags": [], "description": description or None}
        if model := model or await self._usual_model():
            body["model"] = model
        return agent_of(await self._connection.create("agent_create", "agent", body=body), "")

    async def _usual_model(self) -> str:
        """What most agents think with, else the only model there is; "" where that is not plain.
        The App Server's own default is none that it lists, and unknown to it after a restart."""
        known = await self.list_models()
        agents = await self._agents()
        used = Counter(model for item in agents if (model := item.get("model")) in known)
        if used:
            return used.most_common(1)[0][0]
        return known[0] if len(known) == 1 else ""

    async def rename_agent(self, agent_id: str, name: str) -> None:
        await self._connection.call("agent_update", agent_id=agent_id, body={"name": name})

    async def delete_agent(self, agent_id: str) -> None:
        with contextlib.suppress(AgentGone):
            await self._connection.call("agent_delete", agent_id=agent_id)

    async def list_models(self) -> list[str]:
        answer = await self._connection.call("list_models")
        handles = [entry.get("handle") for entry in as_list(answer.get("entries"))]
        return list(dict.fromkeys(handle for handle in handles if isinstance(handle, str)))

    async def set_model(self, agent_id: str, model: str) -> None:
        """Switch an agent's model, in all its conversations that have none of their own.

        The App Server takes any text for a model, so that it is looked up here first.
        """
        if model not in await self.list_models():
            raise RuntimeRefused(f"the App Server has no model {model}")
        scope = Scope(agent_id, "default")
        payload = {"model_handle": model}
        await self._connection.call("update_model", runtime=scope.as_json(), payload=payload)

    async def create_conversation(self, agent_id: str, title: str) -> str:
        body = {"agent_id": agent_id, "summary": title}
        made = await self._connection.create("conversation_create", "conversation", body=body)
        return id_of(made)

    async def run_turn(
        self, request: TurnRequest, state: TurnState | None, save: SaveTurnState
    ) -> AsyncGenerator[TurnEvent]:
        """Run or follow a turn (see `AgentRuntime`); `conversation_id` must be an explicit one,
        since the App Server locks `default` across all agents."""
        before = self._trails.get(request)
        trail = Trail(save, state or {}, before.unanswered if before else set[str]())
        self._trails[request] = trail
        scope = Scope(request.agent_id, request.conversation_id)
        self._connection.stopped.discard(scope)
        with self._connection.feeds.subscribe(scope) as feed:
            events = Follower(self._connection, request, feed, trail).run(state)
            try:
                if not self._connection.link.up:
                    raise self._connection.unavailable()
                async with contextlib.aclosing(events):
                    async for event in events:
                        if isinstance(event, ApprovalRequested):
                            if state is None:
                                trail.unanswered.add(event.approval_id)
                            await trail.note(event.approval_id, waits=True)
                        yield event
            except RuntimeUnavailable:
                raise
            except CredentialsRefused as fault:
                # What may have been taken can be followed once the token is right again.
                if trail.place:
                    raise RuntimeUnavailable(str(fault)) from None
                raise
            except Exception as error:
                self._trails.pop(request, None)
                if state and isinstance(error, ConversationGone):
                    # The earlier try may have begun it there.
                    raise TurnLost(str(error), tools_started=True) from None
                raise

    async def cancel_turn(self, agent_id: str, conversation_id: str) -> None:
        """Stop what runs (see `AgentRuntime`); returns when it ended, or `ABORT_GRACE` later."""
        scope = Scope(agent_id, conversation_id)
        followers = self._connection.feeds.of(scope)
        self._connection.stopped.add(scope)
        with self._connection.feeds.subscribe(scope) as feed:
            answer = await self._connection.call("abort_message", runtime=scope.as_json())
            self._connection.tools.stop(scope)
            # Messages that wait behind an aborted turn stay paused until told to go on.
            await self._connection.call("resume_queue", runtime=scope.as_json())
            if not answer.get("aborted") or await _ends(feed):
                return
        self._connection.unsettled.add(scope)
        for follower in followers:
            follower.put_nowait(Mark.CANCELLED)

    async def answer_approval(
        self, request: TurnRequest, approval_id: str, *, allow: bool, message: str = ""
    ) -> None:
        """See `AgentRuntime.answer_approval`. Nothing is allowed for good there: it would hold for
        all agents of the App Server, whoever asks."""
        decision: Json = {"behavior": "allow"}
        if not allow:
            decision = {"behavior": "deny", "message": message or "The person said no."}
        payload = {"kind": "approval_response", "request_id": approval_id, "decision": decision}
        scope = Scope(request.agent_id, request.conversation_id)
        if (trail := self._trails.get(request)) is not None:
            trail.unanswered.discard(approval_id)
            # Before it can start: from now on nobody knows that it has not.
            await trail.note(approval_id, waits=False)
        try:
            answer = await self._connection.request(
                "input", runtime=scope.as_json(), payload=payload
            )
        except CredentialsRefused as fault:
            # It is still pending, and can be answered once the token is right again.
            raise RuntimeUnavailable(str(fault)) from None
        if not answer.get("accepted"):
            reason = error_line(answer.get("error") or "it is no longer pending")
            raise RuntimeRefused(f"the App Server did not take the approval: {reason}")

    async def said_since(self, agent_id: str, cursor: str | None) -> Said:
        return await self._speech.said_since(agent_id, cursor)

    async def finish_turn(self, request: TurnRequest) -> None:
        self._trails.pop(request, None)
        if clock.now() - self._started_at < RECOVERY_GRACE:
            return
        life = self._connection.link.life
        needed = [
            seq
            for trail in self._trails.values()
            if trail.place.get("life") == life and isinstance(seq := trail.place.get("seq"), int)
        ]
        if (oldest := self._connection.tools.oldest) is not None:
            needed.append(oldest - 1)
        self._connection.acknowledge(min(needed, default=self._connection.seq))

    async def _agents(self) -> list[Json]:
        """Every page of the listing; items without an id are counted and passed over."""
        found: dict[str, Json] = {}
        query: Json = {"limit": PAGE}
        while True:
            answer = await self._connection.call("agent_list", query=query)
            page = items(answer.get("agents"))
            if page is None:
                raise self._connection.malformed("agent_list", "agents")
            usable = {id_of(item): item for item in as_list(page) if id_of(item)}
            fresh = usable.keys() - found.keys()
            if malformed := sum(not id_of(mapping(item)) for item in page):
                self.counters["malformed agent_list"] += malformed
            found |= usable
            if len(page) < PAGE or not fresh:
                return list(found.values())
            query["after"] = list(usable)[-1]


async def _ends(feed: Feed) -> bool:
    """Whether the turn ends within `ABORT_GRACE`; a broken stream ends the wait for it too."""
    deadline = clock.now() + ABORT_GRACE
    while (frame := await next_of(feed, deadline)) is not None:
        if isinstance(frame, Mark) or frame.type == "turn_finished":
            return True
    return False
