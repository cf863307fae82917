"""What operations tell of, as the API answers it and its OpenAPI document describes it."""

from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_type_hints

from pydantic import Field
from typing_extensions import TypedDict


class Agent(TypedDict):
    agent_id: str
    name: str
    description: str
    runtime: str
    user_id: str
    room_id: Annotated[str | None, Field(description="its own room; null until it is made")]
    status: Literal["active", "removed"]
    created_at: Annotated[float, Field(description="when the bridge first saw it (Unix time)")]


class AgentDetails(Agent):
    conversations: Annotated[int, Field(description="that it has had, in all rooms")]
    trouble: Annotated[
        str | None,
        Field(description='why it cannot be set up now, "" if it can; null without `admin`'),
    ]


class Answer(TypedDict):
    """What an agent said to a message."""

    agent_id: str
    room_id: str
    event_id: Annotated[str, Field(description="of what was said")]
    turn_id: str
    answer: Annotated[str | None, Field(description="null if it has not answered yet")]
    answer_event_id: Annotated[str | None, Field(description="where the answer begins")]


class Turn(TypedDict):
    turn_id: str
    kind: str
    agent_id: Annotated[str, Field(description='"" for the bot')]
    room_id: str
    thread_id: str | None
    event_id: Annotated[str, Field(description="of the message that it answers")]
    sender: str
    status: Literal["queued", "running", "replying", "done"]
    outcome: Annotated[str | None, Field(description="how it ended; null as long as it goes on")]
    sent_at: float
    arrived_at: Annotated[float | None, Field(description="when the bridge had it; null: not kept")]
    given_at: Annotated[float | None, Field(description="when its runtime was given it")]
    spoke_at: Annotated[
        float | None,
        Field(description="when its first words were there; null for what came all at once"),
    ]
    finished_at: Annotated[float | None, Field(description="when nothing was owed any more")]


class FailedTurn(Turn):
    notices: Annotated[
        list[str], Field(description="said beside the reply, such as why it failed and what to do")
    ]


class TurnDetails(FailedTurn):
    text: Annotated[str, Field(description="what the agent has said so far, cut if it is long")]
    waiting_for_approval: Annotated[list[str], Field(description="the keys of what it waits for")]


class ShownText(TypedDict):
    name: Annotated[str, Field(description='of the argument; "": all of them, as JSON')]
    text: str


class Approval(TypedDict):
    key: Annotated[str, Field(examples=["9f2c41d07ab3"])]
    agent_id: str
    turn_id: str
    room_id: str
    thread_id: str | None
    requester: Annotated[str, Field(description="whose message the agent was at")]
    tool: str
    arguments: dict[str, Any]
    shown_tool: Annotated[str, Field(description="its name as a person is to see it")]
    shown: Annotated[
        list[ShownText],
        Field(description="the arguments as a person is to see them: nothing in them is hidden"),
    ]
    warnings: Annotated[list[str], Field(description="to be known before it is allowed")]
    always: Annotated[bool, Field(description="it can be allowed for good")]
    status: Literal["pending", "allowed", "always", "denied", "expired", "lapsed"]
    decided_by: str | None
    reason: str | None
    asked_at: float
    expires_at: Annotated[float, Field(description="until when it can, or could, be answered")]


class Token(TypedDict):
    """A token, without its secret. Times are Unix times in seconds."""

    token_id: str
    label: str
    agent_id: Annotated[str, Field(description="as whom it acts; empty: the bot")]
    scopes: list[str]
    rooms: Annotated[list[str] | None, Field(description="the only rooms it is for; null: all")]
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class NewToken(Token):
    """A token with its secret, which is told this once."""

    token: Annotated[str, Field(description="what belongs in the Authorization header")]


class Tool(TypedDict):
    """A tool: what it takes and gives, as JSON Schemas."""

    name: str
    title: str
    description: str
    scope: Annotated[str, Field(description="what a token must have for it")]
    read_only: bool
    destructive: Annotated[bool, Field(description="it does what cannot be undone")]
    idempotent: Annotated[bool, Field(description="a second call changes nothing more")]
    parameters: Annotated[dict[str, Any], Field(description="the JSON Schema of its arguments")]
    results: Annotated[dict[str, Any], Field(description="the JSON Schema of its result")]


Kind = TypeVar("Kind")


def told(kind: type[Kind], row: object, **further: object) -> Kind:
    """What is stored as it is told: the fields of a TypedDict, "" for nothing as null where that
    is allowed; those that are not stored so are `further`."""
    found = {name: getattr(row, name) for name in _fields(kind) if name not in further}
    nullable = {name for name, of in _fields(kind).items() if type(None) in get_args(of)}
    empty = {name: None for name in nullable if found.get(name) == ""}
    return cast("Kind", {**found, **empty, **further})


_fields = cache(get_type_hints)
