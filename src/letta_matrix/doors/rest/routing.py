"""What the endpoints have in common: where they are, what they take and give."""

from enum import Enum
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from letta_matrix.doors.rest.problems import COMMON
from letta_matrix.doors.rest.security import Protected

PREFIX = "/api/v1"


class WriteBody(BaseModel):
    """What is sent to change something; nothing but the declared fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transaction_id: Annotated[str, StringConstraints(max_length=200, pattern=r"^[\x21-\x7e]*$")] = (
        Field("", description="the same as the header `Idempotency-Key`")
    )


class Answer(BaseModel):
    """What is answered."""

    model_config = ConfigDict(frozen=True)


def router_for(tag: str = "") -> APIRouter:
    """A router under `/api/v1` whose endpoints need a token."""
    tags: list[str | Enum] | None = [tag] if tag else None
    return APIRouter(prefix=PREFIX, tags=tags, route_class=Protected, responses=COMMON)
