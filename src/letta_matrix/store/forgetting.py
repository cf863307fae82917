"""Forgets, on an operator's word, what the homeserver is believed to have."""

from collections.abc import Collection

from letta_matrix.store.agents import (
    DOUBTED,
    LOGINS_ENDED,
    NEW_ROOM,
    WANTING,
    Agent,
    AgentDirectory,
    homeless,
    without_account,
)
from letta_matrix.store.meta import Meta

_WHOSE = ("registered", "sole", LOGINS_ENDED)

OF_THE_SPACE = ("space_members", "space_avatar", "space_admins")
"""Keys of `meta` by which it is remembered how the space looks, and who is in it."""
_OF_THE_BOT = ("bot", "bot_sole", "control_room", "space", *OF_THE_SPACE, WANTING)


async def forget_agents(
    directory: AgentDirectory, agent_ids: Collection[str], *, new_room: bool
) -> None:
    """Forget agents' accounts and rooms: the next time they are reconciled they are verified, and
    found or made anew. With `new_room` their aliases leave the rooms that they lead to. Raises
    StoreUnavailable."""
    marks: dict[str, object] = {DOUBTED: True, **({NEW_ROOM: ""} if new_room else {})}

    def forgotten(one: Agent) -> Agent:
        # An account that is there was not made by others: one that is gone is made anew.
        known = {key: one.applied[key] for key in _WHOSE if key in one.applied}
        return homeless(without_account(one), **known, **marks)

    await directory.change(agent_ids, forgotten)


async def forget_home(meta: Meta) -> None:
    """Forget the bot's account and its rooms. Raises StoreUnavailable."""
    await meta.forget(*_OF_THE_BOT)
