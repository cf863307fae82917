"""Endpoints that only pass on: what they take are a tool's arguments, what they give its result."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from letta_matrix.api.calling import IdempotencyKey, Json, call, given_once
from letta_matrix.api.problems import FROM_TOOLS
from letta_matrix.api.security import Api, Holder

_NAMED_OTHERWISE: Mapping[str, str] = {"room": "room_id"}
"""Of an endpoint's parameters those that the tools call otherwise."""


def passing(
    router: APIRouter,
    method: str,
    path: str,
    tool: str,
    result: type[Any],
    *,
    status: int = 200,
    renamed: Mapping[str, str] = _NAMED_OTHERWISE,
) -> Callable[[Callable[..., None]], None]:
    """Declares an endpoint by a function that has its parameters, by the names of the tool's
    arguments (but for `renamed`), and its docstring; a `body` has several of them."""

    def declare(declared: Callable[..., None]) -> None:
        async def endpoint(holder: Holder, api: Api, key: str = "", **given: Any) -> Json:
            body: BaseModel | None = given.pop("body", None)
            wanted = {renamed.get(name, name): value for name, value in given.items()}
            if body is not None:
                wanted |= body.model_dump(exclude_none=True, exclude_unset=True)
            once = given_once(wanted.pop("transaction_id", ""), key)
            return Json(await call(api, holder, tool, wanted, once), status)

        _declare_as(endpoint, declared, takes_key=method != "GET")
        options: dict[str, Any] = {"status_code": status, "response_model": result}
        router.add_api_route(path, endpoint, methods=[method], responses=FROM_TOOLS, **options)

    return declare


def _declare_as(endpoint: Any, declared: Callable[..., None], *, takes_key: bool) -> None:
    """Let FastAPI read one function's parameters and words off another."""
    own = inspect.signature(endpoint).parameters
    of_declared = inspect.signature(declared).parameters.values()
    parameters = [own["holder"], own["api"], *of_declared]
    if takes_key:
        parameters.append(own["key"].replace(annotation=IdempotencyKey))
    kind = inspect.Parameter.KEYWORD_ONLY
    endpoint.__signature__ = inspect.Signature([one.replace(kind=kind) for one in parameters])
    endpoint.__name__, endpoint.__doc__ = declared.__name__, declared.__doc__
