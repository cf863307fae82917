"""Talking to an agent: say something and get its answer, whole or as it grows."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from pydantic import Field

from letta_matrix.access.authenticator import TooOften, Unauthorized
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.doors.rest import presence, problems
from letta_matrix.doors.rest.agents import KnownAgent
from letta_matrix.doors.rest.calling import IdempotencyKey, Json, call, given_once
from letta_matrix.doors.rest.event_stream import STREAM, EventStream, event, framed
from letta_matrix.doors.rest.following import Following, answer_of
from letta_matrix.doors.rest.presence import Presence
from letta_matrix.doors.rest.problems import FROM_TOOLS, Problem, may
from letta_matrix.doors.rest.routing import WriteBody, router_for
from letta_matrix.doors.rest.security import Api, Holder, follows, needs
from letta_matrix.doors.rest.services import Services
from letta_matrix.operations.records import Agent, Approval, StoreUnavailable, turn_id_of
from letta_matrix.operations.toolbox.tool import Markdown
from letta_matrix.operations.types import Answer

router = router_for("agents")

_JSON_WAIT, _STREAM_WAIT, _LONGEST_WAIT = 120.0, 1800.0, 3600.0
_NOT_YET = "The agent has not answered in time; ask again with the same `Idempotency-Key`."

_EVENTS = (
    'event: accepted\ndata: {"event_id":"$KfSW...","turn_id":"turn-0b3f..."}\n\n'
    'event: text\ndata: {"text":"All is"}\n\n'
    'event: done\ndata: {"answer":"All is well.","event_id":"$ZJ5X..."}\n\n'
)
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `Accept: text/event-stream` as it grows",
        "content": {STREAM: {"schema": {"type": "string"}, "example": _EVENTS}},
    },
    202: {"description": "It is sent and not answered yet"},
}


class Message(WriteBody):
    message: Markdown = Field(description="what to say, as Markdown")


_RESPONSES[200]["model"] = _RESPONSES[202]["model"] = Answer


@router.post(
    "/agents/{agent_id}/messages",
    dependencies=[Depends(follows)],
    response_model=None,
    responses=FROM_TOOLS | may("agent-failed", "turn-stopped") | _RESPONSES,
    openapi_extra=needs(Scope.AGENTS),
)
async def say_to_agent(
    request: Request,
    holder: Holder,
    api: Api,
    agent: KnownAgent,
    body: Message,
    wait: Annotated[
        float | None,
        Query(ge=0, le=_LONGEST_WAIT, description="seconds; default: 120, for a stream 1800"),
    ] = None,
    key: IdempotencyKey = "",
) -> Response:
    """Say something to an agent in its own room, and get its answer.

    With `Accept: text/event-stream` the answer comes as server-sent events: `accepted`, then
    `text` with the whole text so far whenever it has grown, `approval` when the agent waits for
    one, and at the end `done`, or `error` with a problem document. The agent goes on when the
    client goes away. The same request, sent again with the same `Idempotency-Key`, says nothing a
    second time: it follows the same turn.
    """
    said = await _say(api, holder, agent, body.message, given_once(body.transaction_id, key))
    if STREAM in request.headers.get("Accept", ""):
        seconds = _STREAM_WAIT if wait is None else wait
        return EventStream(_events(Presence(request), api, agent, said, seconds))
    return await _whole(request, api, agent, said, _JSON_WAIT if wait is None else wait)


@router.get(
    "/agents/{agent_id}/messages",
    response_model=dict[str, Any],
    responses=FROM_TOOLS,
    openapi_extra=needs(Scope.READ),
)
async def list_agent_messages(
    holder: Holder,
    api: Api,
    agent: KnownAgent,
    limit: Annotated[int, Query(ge=1, le=50)] = 10,
    before: Annotated[str, Query(max_length=1_000, description="for older messages")] = "",
) -> Json:
    """The newest messages of an agent's own room, oldest first."""
    if agent.room_id is None:
        raise Problem("not-found", f"{agent.name} has no room yet; try again in a minute.")
    wanted = {"room_id": agent.room_id, "limit": limit, "before": before}
    return Json(await call(api, holder, "matrix_read_room", wanted))


async def _say(
    api: Services, holder: Principal, agent: Agent, message: str, transaction_id: str
) -> dict[str, Any]:
    """Say it, once; what is known of it then."""
    if agent.room_id is not None and not holder.may_act_in(agent.room_id):
        raise Problem("forbidden", f"Your token is not for the room of {agent.name}.")
    arguments: dict[str, object] = {"agent": agent.agent_id, "message": message, "wait_seconds": 0}
    told = await call(api, holder, "message_agent", arguments, transaction_id)
    event_id = str(told["event_id"])
    return {
        "agent_id": agent.agent_id,
        "room_id": told["room_id"],
        "event_id": event_id,
        "turn_id": turn_id_of(event_id, agent.agent_id),
        "answer": None,
        "answer_event_id": None,
    }


async def _whole(
    request: Request, api: Services, agent: Agent, said: dict[str, Any], seconds: float
) -> Json:
    following, caller = Following(api, agent, said["turn_id"]), Presence(request)
    async with aclosing(following.news(seconds, presence.EVERY)) as news:
        async for _ in news:
            if await request.is_disconnected():
                break
            await caller.confirm()
    if not await following.is_over():
        return Json(said, 202, {"Location": f"/api/v1/turns/{said['turn_id']}"})
    answered = await answer_of(api, said["turn_id"])
    return Json({**said, "answer": answered.answer, "answer_event_id": answered.event_id})


async def _events(
    caller: Presence, api: Services, agent: Agent, said: dict[str, Any], seconds: float
) -> AsyncGenerator[bytes]:
    yield event("accepted", {name: said[name] for name in ("event_id", "turn_id")})
    following = Following(api, agent, said["turn_id"])
    try:
        async with aclosing(following.news(seconds, presence.EVERY)) as news:
            async for one in news:
                await caller.confirm()
                yield _told(one)
        if not await following.is_over():
            raise Problem("timeout", _NOT_YET)
        answered = await answer_of(api, said["turn_id"])
        yield event("done", {"answer": answered.answer, "event_id": answered.event_id})
    except (Problem, Unauthorized, TooOften, StoreUnavailable) as error:
        yield framed("error", bytes(problems.response(problems.problem_of(error)).body))


def _told(news: str | Approval | None) -> bytes:
    match news:
        case None:
            return b": it goes on\n\n"
        case str():
            return event("text", {"text": news})
        case Approval():
            shown = {"key": news.key, "tool": news.tool, "arguments": dict(news.arguments)}
            return event("approval", shown)
