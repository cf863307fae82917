"""A Letta API in memory, as strict as its official description, that tests can break.

Paths, parameters and body fields are those of letta-client 1.12.1; what it measured of a V1
server 0.16.8 holds here too: `otid` is idempotent with `background` alone, a second turn in a
conversation is a 409, a rename moves an agent to the front by `updated_at`.

Runs as `python -m tests.fake_letta_api --port N`, or in a test as
`async with FakeLettaApi() as server: server.url, server.add_agent("Alpha"), server.prompts`.
"""

import argparse
import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

from aiohttp import web
from letta_client.types import (
    AgentCreateParams,
    AgentListParams,
    AgentUpdateParams,
    ConversationCancelParams,
    ConversationCreateParams,
    RunListParams,
)
from letta_client.types.conversations import MessageCreateParams, MessageListParams
from letta_client.types.runs import MessageListParams as RunMessageListParams
from letta_client.types.runs import MessageStreamParams
from tests import fake_letta_runs
from tests.fake_letta_checks import (
    Fault,
    Request,
    check_keys,
    check_query,
    due,
    error,
    failed,
    page_of,
    read_body,
    read_object,
    read_prompt,
    refusal_of,
    refuse,
    text_field,
)
from tests.fake_letta_runs import DONE, Conversation, Json, Run, Script, message_text, new_id, now
from tests.steps import Steps, without_quotes

_ID = re.compile(r"(agent|conv|run)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MODELS = ("letta/stub-echo", "letta/stub-other")
PAGE = 50
RUN_PAGE = 100
GARBAGE = b'data: {"id": \n\n\xff\xfe<html>\n\ndata: [1, 2]\n\n'

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(repr=False)
class FakeLettaApi:
    """The server; port 0 takes any free port. Without a `key` none may be sent.

    `approvals` are the tools that ask first. To break it: `fail`, `cut_after` and
    `garbage_after` (events of the next stream), `silent` (streams say nothing, not even
    pings), `without_redis` (no stream but the first), `forget_runs`, `refuses_in_stream`.
    """

    port: int = 0
    key: str = "letta-key"
    approvals: set[str] = field(default_factory=lambda: {"Bash"})
    ping_every: float = 0.2
    cut_after: int | None = None
    garbage_after: int | None = None
    silent: bool = False
    without_redis: bool = False
    refuses_in_stream: bool = False
    requests: list[Request] = field(default_factory=list[Request])
    prompts: list[str] = field(default_factory=list[str])
    bodies: list[Json] = field(default_factory=list[Json])
    agents: dict[str, Json] = field(default_factory=dict[str, Json])
    conversations: dict[str, Conversation] = field(default_factory=dict[str, Conversation])
    runs: dict[str, Run] = field(default_factory=dict[str, Run])
    steps: Steps = field(default_factory=Steps)
    _faults: list[Fault] = field(default_factory=list[Fault])
    _by_otid: dict[str, Run] = field(default_factory=dict[str, Run])
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, text: str) -> int:
        """How often an agent was prompted with `text`, quotes apart."""
        return sum(text in without_quotes(prompt) for prompt in self.prompts)

    def lines(self, pattern: str) -> list[Request]:
        """The requests whose `METHOD path` matches."""
        return [request for request in self.requests if re.fullmatch(pattern, request.line)]

    def add_agent(self, name: str, model: str = MODELS[0]) -> str:
        agent_id = new_id("agent")
        times = {"created_at": now(), "updated_at": now(), "last_run_completion": None}
        self.agents[agent_id] = {"id": agent_id, "name": name, "description": None, "model": model}
        self.agents[agent_id] |= times
        return agent_id

    def rename_agent(self, agent_id: str, name: str) -> None:
        self.agents[agent_id] |= {"name": name, "updated_at": now()}

    def remove_agent(self, agent_id: str) -> None:
        """Delete an agent; its conversations go with it."""
        del self.agents[agent_id]
        gone = [key for key, value in self.conversations.items() if value.agent_id == agent_id]
        for key in gone:
            del self.conversations[key]

    def say(self, agent_id: str, text: str, conversation_id: str = "") -> Run:
        """Let another client send the agent a message; follow its run by `run.task`."""
        conversation = self.conversations.get(conversation_id) or Conversation(agent_id)
        self.conversations[conversation.id] = conversation
        return self._begin(conversation, {"role": "user", "content": text, "otid": new_id("otid")})

    def fail(
        self,
        pattern: str,
        status: int,
        *,
        times: int = 1,
        retry_after: str = "",
        body: str = '{"detail": "on purpose"}',
        takes_effect: bool = False,
        skip: int = 0,
    ) -> None:
        """Answer requests whose `METHOD path` matches with an error; status 0 hangs up.

        With `takes_effect` the request is carried out first; the first `skip` are let through.
        """
        headers = {"Retry-After": retry_after} if retry_after else {}
        fault = Fault(re.compile(pattern), status, times, headers, body, takes_effect, skip)
        self._faults.append(fault)

    def forget_otids(self) -> None:
        """As after the hours for which the server knows an `otid` again."""
        self._by_otid.clear()

    def lose_streams(self) -> None:
        """As when Redis was restarted: streams of ended runs say nothing for ever."""
        for run in self.runs.values():
            run.chunks.clear()

    def forget_runs(self) -> None:
        """Lose every run, and what their messages say of them."""
        self.runs.clear()
        self.forget_otids()

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._gate], client_max_size=64 * 1024 * 1024)
        for method, path, handler in self._routes():
            app.router.add_route(method, f"/v1{path}", handler)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [run.task for run in self.runs.values() if run.task and not run.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    def _routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("GET", "/agents/", self._list_agents),
            ("POST", "/agents/", self._create_agent),
            ("GET", "/agents/{agent_id}", self._get_agent),
            ("PATCH", "/agents/{agent_id}", self._update_agent),
            ("DELETE", "/agents/{agent_id}", self._delete_agent),
            ("GET", "/models/", self._list_models),
            ("POST", "/conversations/", self._create_conversation),
            ("GET", "/conversations/{conversation_id}/messages", self._list_messages),
            ("POST", "/conversations/{conversation_id}/messages", self._send_message),
            ("POST", "/conversations/{conversation_id}/cancel", self._cancel),
            ("GET", "/runs/", self._list_runs),
            ("GET", "/runs/{run_id}", self._get_run),
            ("GET", "/runs/{run_id}/messages", self._list_run_messages),
            ("POST", "/runs/{run_id}/stream", self._stream_run),
        ]

    @web.middleware
    async def _gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        text = await request.text()
        body = read_object(text)
        self.requests.append(Request(request.method, request.path, dict(request.query), body))
        fault = due(self._faults, f"{request.method} {request.path}")
        if fault is not None and not fault.takes_effect:
            return failed(request, fault)
        expected = f"Bearer {self.key}" if self.key else ""
        if request.headers.get("Authorization", "") != expected:
            return error(401, "Unauthorized")
        for value in request.match_info.values():
            if not _ID.fullmatch(value):
                return error(422, "String should match pattern '...-uuid4'")
        if fault is not None:
            await handler(request)
            return failed(request, fault)
        return await handler(request)

    async def _list_agents(self, request: web.Request) -> web.Response:
        check_query(request, AgentListParams)
        by = request.query.get("order_by", "created_at")
        agents = sorted(self.agents.values(), key=lambda agent: str(agent[by] or ""))
        return page_of(request, agents, PAGE, "desc")

    async def _create_agent(self, request: web.Request) -> web.Response:
        body = await read_body(request, AgentCreateParams)
        if (model := body.get("model", MODELS[0])) not in MODELS:
            return error(404, f"Handle {model} not found, must be one of {list(MODELS)}")
        agent_id = self.add_agent(text_field(body, "name"), model)
        self.agents[agent_id]["description"] = body.get("description")
        return web.json_response(self.agents[agent_id])

    async def _get_agent(self, request: web.Request) -> web.Response:
        return web.json_response(self._agent(request.match_info["agent_id"]))

    async def _update_agent(self, request: web.Request) -> web.Response:
        body = await read_body(request, AgentUpdateParams)
        agent = self._agent(request.match_info["agent_id"])
        if (model := body.get("model", MODELS[0])) not in MODELS:
            return error(404, f"Handle {model} not found, must be one of {list(MODELS)}")
        agent |= {**body, "updated_at": now()}
        return web.json_response(agent)

    async def _delete_agent(self, request: web.Request) -> web.Response:
        self.remove_agent(self._agent(request.match_info["agent_id"])["id"])
        return web.json_response({"message": "Agent deleted"})

    async def _list_models(self, _: web.Request) -> web.Response:
        return web.json_response([{"handle": handle, "name": handle[6:]} for handle in MODELS])

    async def _create_conversation(self, request: web.Request) -> web.Response:
        check_keys(request.query, {"agent_id"}, "query")
        allowed = set(ConversationCreateParams.__annotations__) - {"agent_id"}
        body = read_object(await request.text())
        check_keys(body, allowed, "body")
        if "agent_id" not in request.query:
            return error(422, [{"loc": ["query", "agent_id"], "msg": "Field required"}])
        agent = self._agent(request.query["agent_id"])
        made = Conversation(agent["id"], title=body.get("summary"))
        self.conversations[made.id] = made
        return web.json_response(made.as_json())

    async def _list_messages(self, request: web.Request) -> web.Response:
        check_query(request, MessageListParams)
        return page_of(request, self._conversation(request).messages, RUN_PAGE, "desc")

    async def _send_message(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, MessageCreateParams)
        prompt = read_prompt(body)
        conversation = self._conversation(request)
        self.bodies.append(body)
        if not (body.get("streaming", True) and body.get("stream_tokens")):
            return error(422, "the fake streams tokens or nothing")
        background = body.get("background") is True
        if background and self.without_redis:
            return error(503, "Background streaming requires Redis to be running.")
        run = self._by_otid.get(str(prompt.get("otid"))) if background else None
        if run is None:
            if conversation.running is not None:
                detail = "Cannot send a new message: another request is being processed"
                return error(409, detail, run_id=conversation.running.id)
            if (refusal := refusal_of(conversation, prompt)) is None:
                run = self._begin(conversation, prompt, background=background)
            elif refusal.status == 409 and self.refuses_in_stream:
                run = fake_letta_runs.refused_run(conversation, prompt)
            else:
                return refusal
            if background and prompt.get("otid"):
                self._by_otid[str(prompt["otid"])] = run
        self.runs.setdefault(run.id, run)
        return await self._stream(request, run, body)

    async def _cancel(self, request: web.Request) -> web.Response:
        check_query(request, ConversationCancelParams)
        run = self._conversation(request).running
        if run is None or run.task is None:
            return error(409, "No active runs to cancel")
        run.task.cancel()
        await asyncio.wait([run.task])
        return web.json_response({run.id: "cancelled"})

    async def _list_runs(self, request: web.Request) -> web.Response:
        check_query(request, RunListParams)
        runs = [run.as_json() for run in self.runs.values()]
        runs = [run for run in runs if request.query.get("agent_id") in (None, run["agent_id"])]
        return page_of(request, runs, RUN_PAGE, "desc")

    async def _get_run(self, request: web.Request) -> web.Response:
        return web.json_response(self._run(request).as_json())

    async def _list_run_messages(self, request: web.Request) -> web.Response:
        check_query(request, RunMessageListParams)
        run = self._run(request)
        return page_of(request, run.messages if run.ended else [], RUN_PAGE, "asc")

    async def _stream_run(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, MessageStreamParams)
        run = self._run(request)
        if not run.background:
            return error(400, "Run was not created in background mode, so it cannot be retrieved.")
        if self.without_redis:
            return error(503, "Background streaming requires Redis to be running.")
        return await self._stream(request, run, body)

    def _begin(self, conversation: Conversation, prompt: Json, *, background: bool = True) -> Run:
        run = Run(conversation, prompt, background)
        self.runs[run.id] = conversation.running = run
        if prompt.get("type") != "approval":
            self.prompts.append(message_text(prompt["content"]))
        run.task = asyncio.create_task(self._play(run))
        return run

    async def _play(self, run: Run) -> None:
        await Script(run, self.approvals, self.steps).play()
        if (agent := self.agents.get(run.conversation.agent_id)) is not None:
            agent |= {"last_run_completion": now(), "updated_at": now()}

    async def _stream(self, request: web.Request, run: Run, body: Json) -> web.StreamResponse:
        """A run's stream from its beginning, or after `starting_after`."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        cut, self.cut_after = self.cut_after, None
        garbage, self.garbage_after = self.garbage_after, None
        place = 0
        while place not in (cut, garbage) and await self._next_chunk(response, run, body, place):
            place += 1
        if place == garbage:
            await response.write(GARBAGE)
        if place in (cut, garbage) and request.transport is not None:
            request.transport.abort()
        return response

    async def _next_chunk(
        self, response: web.StreamResponse, run: Run, body: Json, place: int
    ) -> bool:
        while len(run.chunks) <= place or self.silent:
            changed = run.changed
            try:
                async with asyncio.timeout(self.ping_every):
                    await changed.wait()
            except TimeoutError:
                if body.get("include_pings") and not self.silent:
                    ping = {"message_type": "ping", "id": new_id("ping"), "run_id": run.id}
                    await response.write(f"data: {json.dumps(ping)}\n\n".encode())
        chunk = run.chunks[place]
        if fake_letta_runs.seq_of(chunk) > int(body.get("starting_after") or 0):
            await response.write(chunk.encode())
        return chunk != DONE

    def _agent(self, agent_id: str) -> Json:
        if agent_id not in self.agents:
            raise refuse(404, "Agent not found")
        return self.agents[agent_id]

    def _conversation(self, request: web.Request) -> Conversation:
        conversation_id = request.match_info["conversation_id"]
        if conversation_id not in self.conversations:
            raise refuse(404, f"Conversation {conversation_id} not found")
        return self.conversations[conversation_id]

    def _run(self, request: web.Request) -> Run:
        run_id = request.match_info["run_id"]
        if run_id not in self.runs:
            raise refuse(404, f"Run with id {run_id} not found")
        return self.runs[run_id]


async def _serve(port: int) -> None:
    async with FakeLettaApi(port) as server:
        server.add_agent("Alpha")
        print(server.url, "key:", server.key, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_serve(parser.parse_args().port))
