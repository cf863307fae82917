"""An agent's words as they go out to another network. Pure functions."""

import re

from letta_matrix.config import PortalSettings
from letta_matrix.portals.plain_text import plain
from letta_matrix.portals.segments import pieces, segments
from letta_matrix.store.agents import Agent

PROFILE = "com.beeper.per_message_profile"
"""As whom a message shows that somebody else has sent (MSC4144)."""

MAX_MESSAGES = 20
"""Of one reply; what is beyond is cut, and said to be."""

_CUT = "\u2026 (cut)"
_NUMBER = "(99/99) "
_FIRST_WORD = re.compile(r"\s*@?([^:,\s]+)")


def profile_of(agent: Agent) -> dict[str, object]:
    """How an agent shows where the line speaks for it."""
    return {"id": agent.agent_id, "displayname": agent.name}


def outgoing(markdown: str, settings: PortalSettings) -> list[str]:
    """A reply as the messages that a bridge is given, none for what says nothing: plain text, at
    most as many segments or bytes each as configured, numbered where they are text messages. None
    of them is a command to the bridge."""
    text = _no_command(plain(markdown), settings)
    if not text:
        return []

    def fits(piece: str) -> bool:
        if settings.sms:
            return segments(piece) <= settings.segments
        return len(piece.encode()) <= settings.part_bytes

    if fits(text):
        return [text]
    if settings.sms:
        found = _some(pieces(text, lambda piece: fits(_NUMBER + piece)))
        return [f"({number}/{len(found)}) {one}" for number, one in enumerate(found, 1)]
    found = _some(pieces(text, lambda piece: fits("> " + piece)))
    return [_no_command(one, settings) for one in found]


def _some(found: list[str]) -> list[str]:
    return found if len(found) <= MAX_MESSAGES else [*found[: MAX_MESSAGES - 1], _CUT]


def _no_command(text: str, settings: PortalSettings) -> str:
    """Bridges take what begins with `!` and their word, or is addressed to their bot, for a
    command: a contact may ask an agent to say just that."""
    first = _FIRST_WORD.match(text)
    bot = settings.bot[1:].partition(":")[0]
    is_command = first is not None and (
        first[1].startswith(("!", "/")) or first[1].casefold().lstrip("@") == bot.casefold()
    )
    return f"> {text}" if is_command else text
