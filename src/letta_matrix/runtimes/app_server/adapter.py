"""The App Server (`letta server`) as a place where agents live."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server.connection import Connection, Mark
from letta_matrix.runtimes.app_server.following import Follower
from letta_matrix.runtimes.app_server.frames import Json, Scope, as_list, error_line
from letta_matrix.runtimes.protocol import (
    AgentInfo,
    Capabilities,
    RuntimeRefused,
    RuntimeUnavailable,
    SaveTurnState,
    TurnEvent,
    TurnRequest,
    TurnState,
)

PAGE = 100
ABORT_GRACE = 2.0
"""Seconds that an aborted turn has to report its end."""
RECOVERY_GRACE = 120.0
"""Seconds after the start in which no frame is given up: turns of a killed bridge may want it."""


class AppServer:
    """Implements `AgentRuntime` over a keeper's WebSocket to an App Server.

    `socket` is the keeper's Unix socket; a keeper is started where none answers there.
    """

    def __init__(self, config: AppServerRuntime, socket: Path) -> None:
        self._config = config
        self._connection = Connection(config, socket)
        self._unfinished: dict[TurnRequest, Mapping[str, object]] = {}
        self._started_at = time.monotonic()

    @property
    def name(self) -> str:
        return self._config.name

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    @property
    def counters(self) -> Counter[str]:
        """How often something unknown came and was passed over."""
        return self._connection.counters

    async def start(self) -> None:
        self._started_at = time.monotonic()
        self._connection.start()

    async def close(self) -> None:
        await self._connection.close()

    async def list_agents(self) -> list[AgentInfo]:
        return [_agent(item) for item in await self._list_all("agent_list", "agents", {})]

    async def create_agent(self, name: str, *, model: str = "", description: str = "") -> AgentInfo:
        body: Json = {"name": name, "tags": [], "description": description or None}
        if model:
            body["model"] = model
        answer = await self._connection.call("agent_create", body=body)
        return _agent(answer["agent"])

    async def rename_agent(self, agent_id: str, name: str) -> None:
        await self._connection.call("agent_update", agent_id=agent_id, body={"name": name})

    async def create_conversation(self, agent_id: str, title: str) -> str:
        body = {"agent_id": agent_id, "summary": title}
        answer = await self._connection.call("conversation_create", body=body)
        return str(answer["conversation"]["id"])

    async def list_conversations(self, agent_id: str) -> list[str]:
        query = {"agent_id": agent_id}
        items = await self._list_all("conversation_list", "conversations", query)
        return [str(item["id"]) for item in items]

    async def run_turn(
        self, request: TurnRequest, state: TurnState | None, save: SaveTurnState
    ) -> AsyncGenerator[TurnEvent]:
        """Run or follow a turn (see `AgentRuntime`); `conversation_id` must be an explicit one,
        since the App Server locks `default` across all agents."""
        if not self._connection.link.up:
            raise self._connection.unavailable()

        async def remember(place: TurnState) -> None:
            await save(place)
            self._unfinished[request] = place

        self._unfinished[request] = state or {}
        scope = Scope(request.agent_id, request.conversation_id)
        with self._connection.subscribe(scope) as feed:
            follower = Follower(self._connection, request, feed, remember)
            events = follower.ask() if state is None else follower.resume(state)
            try:
                async for event in events:
                    yield event
            except RuntimeUnavailable:
                raise
            except Exception:
                self._unfinished.pop(request, None)
                raise

    async def cancel_turn(self, agent_id: str, conversation_id: str) -> None:
        scope = Scope(agent_id, conversation_id)
        feeds = self._connection.feeds(scope)
        answer = await self._connection.call("abort_message", runtime=scope.as_json())
        # Messages that wait behind an aborted turn stay paused until told to go on.
        await self._connection.call("resume_queue", runtime=scope.as_json())
        if answer.get("aborted"):
            loop = asyncio.get_running_loop()
            for feed in feeds:
                loop.call_later(ABORT_GRACE, feed.put_nowait, Mark.CANCELLED)

    async def answer_approval(
        self, request: TurnRequest, approval_id: str, *, allow: bool, message: str = ""
    ) -> None:
        decision: Json = {"behavior": "allow"}
        if not allow:
            decision = {"behavior": "deny", "message": message or "The person said no."}
        payload: Json = {"kind": "approval_response", "request_id": approval_id}
        answer = await self._connection.request(
            "input",
            runtime=Scope(request.agent_id, request.conversation_id).as_json(),
            payload={**payload, "decision": decision},
        )
        if not answer.get("accepted"):
            reason = error_line(answer.get("error") or "it is no longer pending")
            raise RuntimeRefused(f"the App Server did not take the approval: {reason}")

    async def finish_turn(self, request: TurnRequest) -> None:
        self._unfinished.pop(request, None)
        if time.monotonic() - self._started_at < RECOVERY_GRACE:
            return
        epoch = self._connection.link.epoch
        needed = [
            seq
            for place in self._unfinished.values()
            if place.get("epoch") == epoch and isinstance(seq := place.get("seq"), int)
        ]
        self._connection.acknowledge(min(needed, default=self._connection.seq))

    async def _list_all(self, kind: str, field: str, query: Json) -> list[Json]:
        found: dict[str, Json] = {}
        after: Json = {}
        while True:
            answer = await self._connection.call(kind, query={**query, "limit": PAGE, **after})
            page = as_list(answer.get(field))
            fresh = {str(item["id"]): item for item in page if str(item["id"]) not in found}
            found |= fresh
            if len(page) < PAGE or not fresh:
                return list(found.values())
            after = {"after": str(page[-1]["id"])}


def _agent(item: Json) -> AgentInfo:
    return AgentInfo(
        agent_id=str(item["id"]),
        name=str(item.get("name") or item["id"]),
        description=str(item.get("description") or ""),
        model=str(item.get("model") or ""),
    )
