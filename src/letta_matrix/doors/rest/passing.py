"""Endpoints that only pass on: what they take are the arguments of a tool or an operation, what
they give is its result. Those of operations are as each declares it."""

import re
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature, cleandoc
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

from letta_matrix.access.principal import Principal
from letta_matrix.doors.rest.agents import IdOfPath
from letta_matrix.doors.rest.calling import IdempotencyKey, Json, call, do, given_once
from letta_matrix.doors.rest.paths import EventOfPath, RoomOfPath
from letta_matrix.doors.rest.problems import FROM_TOOLS
from letta_matrix.doors.rest.routing import WriteBody, router_for
from letta_matrix.doors.rest.security import Api, Holder, holder_with, needs
from letta_matrix.operations.operation import Operation
from letta_matrix.operations.registry import every
from letta_matrix.operations.toolbox.tool import Tool, WriteParams, made

_OF_PATH: Mapping[str, Any] = {"room": RoomOfPath, "event_id": EventOfPath, "agent_id": IdOfPath}
_ROOM_FIELDS = ("room_id", "room_id_or_alias")
"""What tools call the room that a path has."""


def operations_router() -> APIRouter:
    """The operations that say where they are in this API, each under the first part of its path."""
    router = router_for()
    for one in every():
        if one.rest:
            _Endpoint(one, one.rest, one.called, one.run.__doc__ or "").add(router, one.status)
    return router


def passing(
    router: APIRouter, method: str, path: str, run: Callable[..., Any], *, status: int = 200
) -> Callable[[Callable[[], None]], None]:
    """Declares an endpoint that calls the tool `run`, by a function that has its name and its
    docstring."""

    def declare(declared: Callable[[], None]) -> None:
        rest, text = f"{method} {path}", declared.__doc__ or ""
        _Endpoint(made(run), rest, declared.__name__, text).add(router, status)

    return declare


class _Endpoint:
    """An endpoint for a tool or an operation. Arguments that are not in the path come in the
    query, or in the body of what changes something."""

    def __init__(self, tool: Tool[Any], rest: str, name: str, text: str) -> None:
        self._tool, self._name, self._text = tool, name, cleandoc(text)
        self._method, _, self._path = rest.partition(" ")
        self._fields = dict(tool.params.model_fields)
        self._named = {one: self._called(one) for one in re.findall(r"{(\w+)}", self._path)}
        """What the tool calls the parameters of the path."""

    def add(self, router: APIRouter, status: int) -> None:
        """Let a router have it; it answers with a status."""

        async def endpoint(holder: Principal, api: Api, once: str = "", **given: Any) -> Response:
            body: BaseModel | None = given.pop("body", None)
            wanted = {self._named.get(name, name): value for name, value in given.items()}
            if body is not None:
                wanted |= body.model_dump(exclude_unset=True)
            once = given_once(wanted.pop("transaction_id", ""), once)
            if not isinstance(self._tool, Operation):
                return Json(await call(api, holder, self._tool.name, wanted, once), status)
            done = await do(api, holder, self._tool.name, wanted, once)
            if self._tool.shows:
                meant = {name: wanted[name] for name in self._named.values()}
                done = await do(api, holder, self._tool.shows, meant)
            return Response(status_code=status) if status == 204 else Json(done, status)

        endpoint.__dict__["__signature__"] = Signature(self._taken())
        endpoint.__name__, endpoint.__doc__ = self._name, self._text
        shown = next((one for one in every() if one.name == getattr(self._tool, "shows", "")), None)
        router.add_api_route(
            self._path,
            endpoint,
            methods=[self._method],
            status_code=status,
            response_model=None if status == 204 else (shown or self._tool).result,
            responses=FROM_TOOLS,
            openapi_extra=needs(self._tool.scope) if self._tool.scope else None,
            tags=None if router.tags else [self._path.split("/")[1]],
        )

    def _called(self, name: str) -> str:
        return next(one for one in _ROOM_FIELDS if one in self._fields) if name == "room" else name

    def _taken(self) -> list[Parameter]:
        """What the endpoint takes: its token first, which is checked before all else."""
        params, scope = self._tool.params, self._tool.scope
        is_operation = isinstance(self._tool, Operation)
        checked = Annotated[Principal, Depends(holder_with(scope))] if scope else Holder
        taken = [_parameter("holder", checked if is_operation else Holder), _parameter("api", Api)]
        taken += [_parameter(name, self._of_path(name)) for name in self._named]
        left = {"transaction_id", *self._named.values()}
        fields = {name: one for name, one in self._fields.items() if name not in left}
        if self._method in ("GET", "DELETE"):
            taken += [_of_query(name, field) for name, field in fields.items()]
        elif fields:
            body = params if len(fields) == len(self._fields) else self._body(fields)
            # FastAPI takes none whose making is put off.
            body.model_config["defer_build"] = False
            body.model_rebuild()
            is_needed = not is_operation or any(one.is_required() for one in fields.values())
            taken.append(_parameter("body", body, Parameter.empty if is_needed else body()))
        if self._method != "GET" and (not is_operation or issubclass(params, WriteParams)):
            taken.append(_parameter("once", IdempotencyKey, ""))
        return taken

    def _body(self, fields: Mapping[str, FieldInfo]) -> type[BaseModel]:
        title, text = self._name.title().replace("_", ""), None
        if isinstance(self._tool, Operation):
            title, text = self._tool.params.__name__, self._tool.params.__doc__
        parts: dict[str, Any] = {name: (one.annotation, one) for name, one in fields.items()}
        return create_model(title, __base__=WriteBody, __doc__=text, **parts)

    def _of_path(self, name: str) -> Any:
        field = self._fields[self._named[name]]
        described = Path(description=field.description, examples=field.examples)
        return _OF_PATH.get(name) or _annotated(field, described)


def _of_query(name: str, field: FieldInfo) -> Parameter:
    default = Parameter.empty if field.is_required() else field.default
    return _parameter(name, _annotated(field, Query(description=field.description)), default)


def _annotated(field: FieldInfo, described: Any) -> Any:
    return Annotated.__class_getitem__((field.annotation, *field.metadata, described))  # pyright: ignore


def _parameter(name: str, annotation: Any, default: Any = Parameter.empty) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
