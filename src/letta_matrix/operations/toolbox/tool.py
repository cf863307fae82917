"""What a tool is: a name, typed arguments and results, and what happens when it is called."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import FunctionType, ModuleType
from typing import Annotated, Any, Generic, TypeVar, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic.json_schema import GenerateJsonSchema

from letta_matrix.access.faults import ToolError
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.operations.toolbox.house import House
from letta_matrix.operations.toolbox.notes import Notes
from letta_matrix.operations.toolbox.results import cut
from letta_matrix.store.agents import Agent
from letta_matrix.store.places import Place

LONGEST_WAIT = 280.0
"""Seconds a tool may wait for somebody: the App Server gives a call 5 minutes at most."""

Result = Mapping[str, object]
"""What a call gives: a JSON object."""

Progress = Callable[[float, float, str], Awaitable[None]]
"""Told how far a long call is: done and total in seconds, and a line for people."""


Stripped = Annotated[str, StringConstraints(strip_whitespace=True)]


def _clean(value: str) -> str:
    if clean_text(value) != value:
        raise ValueError("should have no control characters")
    return value


CLEAN = AfterValidator(_clean)
"""Of what has no control characters."""

EVENT, USER = r"\$\S{1,254}", r"@[^:\s]{1,250}:\S{1,250}"
"""Patterns of ids."""

EventId = Annotated[Stripped, Field(pattern=f"^{EVENT}$"), CLEAN]

UserRef = Annotated[Stripped, Field(pattern=f"^{USER}$", max_length=255), CLEAN]
"""A Matrix user id."""

Line = Annotated[Stripped, Field(min_length=1), CLEAN]

Markdown = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]


class Params(BaseModel):
    """The arguments of a tool; none beside the declared ones."""

    # Made when the first call comes: 5 MB, for what few bridges use all of.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class WriteParams(Params):
    """The arguments of a tool that changes something: it does so once for a `transaction_id`."""

    transaction_id: Annotated[
        str, StringConstraints(max_length=200, pattern=r"^[\x21-\x7e]*$"), CLEAN
    ] = Field(
        "", description="any text of your own; a call that comes again with it does nothing more"
    )


P = TypeVar("P", bound=Params)
Run = TypeVar("Run", bound=Callable[..., Awaitable[Result]])

_DECLARED = "declared"
_SHOWN = 5
"""Faults of a call's arguments that are told."""

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
    house: House
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

    async def refuses(self, room_id: str) -> bool:
        """Whether a room, which it may be in or not, is not for it to act in."""
        return await self.house.guest_posting.refuses(self.intent, room_id)

    async def rooms(self) -> list[str]:
        """The rooms it is in and may act in."""
        joined = await self.intent.joined_rooms()
        permitted = filter(self.principal.may_act_in, joined)
        return [room_id for room_id in permitted if not await self.refuses(room_id)]

    def agents(self) -> list[Agent]:
        """The active agents that it may know of."""
        may_act_in = self.principal.may_act_in
        return [
            agent
            for agent in self.house.directory.active()
            if agent.agent_id == self.agent_id or may_act_in(agent.room_id or "")
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

    def parse(self, arguments: Mapping[str, object]) -> P:
        """The arguments of a call, checked. Raises ToolError that names each field that is wrong
        and says what it should be."""
        try:
            return self.params.model_validate(dict(arguments))
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
            told = [self._fault(fault) for fault in faults[:_SHOWN]]
            raise ToolError(f"Wrong arguments for {self.name}: {'; '.join(told)}.") from error

    async def carry_out(self, caller: Caller, params: P) -> Result:
        """Run it. Raises ToolError, and whatever else goes wrong."""
        return await self.run(caller, params)

    def _fault(self, fault: Mapping[str, Any]) -> str:
        field = cut(".".join(str(part) for part in fault["loc"]), 60)
        if fault["type"] == "missing":
            return f"`{field}` is missing"
        if fault["type"] == "extra_forbidden":
            taken = ", ".join(self.offered["properties"]) or "none"
            return f"there is no argument `{field}`, only: {taken}"
        said = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
        return f"`{field}` {said[:1].lower()}{said[1:]}"


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
    return isinstance(value, FunctionType) and _DECLARED in value.__dict__


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
