"""Errors as problem documents (RFC 9457), each with a `type` that never changes."""

import math
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from letta_matrix.access.authenticator import TooOften, Unauthorized
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.toolbox.faults import Fault, ToolError

TYPES = "https://letta-matrix.dev/problems/"
MEDIA_TYPE = "application/problem+json"

_STATUS = {
    Fault.INVALID: 422,
    Fault.UNKNOWN_TOOL: 404,
    Fault.NOT_FOUND: 404,
    Fault.AMBIGUOUS: 409,
    Fault.FORBIDDEN: 403,
    Fault.CONFLICT: 409,
    Fault.TOO_LARGE: 413,
    Fault.RATE_LIMITED: 429,
    Fault.REFUSED: 409,
    Fault.UNAVAILABLE: 503,
    Fault.TIMEOUT: 504,
    Fault.FAILED: 500,
}


class Problem(Exception):
    """A request that cannot be carried out. `slug` ends the document's `type`."""

    def __init__(
        self, status: int, slug: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.headers = headers or {}


def response(problem: Problem, **more: Any) -> JSONResponse:
    """The problem as a response."""
    body = {
        "type": TYPES + problem.slug,
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        **more,
    }
    return JSONResponse(body, problem.status, problem.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let `app` answer every error with a problem document."""

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> JSONResponse:
        return response(error)

    @app.exception_handler(ToolError)
    async def tool(_: Request, error: ToolError) -> JSONResponse:
        headers: dict[str, str] = {}
        if error.retry_after > 0:
            headers["Retry-After"] = str(math.ceil(error.retry_after))
        return response(Problem(_STATUS[error.fault], str(error.fault), str(error), headers))

    @app.exception_handler(Unauthorized)
    async def unauthorized(_: Request, error: Unauthorized) -> JSONResponse:
        headers = {"WWW-Authenticate": "Bearer"}
        return response(Problem(401, "unauthorized", str(error), headers))

    @app.exception_handler(TooOften)
    async def too_often(_: Request, error: TooOften) -> JSONResponse:
        headers = {"Retry-After": str(math.ceil(error.retry_after))}
        return response(Problem(429, "rate-limited", str(error), headers))

    @app.exception_handler(StoreUnavailable)
    async def no_store(_: Request, __: StoreUnavailable) -> JSONResponse:
        detail = "The bridge's database does not answer now. Try again in a minute."
        return response(Problem(503, "unavailable", detail, {"Retry-After": "10"}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [
            {"where": ".".join(str(part) for part in fault["loc"]), "fault": str(fault["msg"])}
            for fault in error.errors()
        ]
        detail = "; ".join(f"{fault['where']}: {fault['fault']}" for fault in faults[:5])
        return response(Problem(422, "invalid-arguments", detail), faults=faults[:20])

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        slug = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        headers = dict(error.headers or {})
        return response(Problem(error.status_code, slug, str(error.detail), headers))
