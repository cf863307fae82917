"""What bridges tell of messages on their way to a network. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from letta_matrix.common.json_fields import string_of
from letta_matrix.matrix.events import Event

STATUS = "com.beeper.message_send_status"
SENT, FAILED = "sent", "failed"

_WARNS = "\u26a0"
"""How a bridge's notice of a message that it could not bring on begins."""
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of the message `event_id`: it is SENT or FAILED, and then `why`."""

    event_id: str
    status: str
    why: str = ""


def outcome_in(event: Mapping[str, Any]) -> Delivery | None:
    """What a status event, or a notice that answers a message, says of one; None for others, and
    for what may still go out."""
    said = Event(event)
    if event.get("type") == STATUS:
        status, why = string_of(said.content, "status"), string_of(said.content, "message")
        why = why or string_of(said.content, "reason")
        if said.target and status == "SUCCESS":
            return Delivery(said.target, SENT)
        is_over = status.startswith("FAIL")
        return Delivery(said.target, FAILED, why[:_LONGEST]) if said.target and is_over else None
    body = string_of(said.content, "body")
    is_notice = event.get("type") == "m.room.message" and said.content.get("msgtype") == "m.notice"
    if not is_notice or not said.reply_to or not body.startswith(_WARNS):
        return None
    return Delivery(said.reply_to, FAILED, body.lstrip("\u26a0\ufe0f ")[:_LONGEST])
