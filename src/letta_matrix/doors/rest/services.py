"""What the REST API is made of: everything it calls."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from letta_matrix.access.authenticator import Authenticator
from letta_matrix.access.login_sessions import LoginSessions
from letta_matrix.config import Config
from letta_matrix.doors.web.in_flight import InFlight
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.operations.login_tokens import LoginTokens
from letta_matrix.operations.records import AgentDirectory, ApprovalStore, Outbox, Turn, TurnStore
from letta_matrix.operations.toolbox.registry import Toolbox


@dataclass(frozen=True, slots=True)
class Services:
    """`unfinished` are the turns that run or wait; `health` is what `/health` says; `stopping` is
    set when whoever waits has to come again later."""

    config: Config
    homeserver: Homeserver
    toolbox: Toolbox
    authenticator: Authenticator
    in_flight: InFlight
    logins: LoginSessions
    directory: AgentDirectory
    login_tokens: LoginTokens
    turns: TurnStore
    outbox: Outbox
    approval_store: ApprovalStore
    unfinished: Callable[[], list[Turn]]
    health: Callable[[], Mapping[str, object]]
    stopping: asyncio.Event
