"""What the MCP server is made of: everything it calls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from letta_matrix.access.authenticator import Authenticator
from letta_matrix.config import Config
from letta_matrix.doors.mcp.kept_subscriptions import KeptSubscriptions
from letta_matrix.doors.web.in_flight import InFlight
from letta_matrix.operations.records import AgentDirectory
from letta_matrix.operations.toolbox.registry import Toolbox

Health = Callable[[bool], Mapping[str, object]]
"""What `/health` answers whom the door knows by `Host` and `Origin` (True), and others."""


@dataclass(frozen=True, slots=True)
class Services:
    config: Config
    toolbox: Toolbox
    authenticator: Authenticator
    directory: AgentDirectory
    in_flight: InFlight
    subscriptions: KeptSubscriptions
    health: Health
