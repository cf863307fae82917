"""A module of Synapse that lets nobody decorate rooms; Synapse loads a copy from its folder."""

from typing import Any

FORBIDDEN = (
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.history_visibility",
    "m.room.name",
    "m.room.power_levels",
    "m.room.topic",
    "m.space.child",
    "m.space.parent",
)


class StrictRules:
    """Refuses events by their type (module API: third party rules)."""

    def __init__(self, config: object, api: Any) -> None:
        api.register_third_party_rules_callbacks(check_event_allowed=self.allowed)

    async def allowed(self, event: Any, _state: object) -> tuple[bool, None]:
        return event.type not in FORBIDDEN, None
