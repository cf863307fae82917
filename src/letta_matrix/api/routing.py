"""What the endpoints have in common: where they are, what they take and give."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from letta_matrix.api.problems import COMMON
from letta_matrix.api.security import Protected

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


Limit = Annotated[int, Query(ge=1, le=200, description="how many at most")]
After = Annotated[
    str | None, Query(max_length=1_000, description="`next` of an earlier answer, to go on")
]


def router_for(tag: str) -> APIRouter:
    """A router under `/api/v1` whose endpoints need a token."""
    return APIRouter(prefix=PREFIX, tags=[tag], route_class=Protected, responses=COMMON)
