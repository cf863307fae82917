"""The parts that are for a phone line alone."""

from typing import Any

from letta_matrix.app.stores import Stores
from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.portals.day_budget import DayBudget
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.portals.provisioning import Provisioning
from letta_matrix.toolbox.texting import Texting
from letta_matrix.toolbox.tool import Tool, tools_in


@part
class PhoneLine:
    """What agents can do with it, and its `provisioning`: nothing where none is configured."""

    _config: Config
    _stores: Stores
    _homeserver: Homeserver
    _policy: PortalPolicy
    _budget: DayBudget

    def __post_init__(self) -> None:
        sms, domain = self._config.sms, self._config.homeserver.domain
        self.provisioning = Provisioning(sms, domain) if sms is not None else None

    def tools(self) -> list[Tool[Any]]:
        """For agents, programs, and people by a command."""
        sms, stores = self._config.sms, self._stores
        if sms is None or self.provisioning is None:
            return []
        texting = Texting(
            sms,
            self._policy,
            self.provisioning,
            self._homeserver,
            stores.conversations,
            self._budget,
        )
        return tools_in(texting)
