"""What the endpoints have in common: where they are, what they take and give."""

from functools import cache
from typing import Annotated, TypeVar, cast, get_args, get_type_hints

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from letta_matrix.doors.rest.problems import COMMON
from letta_matrix.doors.rest.security import Protected

PREFIX = "/api/v1"


class Body(BaseModel):
    """What is sent; nothing but the declared fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WriteBody(Body):
    """What is sent to change something."""

    transaction_id: Annotated[str, StringConstraints(max_length=200, pattern=r"^[\x21-\x7e]*$")] = (
        Field("", description="the same as the header `Idempotency-Key`")
    )


class Answer(BaseModel):
    """What is answered."""

    model_config = ConfigDict(frozen=True)


Kind = TypeVar("Kind")


def told(kind: type[Kind], row: object, **further: object) -> Kind:
    """What is stored as the API answers it: the fields of a TypedDict, "" for nothing as null
    where that is allowed; those that are not stored so are `further`."""
    found = {name: getattr(row, name) for name in _fields(kind) if name not in further}
    nullable = {name for name, of in _fields(kind).items() if type(None) in get_args(of)}
    empty = {name: None for name in nullable if found.get(name) == ""}
    return cast("Kind", {**found, **empty, **further})


_fields = cache(get_type_hints)

Limit = Annotated[int, Query(ge=1, le=200, description="how many at most")]
After = Annotated[
    str | None, Query(max_length=1_000, description="`next` of an earlier answer, to go on")
]


def router_for(tag: str) -> APIRouter:
    """A router under `/api/v1` whose endpoints need a token."""
    return APIRouter(prefix=PREFIX, tags=[tag], route_class=Protected, responses=COMMON)
