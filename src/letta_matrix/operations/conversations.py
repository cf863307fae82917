"""Which conversation of an agent goes on where."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.parts import part
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.agent_lists import known_agent
from letta_matrix.operations.operation import operation
from letta_matrix.operations.toolbox.tool import Caller, Params, Result, WriteParams
from letta_matrix.operations.types import told
from letta_matrix.runtimes.protocol import AgentRuntime
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.conversations import Conversation, ConversationStore
from letta_matrix.store.places import Place

_LEFT = "left"
"""What a call notes: the conversation that went on before it."""

_PATH = "/agents/{agent_id}/conversations"


class ListedConversations(Params):
    agent_id: str = Field(max_length=255)
    room_id: str = Field("", max_length=255, description="default: the agent's own room")


class NewConversation(ListedConversations, WriteParams):
    """What is asked to begin anew."""


class ReturnTo(NewConversation):
    number: int = Field(ge=1, description="as the list of them has it")


class ConversationTold(TypedDict):
    number: Annotated[int, Field(description="by age: it stays the same")]
    conversation_id: str
    title: str
    thread_id: str
    current: Annotated[bool, Field(description="what is said there next belongs to it")]
    created_at: float
    used_at: float


class Conversations(TypedDict):
    conversations: list[ConversationTold]


class Left(TypedDict):
    agent_id: str
    room_id: str
    left: Annotated[str, Field(description='the conversation that went on until then, "" for none')]


class Returned(ConversationTold):
    """`moved`: it went on at another place until then; `stayed`: it went on here anyway."""

    moved: bool
    stayed: bool


@part
class ConversationOperations:
    """Lists conversations, lets new ones begin and leads back to old ones, for agents whose
    runtime has several: in the thread where a person says it, or outside of threads."""

    _directory: AgentDirectory
    _runtimes: Mapping[str, AgentRuntime]
    _conversations: ConversationStore

    @operation("conversations.list", Scope.ADMIN, Conversations, people=True, rest=f"GET {_PATH}")
    async def list_conversations(self, caller: Caller, params: ListedConversations) -> Result:
        """List the conversations that an agent has had in a room, the first first."""
        found = await self._had(self._place(caller, params))
        return {"conversations": [_told(number, one) for number, one in enumerate(found, 1)]}

    @operation("conversations.leave", Scope.ADMIN, Left, people=True, rest=f"POST {_PATH}")
    async def leave_conversation(self, caller: Caller, params: NewConversation) -> Result:
        """Let an agent's next message in a room start a new conversation."""
        place = self._place(caller, params)
        left: str | None = caller.noted(_LEFT)
        if left is None:
            left = self._conversations.current(place) or ""
            # By the next try another one may have begun.
            await caller.note(_LEFT, left)
        if left:
            await self._conversations.leave(place, left)
        return {"agent_id": place.agent_id, "room_id": place.room_id, "left": left}

    @operation(
        "conversations.return", Scope.ADMIN, Returned, people=True, rest=f"POST {_PATH}/{{number}}"
    )
    async def return_to_conversation(self, caller: Caller, params: ReturnTo) -> Result:
        """Let an old conversation of an agent go on in a room."""
        here = self._place(caller, params)
        found = await self._had(here)
        if params.number > len(found):
            have = f"{len(found)} conversation{'s' * (len(found) != 1)}" if found else "none yet"
            which = f"There is no conversation {params.number} here: {have}."
            raise ToolError(f"{which} `!conversations` lists them.", Fault.NOT_FOUND)
        meant = found[params.number - 1]
        shown, is_here = _told(params.number, meant), meant.current and meant.place == here
        if is_here and not caller.again:
            return {**shown, "moved": False, "stayed": True}
        await self._conversations.return_to(meant, here)
        return {**shown, "moved": meant.current and not is_here, "stayed": False}

    def _place(self, caller: Caller, params: ListedConversations) -> Place:
        """Where it is to be; the place where a person asks for it, if no other is named. Raises
        ToolError."""
        agent = known_agent(self._directory, caller.principal, params.agent_id)
        runtime = self._runtimes.get(agent.runtime)
        if runtime is not None and not runtime.capabilities.conversations:
            text = (
                f"The runtime {code(runtime.name)} has no conversations: each of its agents keeps "
                "one single history."
            )
            raise ToolError(text, Fault.CONFLICT)
        if caller.place is not None and not params.room_id:
            return caller.place._replace(agent_id=agent.agent_id)
        room_id = params.room_id or agent.room_id
        if not room_id or not caller.principal.may_act_in(room_id):
            raise ToolError("Say in which room (`room_id`).", Fault.NOT_FOUND)
        return Place(agent.agent_id, room_id)

    async def _had(self, place: Place) -> list[Conversation]:
        # Numbered by age: a number means the same after a return, and after a crash.
        found = await self._conversations.all_in(place.agent_id, place.room_id)
        return sorted(found, key=lambda one: one.seq)


def _told(number: int, one: Conversation) -> ConversationTold:
    return told(ConversationTold, one, number=number, thread_id=one.place.thread_id)
