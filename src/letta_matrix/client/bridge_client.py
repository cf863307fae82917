"""The REST API of a bridge, as methods."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote

from letta_matrix.client.errors import ApiError
from letta_matrix.client.events import StreamEvent, events_of
from letta_matrix.client.transport import STREAMING, Json, Transport

if TYPE_CHECKING:
    # What these are made of takes a second to load.
    from letta_matrix.client import types

_V1 = "/api/v1"
_PAGE = 200


class LettaMatrix:
    """A client; use it in `async with`, or end it with `close()`.

    Methods raise ApiError for what the API refuses and Unreachable when it does not answer.
    Those that change something take a `transaction_id`: with the same one they do it once,
    however often they are called.

    Args:
        url: where the API is, such as `http://127.0.0.1:8004`.
        token: a token made by `letta-matrix tokens create`; only `health` and `is_ready` need none.
        timeout: seconds that a request may take; one that waits for an agent may take longer.
    """

    def __init__(self, url: str, token: str = "", *, timeout: float = 330.0) -> None:
        self._transport = Transport(url, token, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._transport.close()

    async def health(self) -> Json:
        """How the bridge is; `status` is `ok`, `starting` or `degraded`."""
        return await self._transport.request("GET", "/health")

    async def is_ready(self) -> bool:
        """Whether the homeserver is connected and every agent is set up."""
        try:
            return bool((await self._transport.request("GET", "/ready")).get("ready"))
        except ApiError:
            return False

    async def list_agents(self, *, name: str = "", runtime: str = "") -> list[types.Agent]:
        """The active agents, all pages; those whose name contains `name`, of one runtime."""
        query: Json = {"name": name, "runtime": runtime, "limit": _PAGE}
        return await self._pages("/agents", "agents", query)

    async def get_agent(self, agent_id: str) -> types.AgentDetails:
        return await self._get(f"/agents/{_part(agent_id)}")

    async def create_agent(
        self, name: str, *, runtime: str = "", model: str = "", transaction_id: str = ""
    ) -> types.AgentDetails:
        """Create an agent at its runtime, and wait some seconds for its room."""
        body: Json = {"name": name, "runtime": runtime, "model": model}
        return await self._write("POST", "/agents", body, transaction_id)

    async def rename_agent(
        self, agent_id: str, name: str, *, transaction_id: str = ""
    ) -> types.AgentDetails:
        path = f"/agents/{_part(agent_id)}"
        return await self._write("PATCH", path, {"name": name}, transaction_id)

    async def remove_agent(self, agent_id: str, *, confirm: str) -> None:
        """Delete an agent with all it remembers; `confirm` is its name."""
        path = f"{_V1}/agents/{_part(agent_id)}"
        await self._transport.request("DELETE", path, query={"confirm": confirm})

    async def sync_agents(self) -> Json:
        """List every runtime's agents now."""
        return await self._transport.request("POST", f"{_V1}/agents/sync")

    async def say_to_agent(
        self, agent_id: str, message: str, *, wait: float = 120.0, transaction_id: str = ""
    ) -> types.Answer:
        """Say something to an agent and wait `wait` seconds for its answer."""
        path, headers = f"{_V1}/agents/{_part(agent_id)}/messages", _once(transaction_id)
        return await self._transport.request(
            "POST", path, {"message": message}, query={"wait": wait}, headers=headers, wait=wait
        )

    async def stream_answer(
        self, agent_id: str, message: str, *, transaction_id: str = ""
    ) -> AsyncGenerator[StreamEvent]:
        """Say something to an agent; its answer as it grows: `accepted`, `text` with the whole
        text so far, `approval` when it waits for one, then `done` or `error`."""
        headers = {"Accept": "text/event-stream", **_once(transaction_id)}
        path = f"{_V1}/agents/{_part(agent_id)}/messages"
        body = {"message": message}
        async with self._transport.open(
            "POST", path, body, headers=headers, timeout=STREAMING
        ) as response:
            async for event in events_of(response):
                yield event

    async def list_rooms(self, *, include_members: bool = False) -> list[types.Room]:
        """The rooms that the token's holder is in, all pages."""
        query: Json = {"include_members": include_members}
        return await self._pages("/rooms", "rooms", query)

    async def send_message(
        self,
        room: str,
        message: str,
        *,
        reply_to: str | None = None,
        thread: str | None = None,
        transaction_id: str = "",
    ) -> types.Sent:
        """Say something in a room, named by id, alias or exact name."""
        body: Json = {"message": message, "reply_to": reply_to, "thread": thread}
        path = f"/rooms/{_part(room)}/messages"
        return await self._write("POST", path, body, transaction_id)

    async def list_messages(
        self, room: str, *, limit: int = 10, before: str = "", after: str = ""
    ) -> types.Messages:
        """The newest messages of a room, oldest first."""
        query: Json = {"limit": limit, "before": before, "after": after}
        return await self._get(f"/rooms/{_part(room)}/messages", query)

    async def list_tools(self) -> list[types.Tool]:
        """The tools that the token may call."""
        return (await self._get("/tools"))["tools"]

    async def call_tool(self, name: str, /, *, transaction_id: str = "", **arguments: Any) -> Json:
        """Call a tool; its result."""
        return await self._write("POST", f"/tools/{_part(name)}", arguments, transaction_id)

    async def list_turns(self) -> list[types.Turn]:
        """The turns that run or wait, all pages."""
        return await self._pages("/turns", "turns", {"limit": _PAGE})

    async def cancel_turn(self, turn_id: str) -> None:
        """Stop a turn. Raises ApiError `conflict` if it is over."""
        await self._transport.request("POST", f"{_V1}/turns/{_part(turn_id)}/cancel")

    async def list_approvals(self) -> list[types.Approval]:
        """The approvals that wait for an answer."""
        return (await self._get("/approvals"))["approvals"]

    async def answer_approval(
        self,
        key: str,
        decision: Literal["allow", "always", "deny"],
        *,
        reason: str = "",
        transaction_id: str = "",
    ) -> types.Approval:
        body: Json = {"decision": decision, "reason": reason}
        path = f"/approvals/{_part(key)}"
        return await self._write("POST", path, body, transaction_id)

    async def create_token(
        self,
        scopes: Collection[str],
        *,
        agent_id: str = "",
        rooms: Collection[str] | None = None,
        label: str = "",
        expires_in: float | None = 90 * 86_400.0,
    ) -> types.NewToken:
        """A new token; `expires_in` is in seconds, None for ever. Its secret is told this once."""
        body: Json = {
            "scopes": list(scopes),
            "agent_id": agent_id,
            "rooms": None if rooms is None else list(rooms),
            "label": label,
            "expires_in": expires_in,
        }
        return await self._transport.request("POST", f"{_V1}/tokens", body)

    async def list_tokens(self) -> list[types.Token]:
        """The tokens, all pages, without their secrets."""
        return await self._pages("/tokens", "tokens", {"limit": _PAGE})

    async def revoke_token(self, token_id: str) -> None:
        await self._transport.request("DELETE", f"{_V1}/tokens/{_part(token_id)}")

    async def _get(self, path: str, query: dict[str, object] | None = None) -> Any:
        return await self._transport.request("GET", _V1 + path, query=query)

    async def _pages(self, path: str, name: str, query: Json) -> list[Any]:
        """What is called `name` on all pages."""
        found: list[Json] = []
        while True:
            page = await self._get(path, query)
            found += page[name]
            if not page.get("next"):
                return found
            query = {**query, "after": page["next"]}

    async def _write(self, method: str, path: str, body: Json, transaction_id: str) -> Any:
        return await self._transport.request(
            method, _V1 + path, body, headers=_once(transaction_id)
        )


def _part(text: str) -> str:
    return quote(text, safe="")


def _once(transaction_id: str) -> dict[str, str]:
    return {"Idempotency-Key": transaction_id} if transaction_id else {}
