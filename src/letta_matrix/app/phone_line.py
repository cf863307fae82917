"""What agents do on other networks by tools, and the parts that are for a phone line alone."""

from typing import Any

from letta_matrix.app.stores import Stores
from letta_matrix.common.parts import part
from letta_matrix.common.sureness import Sure
from letta_matrix.config import Config
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.operations.toolbox.portal_pictures import PortalPictures
from letta_matrix.operations.toolbox.texting import Texting
from letta_matrix.operations.toolbox.tool import Tool, tools_in
from letta_matrix.portals.day_budget import DayBudget
from letta_matrix.portals.line_watch import LineWatch
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.portals.provisioning import Provisioning


@part
class PhoneLine:
    """The tools of bridged networks; of a phone line its `provisioning`, and the `watch` over it
    where the bridge can be asked. Nothing where nothing is configured."""

    _config: Config
    _stores: Stores
    _homeserver: Homeserver
    _policy: PortalPolicy
    _budget: DayBudget
    _sure: Sure | None

    def __post_init__(self) -> None:
        sms, domain = self._config.sms, self._config.homeserver.domain
        self.provisioning = Provisioning(sms, domain, sure=self._sure) if sms is not None else None
        can_ask = sms is not None and sms.line is not None and sms.provisioning is not None
        line = self.provisioning if can_ask else None
        self.watch = LineWatch(line) if line is not None else None

    def tools(self) -> list[Tool[Any]]:
        """For agents, programs, and people by a command."""
        sms, stores, policy = self._config.sms, self._stores, self._policy
        if not policy.bridges:
            return []
        found = tools_in(PortalPictures(policy, self._homeserver, self._budget))
        if sms is not None and self.provisioning is not None:
            texting = Texting(
                sms, policy, self.provisioning, self._homeserver, stores.conversations, self._budget
            )
            found += tools_in(texting)
        return found
