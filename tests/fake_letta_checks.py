"""How strict the fake Letta API is: bodies, queries and pages as its description says."""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web
from letta_client.types import MessageCreateParam
from letta_client.types.agents import ApprovalCreateParam
from tests.fake_letta_runs import Conversation, Json


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    body: Json

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(slots=True)
class Fault:
    """What happens to requests whose `METHOD path` matches; status 0 hangs up."""

    pattern: re.Pattern[str]
    status: int
    times: int
    headers: dict[str, str]
    body: str
    takes_effect: bool
    skip: int = 0


def due(faults: Iterable[Fault], line: str) -> Fault | None:
    """The fault that a request meets, used up by one."""
    for fault in faults:
        if not fault.times or not fault.pattern.fullmatch(line):
            continue
        if not fault.skip:
            fault.times -= 1
            return fault
        fault.skip -= 1
    return None


def refusal_of(conversation: Conversation, prompt: Json) -> web.Response | None:
    """What speaks against a message: a call that waits, or none that does."""
    waiting = [call["tool_call_id"] for call in conversation.pending]
    if prompt.get("type") != "approval":
        detail = {"code": "PENDING_APPROVAL", "message": "The agent is waiting for approval"}
        return error(409, detail) if waiting else None
    if not waiting:
        return error(400, "No tool call is currently awaiting approval.")
    given = [item["tool_call_id"] for item in prompt["approvals"]]
    if sorted(given) != sorted(waiting):
        return error(400, f"Invalid tool call IDs. Expected {waiting}, but received {given}.")
    return None


def read_prompt(body: Json) -> Json:
    """The one message of a body, checked against the client's types."""
    messages = body.get("messages")
    if not isinstance(messages, list) or len(cast("list[object]", messages)) != 1:
        raise refuse(422, "Messages must hold one message")
    prompt = cast("Json", messages[0])
    if prompt.get("type") == "approval":
        check_keys(prompt, ApprovalCreateParam.__annotations__, "messages.0")
        for item in cast("list[Json]", prompt.get("approvals") or [{}]):
            check_keys(item, {"type", "approve", "tool_call_id", "reason"}, "approvals")
            if not isinstance(item.get("approve"), bool) or not item.get("tool_call_id"):
                raise refuse(422, "an approval needs approve and tool_call_id")
        return prompt
    check_keys(prompt, MessageCreateParam.__annotations__, "messages.0")
    if prompt.get("role") not in ("user", "system", "assistant") or not prompt.get("content"):
        raise refuse(422, "a message needs role and content")
    if not isinstance(prompt["content"], str):
        _check_parts(cast("list[Json]", prompt["content"]))
    return prompt


def _check_parts(parts: Iterable[Json]) -> None:
    for part in parts:
        source = part.get("source", {})
        text = part.get("type") == "text" and isinstance(part.get("text"), str)
        image = part.get("type") == "image" and {"type", "media_type", "data"} <= set(source)
        if not text and not image:
            raise refuse(422, "a part is a text, or an image with a source")


async def read_body(request: web.Request, params: Any) -> Json:
    """A body whose fields the client's type knows."""
    body = read_object(await request.text())
    check_keys(body, params.__annotations__, "body")
    return body


def check_query(request: web.Request, params: Any) -> None:
    check_keys(request.query, params.__annotations__, "query")


def check_keys(given: Iterable[str], known: Collection[str], where: str) -> None:
    if unknown := [key for key in given if key not in known]:
        loc = [{"loc": [where, key], "msg": "Extra inputs are not permitted"} for key in unknown]
        raise refuse(422, loc)


def text_field(body: Json, name: str) -> str:
    if not isinstance(body.get(name), str) or not body[name]:
        raise refuse(422, [{"loc": ["body", name], "msg": "Input should be a valid string"}])
    return str(body[name])


def page_of(request: web.Request, items: list[Json], limit: int, order: str) -> web.Response:
    """A page: `after` and `before` are ids, and mean the order that is asked for."""
    listed = items if request.query.get("order", order) == "asc" else items[::-1]
    for name in ("after", "before"):
        if (cursor := request.query.get(name)) is None:
            continue
        places = [index for index, item in enumerate(listed) if item["id"] == cursor]
        if not places:
            return error(404, f"No result found for cursor {cursor}")
        listed = listed[places[-1] + 1 :] if name == "after" else listed[: places[0]]
    return web.json_response(listed[: int(request.query.get("limit", limit))])


def read_object(text: str) -> Json:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        raise refuse(422, "JSON decode error") from None
    if not isinstance(value, dict):
        raise refuse(422, "Input should be a valid dictionary")
    return cast("Json", value)


def error(status: int, detail: object, **more: str) -> web.Response:
    return web.json_response({"detail": detail, **more}, status=status)


def refuse(status: int, detail: object) -> web.HTTPException:
    class Refusal(web.HTTPException):
        status_code = status

    return Refusal(text=json.dumps({"detail": detail}), content_type="application/json")


def failed(request: web.Request, fault: Fault) -> web.Response:
    """The answer of a fault."""
    if not fault.status and request.transport is not None:
        request.transport.abort()
    content_type = "application/json" if fault.body.startswith(("{", "[")) else "text/html"
    return web.Response(
        text=fault.body,
        status=fault.status or 500,
        headers=fault.headers,
        content_type=content_type,
    )
