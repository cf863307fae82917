"""What letta-matrix needs of a place where agents live.

One adapter per kind of runtime implements `AgentRuntime`; nothing else in the
project knows frames, REST paths or stream formats of Letta.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from letta_matrix.common.tools import ToolHandler, ToolSpec
from letta_matrix.runtimes.faults import RuntimeRefused
from letta_matrix.runtimes.speech import Said

ABORT_GRACE = 2.0
"""Seconds that an aborted turn has to report its end."""

TurnState = Mapping[str, object]
"""What an adapter needs to find a turn again after a crash; JSON, opaque to everybody else."""

SaveTurnState = Callable[[TurnState], Awaitable[None]]
"""Stores a turn's state durably; an adapter awaits it before the step that the state protects.

It may be called several times in a turn; the newest state counts."""


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """An agent as a listing shows it.

    `last_run` is a text that changes whenever the agent has run, "" if it never has, or where the
    runtime does not tell.
    """

    agent_id: str
    name: str
    description: str = ""
    model: str = ""
    last_run: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a kind of runtime can do; callers ask here instead of testing types.

    Without `conversations` an agent has a single history, and `create_conversation` gives the
    same id for every room and thread. `always`: an approval can be given for good. `manage`:
    agents can be created, renamed and deleted.
    """

    conversations: bool = True
    resume: bool = True
    approvals: bool = True
    always: bool = True
    cancel: bool = True
    models: bool = True
    images: bool = True
    tools: bool = True
    speech: bool = True
    manage: bool = True


@dataclass(frozen=True, slots=True)
class Image:
    """An image for the model; `media_type` is one of image/png, jpeg, gif, webp."""

    name: str
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """One message for an agent.

    `message_id` (the Matrix event id) is the idempotency key: the runtime is
    prompted with it at most once, however often the turn is run.
    """

    agent_id: str
    conversation_id: str
    message_id: str
    text: str = field(compare=False)
    images: tuple[Image, ...] = field(default=(), compare=False, repr=False)


class StopReason(StrEnum):
    """Why a turn ended."""

    END_TURN = "end_turn"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """The runtime took the message and works on it; `anew`: from its beginning, after it had
    forgotten what it did, so that no approval that it asked for before is awaited any more."""

    run_id: str = ""
    anew: bool = False


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of the reply; `part_id` names the assistant message it belongs to."""

    part_id: str
    text: str


@dataclass(frozen=True, slots=True)
class TextEnded:
    """The model has ended its answer, though the turn may go on: a hint that the text so far is
    the whole reply. More text takes it back."""


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More text of the agent's reasoning; never part of the reply."""

    part_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """The agent called a tool; reported once per `call_id`."""

    call_id: str
    name: str
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class ToolReturned:
    """A tool call ended; reported once per `call_id`."""

    call_id: str
    ok: bool
    output: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalRequested:
    """The turn waits until `answer_approval` is called with this `approval_id`; a turn that is
    followed again may report it again. `always`: it can be allowed for good; `call_id`: of the
    call that it is about, "" where the runtime does not tell."""

    approval_id: str
    tool: str
    arguments: Mapping[str, object] = field(default_factory=dict[str, object])
    always: bool = False
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class ImagesDropped:
    """The model did not get the message's images; `reason` is one line for a person."""

    reason: str


@dataclass(frozen=True, slots=True)
class ModelRetried:
    """The agent's model failed and is asked again; `reason` is one line for a person."""

    reason: str


@dataclass(frozen=True, slots=True)
class TurnFinished:
    """The last event of every turn; `error` is one line for a person, empty unless ERROR."""

    stop_reason: StopReason
    error: str = ""
    run_id: str = ""


TurnEvent = (
    TurnStarted
    | TextDelta
    | TextEnded
    | ReasoningDelta
    | ToolStarted
    | ToolReturned
    | ApprovalRequested
    | ImagesDropped
    | ModelRetried
    | TurnFinished
)


class AgentRuntime(Protocol):
    """A place where agents live, as the rest of letta-matrix uses it. What only some can do the
    others refuse, or leave out."""

    name: str
    """The runtime's name in the configuration."""
    counters: Counter[str]
    """How often something unknown or malformed came and was passed over, by its kind."""

    @property
    def capabilities(self) -> Capabilities: ...

    def offer_tools(self, tools: Sequence[ToolSpec], handler: ToolHandler) -> None:
        """Let every agent call `tools`. Call before `start`; without the capability nothing
        comes of it."""

    async def start(self) -> None:
        """Begin to connect; returns at once, an unreachable runtime is retried for ever."""

    async def close(self) -> None:
        """Let go of every resource; turns in flight stay resumable."""
        ...

    async def list_agents(self) -> list[AgentInfo]:
        """Every agent, all pages. Raises RuntimeUnavailable or RuntimeRefused, never returns
        a partial listing."""
        ...

    async def create_agent(self, name: str, *, model: str = "", description: str = "") -> AgentInfo:
        """Create an agent. Raises RuntimeUnavailable or RuntimeRefused."""
        raise _unable(self.name, "create an agent")

    async def rename_agent(self, agent_id: str, name: str) -> None:
        """Change an agent's name. Raises RuntimeUnavailable or RuntimeRefused."""
        raise _unable(self.name, "rename an agent")

    async def delete_agent(self, agent_id: str) -> None:
        """Delete an agent with all it remembers. Raises RuntimeUnavailable or RuntimeRefused;
        one that is already gone is no error."""
        raise _unable(self.name, "delete an agent")

    async def list_models(self) -> list[str]:
        """The models an agent can be switched to. Raises RuntimeUnavailable or RuntimeRefused."""
        raise _unable(self.name, "tell which models there are for an agent")

    async def set_model(self, agent_id: str, model: str) -> None:
        """Switch an agent's model. Raises RuntimeUnavailable or RuntimeRefused."""
        raise _unable(self.name, "switch an agent's model")

    async def create_conversation(self, agent_id: str, title: str) -> str:
        """A new conversation's id. Raises RuntimeUnavailable or RuntimeRefused."""
        ...

    def run_turn(
        self, request: TurnRequest, state: TurnState | None, save: SaveTurnState
    ) -> AsyncGenerator[TurnEvent]:
        """Run one turn, or follow it again.

        With `state` None nothing is known of an earlier try. With the state saved by an
        earlier try (perhaps in a process since killed) the turn is followed from its
        beginning: all its text arrives again, and the runtime is not asked twice.
        Ends after TurnFinished. Closing the generator stops following, not the turn.

        Raises:
            RuntimeUnavailable: not taken by the runtime, or the connection went and the turn
                can be followed again later with the saved state.
            RuntimeRefused: the message was not taken and will not be.
            TurnLost: taken, and its outcome cannot be known.
        """
        ...

    async def cancel_turn(self, agent_id: str, conversation_id: str) -> None:
        """Stop what runs in a conversation; its generator then yields TurnFinished(CANCELLED).

        Returns once the runtime has taken it, or `ABORT_GRACE` after that.
        Raises RuntimeUnavailable or RuntimeRefused."""
        ...

    async def answer_approval(
        self, request: TurnRequest, approval_id: str, *, allow: bool, message: str = ""
    ) -> None:
        """Answer an ApprovalRequested of a running turn; `message` goes with a denial.

        Raises:
            RuntimeUnavailable: not told; to be tried again.
            RuntimeRefused: it is no longer pending.
        """
        raise _unable(self.name, "ask for approvals")

    async def said_since(self, agent_id: str, cursor: str | None) -> Said:
        """What an agent said outside the turns run here, in whole turns only: nothing of one
        that still runs. With `cursor` None nothing is told, only where we are now; "" is the
        beginning of its life.

        Turns run here are known by the ids of their prompts, which are Matrix event ids.
        Raises RuntimeUnavailable or RuntimeRefused.
        """
        return Said((), cursor or "")

    async def finish_turn(self, request: TurnRequest) -> None:
        """The reply is safe: whatever was kept to follow this turn again may go."""


def _unable(name: str, deed: str) -> RuntimeRefused:
    return RuntimeRefused(
        f"{name} cannot {deed}: its API has no request for that; do it where its agents live"
    )
