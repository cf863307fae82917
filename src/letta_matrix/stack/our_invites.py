"""A module of the embedded Synapse, which loads it: people are in the agents' rooms without having
to accept an invitation to each, and in nobody else's unless they want to."""

from collections.abc import Mapping
from typing import Any

from synapse.config.auto_accept_invites import AutoAcceptInvitesConfig
from synapse.config.homeserver import HomeServerConfig
from synapse.events.auto_accept_invites import InviteAutoAccepter
from synapse.module_api import EventBase, ModuleApi

from letta_matrix.common.identifiers import is_ours


class OurInvites(InviteAutoAccepter):
    """Accepts invitations by the bot and the agents' ghosts into the bridge's own rooms, and no
    others: Synapse's own `auto_accept_invites` would let any user of the server bring people into
    a room that looks like an agent's, and any agent that is asked to. The bridge's rooms are known
    by aliases that it alone may give. `bot` in the module's settings is the bot's user id.
    """

    def __init__(self, config: Mapping[str, str], api: ModuleApi) -> None:
        self._bot, self._api = config["bot"], api
        settings = AutoAcceptInvitesConfig(HomeServerConfig())
        settings.read_config({"auto_accept_invites": {"enabled": True}})
        super().__init__(settings, api)

    async def on_new_event(self, event: EventBase, *args: Any) -> None:
        """Hear of an event that was stored."""
        if is_ours(event.sender, self._bot) and await self._is_bridges(event.room_id):
            await super().on_new_event(event, *args)

    async def _is_bridges(self, room_id: str) -> bool:
        state = await self._api.get_room_state(room_id, [("m.room.canonical_alias", "")])
        aliases = [event.content.get("alias") for event in state.values()]
        return any(isinstance(one, str) and is_ours(f"@{one[1:]}", self._bot) for one in aliases)
