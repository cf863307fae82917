"""Errors as problem documents (RFC 9457), each with a `type` that never changes."""

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from letta_matrix.access.authenticator import IdentityUnavailable, TooOften, Unauthorized
from letta_matrix.access.faults import ToolError
from letta_matrix.access.guard import PROBLEMS as TYPES
from letta_matrix.access.metadata import challenge
from letta_matrix.doors.web.in_flight import TooMuchInFlight
from letta_matrix.operations.records import StoreUnavailable
from letta_matrix.operations.toolbox.results import cut

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: its HTTP status, its title, and when it comes."""

    status: int
    title: str
    meaning: str


PROBLEMS: Mapping[str, Kind] = {
    "malformed-body": Kind(400, "Malformed body", "The body is no JSON, or no valid UTF-8."),
    "token-in-url": Kind(400, "Token in the URL", "Tokens belong in the Authorization header."),
    "foreign-homeserver": Kind(
        400, "Another homeserver", "`homeserver` names another one than the bridge's."
    ),
    "host-missing": Kind(400, "Bad Request", "The request has no Host header."),
    "unauthorized": Kind(
        401, "Not authorized", "There is no token, or one that is not known, revoked or expired."
    ),
    "login-failed": Kind(401, "Login failed", "The homeserver does not accept the login."),
    "forbidden": Kind(
        403, "Forbidden", "The token's scopes or rooms, or the room itself, do not allow it."
    ),
    "origin-refused": Kind(403, "Forbidden", "The web page may not call this API."),
    "not-found": Kind(404, "Not found", "There is nothing of this name, or no such path."),
    "unknown-tool": Kind(404, "Unknown tool", "There is no tool of this name."),
    "method-not-allowed": Kind(405, "Method not allowed", "`Allow` lists what the path takes."),
    "ambiguous": Kind(409, "Ambiguous", "Several match; the detail lists them."),
    "conflict": Kind(
        409, "Conflict", "It does not fit what is there, or the idempotency key was used before."
    ),
    "refused": Kind(409, "Refused", "The homeserver or the runtime refuses it."),
    "turn-stopped": Kind(
        409, "Turn stopped", "Somebody stopped the agent's turn, or it was left unanswered."
    ),
    "gone": Kind(410, "Gone", "It is not offered any more; the detail says why."),
    "too-large": Kind(413, "Too large", "The body, or a part of it, is too large."),
    "unsupported-media-type": Kind(
        415, "Unsupported media type", "The body is JSON; its `Content-Type` has to say so."
    ),
    "host-refused": Kind(421, "Misdirected Request", "The Host header names somebody else."),
    "invalid-arguments": Kind(
        422, "Invalid arguments", "The detail names each field and what it should be."
    ),
    "rate-limited": Kind(429, "Rate limited", "Come back after `Retry-After` seconds."),
    "failed": Kind(500, "Failed", "A defect of the bridge; its log has the reason."),
    "agent-failed": Kind(502, "Agent failed", "Its turn failed; the detail says why."),
    "unavailable": Kind(
        503,
        "Unavailable",
        "The homeserver, a runtime or the database is away, or too much arrives; try again.",
    ),
    "timeout": Kind(
        504,
        "Timed out",
        "It took too long, or another homeserver did not answer. It may have happened or not: send "
        "it again with the same key.",
    ),
}
"""By the last part of `type`; the only place that names statuses."""

_BY_STATUS = {
    400: "malformed-body",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
}
_NO_DATABASE = "The bridge's database does not answer now. Try again in a minute."
_NO_PATH = "There is nothing at this path. /docs lists what there is."
_SHOWN = 20
_USUAL_WAIT = 10.0


class ProblemDocument(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(title="Problem", extra="allow")

    type: str = Field(description="the kind of problem; it never changes")
    title: str
    status: int
    detail: str = Field(description="what went wrong here, and what to do")


@dataclass
class Problem(Exception):
    """A request that cannot be carried out. `slug` is a key of PROBLEMS."""

    slug: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    more: Mapping[str, object] = field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        super().__init__(self.detail)


_EXPECTED = (
    *(Problem, ToolError, Unauthorized, TooOften),
    *(StoreUnavailable, TooMuchInFlight, ClientDisconnect),
)


def response(problem: Problem, request: Request | None = None) -> Response:
    """The problem as a response; on compatible paths with their own fields beside."""
    kind = PROBLEMS[problem.slug]
    body: dict[str, object] = {
        "type": TYPES + problem.slug,
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail,
        **problem.more,
    }
    if getattr(getattr(request, "state", None), "compatible", False):
        body |= {"success": False, "message": problem.detail}
    data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    usual = _retry_after(_USUAL_WAIT) if kind.status == 503 else {}
    return Response(data, kind.status, {**usual, **problem.headers}, MEDIA_TYPE)


def _documented(kind: Kind) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    entry: dict[str, Any] = {
        "description": kind.title,
        "content": {MEDIA_TYPE: {"schema": schema, "examples": {}}},
    }
    if kind.status in (429, 503):
        described = "seconds after which another try makes sense"
        entry["headers"] = {"Retry-After": {"description": described, "schema": {"type": "string"}}}
    return entry


def may(*slugs: str) -> dict[int | str, dict[str, Any]]:
    """What an endpoint documents (`responses=`): the problems that it may answer with."""
    documented: dict[int | str, dict[str, Any]] = {}
    for slug in slugs:
        kind = PROBLEMS[slug]
        entry = documented.setdefault(kind.status, _documented(kind))
        example = {
            "type": TYPES + slug,
            "title": kind.title,
            "status": kind.status,
            "detail": kind.meaning,
        }
        entry["content"][MEDIA_TYPE]["examples"][slug] = {"value": example}
    return documented


COMMON = may(
    "malformed-body",
    "token-in-url",
    "unauthorized",
    "forbidden",
    "origin-refused",
    "too-large",
    "unsupported-media-type",
    "host-refused",
    "invalid-arguments",
    "rate-limited",
    "failed",
    "unavailable",
)
"""What every endpoint that needs a token may answer with."""

FROM_TOOLS = may(
    "forbidden",
    "not-found",
    "ambiguous",
    "conflict",
    "refused",
    "too-large",
    "invalid-arguments",
    "unavailable",
    "timeout",
)
"""What endpoints that call a tool may answer with besides."""


def install(app: FastAPI) -> None:
    """Let `app` answer every error with a problem document."""
    for error in _EXPECTED:
        app.add_exception_handler(error, _answered)
    handlers: list[tuple[type[Exception], Any]] = [
        (RequestValidationError, _invalid),
        (HTTPException, _http),
    ]
    for error, handler in handlers:
        app.add_exception_handler(error, handler)


def problem_of(error: Exception) -> Problem:
    """What is answered to a fault that may happen; any other is raised again."""
    match error:
        case Problem():
            return error
        case ToolError():
            return Problem(str(error.fault), str(error), _retry_after(error.retry_after))
        case IdentityUnavailable():
            return Problem("unavailable", str(error))
        case Unauthorized():
            return Problem("unauthorized", str(error), {"WWW-Authenticate": challenge(error)})
        case TooOften():
            return Problem("rate-limited", str(error), _retry_after(error.retry_after))
        case TooMuchInFlight():
            return Problem("unavailable", str(error), _retry_after(error.retry_after))
        case StoreUnavailable():
            return Problem("unavailable", _NO_DATABASE)
        case ClientDisconnect():
            return Problem("malformed-body", "The body ended too early.")
        case _:
            raise error


def broken(error: Exception, method: str, path: str) -> Problem:
    """What a defect of ours looks like from outside; the log gets the rest."""
    log.error("a request failed", method=method, path=cut(path, 200), exc_info=error)
    return Problem("failed", "This failed, by a fault of the bridge; its log has the reason.")


async def _answered(request: Request, error: Exception) -> Response:
    return response(problem_of(error), request)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    told = list(error.errors())
    if any(fault["type"] == "json_invalid" for fault in told):
        return response(Problem("malformed-body", "The body is not valid JSON."), request)
    faults = [
        {"where": cut(".".join(str(part) for part in fault["loc"]), 100), "fault": _said(fault)}
        for fault in told[:_SHOWN]
    ]
    detail = "; ".join(f"{fault['where']}: {fault['fault']}" for fault in faults[:5])
    return response(Problem("invalid-arguments", detail, more={"faults": faults}), request)


async def _http(request: Request, error: HTTPException) -> Response:
    slug = _BY_STATUS.get(error.status_code, "failed")
    detail, headers = str(error.detail), dict(error.headers or {})
    if slug == "not-found" and detail == "Not Found":
        detail = _NO_PATH
    if slug == "method-not-allowed":
        allowed = ", ".join(await asyncio.to_thread(_methods, request))
        detail, headers = f"This path takes {allowed}.", {"Allow": allowed}
    if slug == "malformed-body":
        detail = "The body cannot be read: it should be JSON in UTF-8."
    return response(Problem(slug, detail, headers), request)


def _methods(request: Request) -> list[str]:
    """What the path of a request takes: each method may have a route of its own."""
    paths: Mapping[str, Mapping[str, Any]] = request.app.openapi()["paths"]
    taken = set[str]()
    for template, methods in paths.items():
        if compile_path(template)[0].match(request.scope["path"]):
            taken |= {method.upper() for method in methods}
    return sorted(taken)


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(math.ceil(seconds))} if seconds > 0 else {}


def _said(fault: Mapping[str, Any]) -> str:
    said = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return cut(said, 300)
