"""The parts that are for a phone line alone."""

from typing import Any

from letta_matrix.app.stores import Stores
from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.operations.sms import SmsOperations
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.portals.provisioning import Provisioning
from letta_matrix.toolbox.texting import Texting
from letta_matrix.toolbox.tool import Tool, tools_in


@part
class PhoneLine:
    """What operators and agents can do with it: nothing where none is configured."""

    _config: Config
    _stores: Stores
    _homeserver: Homeserver
    _policy: PortalPolicy

    def __post_init__(self) -> None:
        sms, domain = self._config.sms, self._config.homeserver.domain
        self._provisioning = Provisioning(sms, domain) if sms is not None else None

    def operations(self) -> list[Tool[Any]]:
        if self._provisioning is None:
            return []
        sms = SmsOperations(self._policy, self._provisioning)
        # People begin texts too, by a command.
        return [one for owner in (sms, *self.tools()) for one in tools_in(owner)]

    def tools(self) -> list[Texting]:
        """Objects that declare tools for agents and programs."""
        sms, stores = self._config.sms, self._stores
        if sms is None or self._provisioning is None:
            return []
        return [
            Texting(
                sms,
                self._policy,
                self._provisioning,
                self._homeserver,
                stores.conversations,
                stores.turns,
                stores.audit,
            )
        ]
