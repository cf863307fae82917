"""What a tool is: a name, typed arguments and results, and what happens when it is called."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Annotated, Any, Generic, TypeVar, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from letta_matrix.access.principal import Principal, Scope
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.store.places import Place
from letta_matrix.toolbox.known_rooms import KnownRooms
from letta_matrix.toolbox.notes import Notes

LONGEST_WAIT = 280.0
"""Seconds a tool may wait for somebody: the App Server gives a call 5 minutes at most."""

Result = Mapping[str, object]
"""What a call gives: a JSON object."""

Progress = Callable[[float, float, str], Awaitable[None]]
"""Told how far a long call is: done and total in seconds, and a line for people."""


class Params(BaseModel):
    """The arguments of a tool; none beside the declared ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def clean(value: str) -> str:
    """An argument as it is. Raises ValueError for control characters."""
    if clean_text(value) != value:
        raise ValueError("should have no control characters")
    return value


class WriteParams(Params):
    """The arguments of a tool that changes something: it does so once for a `transaction_id`."""

    transaction_id: Annotated[
        str, StringConstraints(max_length=200, pattern=r"^[\x21-\x7e]*$"), AfterValidator(clean)
    ] = Field(
        "", description="any text of your own; a call that comes again with it does nothing more"
    )


P = TypeVar("P", bound=Params)
Run = TypeVar("Run", bound=Callable[..., Awaitable[Result]])

_DECLARED = "declared"

_CHECKS = ("additionalProperties", "minLength", "maxLength", "minItems", "maxItems", "pattern")
"""Of a JSON Schema: what a model keeps to by itself, or is told when it does not."""


async def no_progress(done: float, total: float, line: str) -> None:
    """For callers who do not want to know."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and from where: `turn_id` and `speaker` (who wrote the message) are those of
    the turn that the call belongs to, empty outside of the turns run here.

    `request_id` is of this call alone, and the same when it comes `again`, after a try that may
    have got somewhere. `refuses` tells of a room, in it or not, that it is not for the caller to
    act in. `door` is the one it came through (`agent`, `mcp`, `api`, `chat`), `notes` what a
    call that changes something keeps for its next try.
    """

    principal: Principal
    intent: Intent
    request_id: str
    refuses: Callable[[Intent, str], Awaitable[bool]]
    known: KnownRooms
    conversation_id: str = ""
    place: Place | None = None
    turn_id: str = ""
    speaker: str = ""
    hops: int = 0
    progress: Progress = no_progress
    again: bool = False
    door: str = ""
    notes: Notes | None = None

    @property
    def agent_id(self) -> str:
        """The agent it acts as, "" for the bot."""
        return self.principal.agent_id

    @property
    def user_id(self) -> str:
        return self.intent.user_id

    async def rooms(self) -> list[str]:
        """The rooms it is in and may act in."""
        joined = await self.intent.joined_rooms()
        return [
            room_id
            for room_id in joined
            if self.principal.may_act_in(room_id) and not await self.refuses(self.intent, room_id)
        ]

    def noted(self, name: str) -> Any:
        """What an earlier try of this call has noted by a name, None for nothing."""
        return None if self.notes is None else self.notes.get(name)

    async def note(self, name: str, value: str | list[str]) -> None:
        """Note something for the next try, if there can be one. Raises StoreUnavailable."""
        if self.notes is not None:
            await self.notes.keep(name, value)

    def txn(self, *step: str | int) -> str:
        """The txn id of one step of this call: the same when the call comes again."""
        return txn_id("tool", self.principal.key, self.request_id, *step)


@dataclass(frozen=True)
class Tool(Generic[P]):
    """A tool. `description` is one line for a model; `result` is a TypedDict; `seconds` is how
    long a call may take, None where its arguments say so. `scope` is None where the tool itself
    says who may: only of what is offered to nobody. `people`: who speaks in a room may call it
    too, and it says what they may. `noted_as` is its name in the audit log, "" for its own."""

    name: str
    title: str
    description: str
    scope: Scope | None
    params: type[P]
    result: type[Any]
    run: Callable[[Caller, P], Awaitable[Result]]
    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False
    seconds: float | None = 60.0
    people: bool = False
    noted_as: str = ""

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON Schema of its arguments."""
        return _parameters(self.params)

    @property
    def offered(self) -> dict[str, Any]:
        """The JSON Schema of its arguments for agents of a runtime, whose calls have ids of
        their own: without `transaction_id`. What only says how an argument is checked is left
        out, since models pay for each word in every request; `parse` tells them in words."""
        return _offered(self.params)

    @property
    def results(self) -> dict[str, Any]:
        """The JSON Schema of its result."""
        return _results(self.result)


def tool(
    name: str, title: str, scope: Scope | None, result: type[Any], **hints: Any
) -> Callable[[Run], Run]:
    """Declares a function or method as a tool: by the annotation of its second argument what it
    takes, by its docstring what models are told of it; `hints` are further fields of `Tool`, or of
    the `kind` of tool that is given with them."""

    kind: type[Tool[Any]] = hints.pop("kind", Tool)

    def declare(run: Run) -> Run:
        run.__dict__[_DECLARED] = (kind, name, title, scope, result, hints)
        return run

    return declare


def tools_in(owner: object) -> list[Tool[Any]]:
    """The tools that functions of a module, or methods of a class or of an object, are declared
    as, in their order."""
    where = vars(owner if isinstance(owner, ModuleType | type) else type(owner))
    return [made(getattr(owner, key)) for key, one in where.items() if _is_declared(one)]


def made(run: Callable[[Caller, Any], Awaitable[Result]]) -> Tool[Any]:
    """The tool that a function is declared as."""
    kind, name, title, scope, result, hints = getattr(run, _DECLARED)
    params: type[Params] = list(get_type_hints(run).values())[1]
    description = " ".join((run.__doc__ or "").split())
    return kind(name, title, description, scope, params, result, run, **hints)


def _is_declared(value: object) -> bool:
    return _DECLARED in getattr(value, "__dict__", {})


# Of the classes, not of a tool: making them takes longer than making a toolbox.
@cache
def _parameters(params: type[Params]) -> dict[str, Any]:
    schema = params.model_json_schema(schema_generator=_Untitled)
    properties: dict[str, Any] = schema.get("properties", {})
    if "transaction_id" in properties:
        # Last: what matters to the tool comes first.
        properties["transaction_id"] = properties.pop("transaction_id")
    return {key: schema[key] for key in schema if key not in ("title", "description")}


@cache
def _offered(params: type[Params]) -> dict[str, Any]:
    schema = _parameters(params)
    fields = {key: _lean(value) for key, value in schema.get("properties", {}).items()}
    fields.pop("transaction_id", None)
    return {"type": "object", "properties": fields, "required": schema.get("required", [])}


def _lean(field: Any) -> Any:
    if isinstance(field, list):
        return [_lean(one) for one in field]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(field, dict):
        return field
    kept: dict[str, Any] = {key: value for key, value in field.items() if key not in _CHECKS}  # pyright: ignore[reportUnknownVariableType]
    if not kept.get("default", True):
        del kept["default"]
    return {key: _lean(value) for key, value in kept.items()}


@cache
def _results(result: type[Any]) -> dict[str, Any]:
    schema = TypeAdapter(result).json_schema(schema_generator=_Untitled)
    return {key: schema[key] for key in schema if key not in ("title", "description")}


class _Untitled(GenerateJsonSchema):
    """Without a title for each field: it repeats the name, and models pay for each word."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


RoomRef = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=255),
    AfterValidator(clean),
]
"""How a room is named: `!id`, `#alias`, or its exact name among the caller's rooms."""

EventId = Annotated[
    str,
    StringConstraints(strip_whitespace=True, pattern=r"^\$\S{1,254}$"),
    AfterValidator(clean),
]

UserRef = Annotated[
    str,
    StringConstraints(strip_whitespace=True, pattern=r"^@[^:\s]{1,250}:\S{1,250}$", max_length=255),
    AfterValidator(clean),
]
"""A Matrix user id."""

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(clean)]

Markdown = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]
