"""What the REST API answers, as its OpenAPI document describes it."""

from typing import Any, Literal, NotRequired, TypedDict


class Agent(TypedDict):
    """`room_id` is None until the agent has its room."""

    agent_id: str
    name: str
    description: str
    runtime: str
    user_id: str
    room_id: str | None
    status: Literal["active", "removed"]
    created_at: float


class AgentDetails(Agent):
    """`trouble` is why it cannot be set up now; None for tokens that are not for that."""

    conversations: int
    trouble: str | None


class Answer(TypedDict):
    """What an agent said to a message; `answer` is None if it has not answered in time."""

    agent_id: str
    room_id: str
    event_id: str
    turn_id: str
    answer: str | None
    answer_event_id: str | None


class Member(TypedDict):
    user_id: str
    name: str
    agent_id: NotRequired[str]


class Room(TypedDict):
    """`joined` is how many are in it where `members` are not all."""

    room_id: str
    name: str
    alias: NotRequired[str]
    members: NotRequired[list[Member]]
    joined: NotRequired[int]


class Message(TypedDict):
    """Something that was said; times are ISO 8601 in UTC. What is `unfinished` still grows."""

    event_id: str
    sender: str
    time: str
    text: str
    agent: NotRequired[str]
    type: NotRequired[str]
    thread: NotRequired[str]
    reply_to: NotRequired[str]
    edited: NotRequired[bool]
    unfinished: NotRequired[bool]


class Messages(TypedDict):
    """Messages, oldest first; `before` and `after` lead to older and newer ones. `untrusted`
    reminds a model that others wrote them."""

    room_id: str
    untrusted: str
    messages: list[Message]
    before: NotRequired[str]
    after: NotRequired[str]
    note: NotRequired[str]


class Sent(TypedDict):
    room_id: str
    event_id: str
    more_event_ids: NotRequired[list[str]]


class Turn(TypedDict):
    turn_id: str
    kind: str
    agent_id: str
    room_id: str
    thread_id: str | None
    event_id: str
    sender: str
    status: str
    outcome: str | None
    sent_at: float


class Approval(TypedDict):
    key: str
    agent_id: str
    turn_id: str
    room_id: str
    thread_id: str | None
    requester: str
    tool: str
    arguments: dict[str, Any]
    always: bool
    status: str
    decided_by: str | None
    reason: str | None
    asked_at: float
    expires_at: float


class Token(TypedDict):
    """A token without its secret. Times are Unix times."""

    token_id: str
    label: str
    agent_id: str
    scopes: list[str]
    rooms: list[str] | None
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class NewToken(Token):
    token: str


class Tool(TypedDict):
    """A tool that the token may call, with JSON Schemas of its arguments and results."""

    name: str
    title: str
    description: str
    scope: str
    read_only: bool
    destructive: bool
    idempotent: bool
    parameters: dict[str, Any]
    results: dict[str, Any]
