"""A module of the embedded Synapse, which loads it: people are in the agents' rooms without having
to accept an invitation to each, and in nobody else's unless they want to."""

from collections.abc import Mapping
from typing import Any

from synapse.config.auto_accept_invites import AutoAcceptInvitesConfig
from synapse.config.homeserver import HomeServerConfig
from synapse.events.auto_accept_invites import InviteAutoAccepter
from synapse.module_api import EventBase, ModuleApi

from letta_matrix.matrix.identifiers import is_ours


class OurInvites(InviteAutoAccepter):
    """Accepts invitations by the bot and the agents' ghosts, and no others: Synapse's own
    `auto_accept_invites` would let any user of the server bring people into a room that looks
    like an agent's. `bot` in the module's settings is the bot's user id.
    """

    def __init__(self, config: Mapping[str, str], api: ModuleApi) -> None:
        self._bot = config["bot"]
        settings = AutoAcceptInvitesConfig(HomeServerConfig())
        settings.read_config({"auto_accept_invites": {"enabled": True}})
        super().__init__(settings, api)

    async def on_new_event(self, event: EventBase, *args: Any) -> None:
        """Hear of an event that was stored."""
        if is_ours(event.sender, self._bot):
            await super().on_new_event(event, *args)
