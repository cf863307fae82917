"""What the REST API answers: the types of the operations and tools that it passes on."""

from letta_matrix.operations.types import (
    Agent,
    AgentDetails,
    Answer,
    Approval,
    Member,
    Message,
    Messages,
    NewToken,
    Room,
    Sent,
    Token,
    Tool,
    Turn,
)

__all__ = [
    "Agent",
    "AgentDetails",
    "Answer",
    "Approval",
    "Member",
    "Message",
    "Messages",
    "NewToken",
    "Room",
    "Sent",
    "Token",
    "Tool",
    "Turn",
]
