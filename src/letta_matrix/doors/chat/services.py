"""What commands may use of the rest of the bridge."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from letta_matrix.common.vitals import Vitals
from letta_matrix.config import Config
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.conversations.roster import Roster
from letta_matrix.conversations.speakers import Speaker
from letta_matrix.operations.records import (
    AgentDirectory,
    ConversationStore,
    Place,
    Replica,
    Rooms,
    TurnStore,
)
from letta_matrix.operations.runtimes_told import RuntimesTold
from letta_matrix.operations.toolbox.registry import Toolbox


@dataclass(frozen=True, slots=True)
class CommandServices:
    """What handlers and their runner work with.

    `toolbox` does what changes something; `vitals` tell how the bridge is, `replicas`
    which ones of it there are, `trouble_of` is the
    trouble of an agent by its id, "" if there is none; `waiting` counts the messages at a place
    that are not answered yet, the one being worked on included; `roster` says from when on
    somebody may read a room, `speaker` answers.
    """

    config: Config
    directory: AgentDirectory
    runtimes: RuntimesTold
    turns: TurnStore
    conversations: ConversationStore
    rooms: Rooms
    approvals: Approvals
    toolbox: Toolbox
    vitals: Vitals
    replicas: Callable[[], Sequence[Replica]]
    trouble_of: Callable[[str], str]
    waiting: Callable[[Place], int]
    roster: Roster
    speaker: Speaker
