"""The ids of turns: one event starts one turn with one agent, whoever hears of it how often."""

import hashlib
import re

TURN_ID = re.compile(r"turn-[0-9a-f]{24}", re.ASCII)
"""What `turn_id_of` makes."""


def turn_id_of(event_id: str, agent_id: str) -> str:
    """The id of the turn that an event starts with an agent."""
    digest = hashlib.sha256(f"{event_id}\0{agent_id}".encode()).hexdigest()
    return f"turn-{digest[:24]}"


def offer_of(turn_id: str) -> str:
    """What causes the turn that a turn has offered, in the place of an event's id."""
    return f"offer of {turn_id}"
