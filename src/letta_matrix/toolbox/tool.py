"""What a tool is: a name, typed arguments, and what happens when somebody calls it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints
from pydantic.json_schema import GenerateJsonSchema

from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.store.places import Place

LONGEST_WAIT = 280.0
"""Seconds a tool may wait for somebody: the App Server gives a call 5 minutes at most."""

Result = Mapping[str, object]
"""What a call gives: a JSON object."""


class ToolError(Exception):
    """The call cannot be carried out; the text tells the caller why and what to do."""


class Params(BaseModel):
    """The arguments of a tool; none beside the declared ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)


P = TypeVar("P", bound=Params)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and from where: `turn_id` and `speaker` (who wrote the message) are those of
    the turn that the call belongs to, empty outside of the turns run here.

    `request_id` is of this call alone, and the same when it comes again. `refuses` tells of a
    room, in it or not, that it is not for the caller to act in.
    """

    agent_id: str
    intent: Intent
    request_id: str
    refuses: Callable[[Intent, str], Awaitable[bool]]
    conversation_id: str = ""
    place: Place | None = None
    turn_id: str = ""
    speaker: str = ""
    hops: int = 0

    @property
    def user_id(self) -> str:
        return self.intent.user_id

    async def rooms(self) -> list[str]:
        """The rooms it is in and may act in."""
        joined = await self.intent.joined_rooms()
        return [room_id for room_id in joined if not await self.refuses(self.intent, room_id)]

    def txn(self, *step: str | int) -> str:
        """The txn id of one step of this call: the same when the call comes again."""
        return txn_id("tool", self.agent_id, self.request_id, *step)


@dataclass(frozen=True, slots=True)
class Tool(Generic[P]):
    """A tool. `description` is one line for a model; `seconds` is how long a call may take, None
    where its arguments say so."""

    name: str
    title: str
    description: str
    params: type[P]
    run: Callable[[Caller, P], Awaitable[Result]]
    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False
    seconds: float | None = 60.0

    def parameters(self) -> dict[str, Any]:
        """The JSON Schema of its arguments."""
        schema = self.params.model_json_schema(schema_generator=_Untitled)
        return {key: schema[key] for key in schema if key not in ("title", "description")}


class _Untitled(GenerateJsonSchema):
    """Without a title for each field: it repeats the name, and models pay for each word."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _clean(value: str) -> str:
    if clean_text(value) != value:
        raise ValueError("should have no control characters")
    return value


RoomRef = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=255),
    AfterValidator(_clean),
]
"""How a room is named: `!id`, `#alias`, or its exact name among the caller's rooms."""

EventId = Annotated[
    str,
    StringConstraints(strip_whitespace=True, pattern=r"^\$\S{1,254}$"),
    AfterValidator(_clean),
]

Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_clean)
]

Markdown = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]
