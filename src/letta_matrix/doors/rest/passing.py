"""Endpoints that only pass on: what they take are a tool's arguments, what they give its result."""

import re
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature, signature
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

from letta_matrix.doors.rest.calling import IdempotencyKey, Json, call, given_once
from letta_matrix.doors.rest.paths import EventOfPath, RoomOfPath
from letta_matrix.doors.rest.problems import FROM_TOOLS
from letta_matrix.doors.rest.routing import WriteBody
from letta_matrix.doors.rest.security import Api, Holder
from letta_matrix.toolbox.tool import made

_OF_PATH: Mapping[str, Any] = {"room": RoomOfPath, "event_id": EventOfPath}
_ROOM_FIELDS = ("room_id", "room_id_or_alias")
"""What tools call the room that a path has."""


def passing(
    router: APIRouter, method: str, path: str, run: Callable[..., Any], *, status: int = 200
) -> Callable[[Callable[[], None]], None]:
    """Declares an endpoint that calls the tool `run`, by a function that has its name and its
    docstring. Arguments that are not in the path come in the query, or in the body of what
    changes something."""
    tool = made(run)
    fields = dict(tool.params.model_fields)
    named = {
        name: next(one for one in _ROOM_FIELDS if one in fields) if name == "room" else name
        for name in re.findall(r"{(\w+)}", path)
    }
    for name in ("transaction_id", *named.values()):
        fields.pop(name, None)

    def declare(declared: Callable[[], None]) -> None:
        async def endpoint(holder: Holder, api: Api, key: str = "", **given: Any) -> Json:
            body: BaseModel | None = given.pop("body", None)
            wanted = {named.get(name, name): value for name, value in given.items()}
            if body is not None:
                wanted |= body.model_dump(exclude_none=True, exclude_unset=True)
            once = given_once(wanted.pop("transaction_id", ""), key)
            return Json(await call(api, holder, tool.name, wanted, once), status)

        own = signature(endpoint).parameters
        taken = [own["holder"], own["api"], *(_parameter(name, _OF_PATH[name]) for name in named)]
        if method in ("GET", "DELETE"):
            taken += [_of_query(name, field) for name, field in fields.items()]
        elif fields:
            title = declared.__name__.title().replace("_", "")
            parts: dict[str, Any] = {name: (one.annotation, one) for name, one in fields.items()}
            taken.append(_parameter("body", create_model(title, __base__=WriteBody, **parts)))
        if method != "GET":
            taken.append(own["key"].replace(annotation=IdempotencyKey))
        kind = Parameter.KEYWORD_ONLY
        endpoint.__dict__["__signature__"] = Signature([one.replace(kind=kind) for one in taken])
        endpoint.__name__, endpoint.__doc__ = declared.__name__, declared.__doc__
        options: dict[str, Any] = {"status_code": status, "response_model": tool.result}
        router.add_api_route(path, endpoint, methods=[method], responses=FROM_TOOLS, **options)

    return declare


def _of_query(name: str, field: FieldInfo) -> Parameter:
    described = (*field.metadata, Query(description=field.description))
    default = Parameter.empty if field.is_required() else field.default
    return _parameter(name, Annotated.__class_getitem__((field.annotation, *described)), default)  # pyright: ignore


def _parameter(name: str, annotation: Any, default: Any = Parameter.empty) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
