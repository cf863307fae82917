"""Edits and redactions of what people said before. Pure decisions on one event."""

from collections.abc import Mapping
from typing import Any

from letta_matrix.conversations.new_turns import are_ids, sent_at
from letta_matrix.conversations.readable import attachment_of, read_prompt
from letta_matrix.conversations.routing import Router
from letta_matrix.matrix.events import redacted, replaced
from letta_matrix.store.amendments import Amendment
from letta_matrix.store.inbox import InboxEntry, InboxState


def amending_entry(event: Mapping[str, Any], router: Router) -> InboxEntry | None:
    """An edit or a redaction, with what it changes if its target is its sender's own message;
    None for what is neither."""
    edit = replaced(event) if event.get("type") == "m.room.message" else None
    removed = redacted(event)
    if edit is None and not are_ids(removed):
        return None
    if not are_ids(*(event.get(key) for key in ("event_id", "room_id", "sender"))):
        return None
    entry = InboxEntry(str(event["event_id"]), str(event["room_id"]), event, InboxState.IGNORED)
    if edit is None:
        entry.amends = Amendment(
            str(removed), entry.room_id, str(event["sender"]), sent_at(event), withdrawn=True
        )
        return entry
    target, content = edit
    sender = str(event["sender"])
    is_contact = router.portals.is_of_network(sender)
    if not are_ids(target) or not (is_contact or router.may_speak(sender)):
        return entry
    message = {**event, "event_id": target, "content": content}
    prompt, speaks = read_prompt(message)
    if speaks and (prompt is not None or attachment_of(message) is not None):
        entry.amends = Amendment(
            target,
            entry.room_id,
            str(event["sender"]),
            sent_at(event),
            prompt,
            attachment_of(message),
            content=content,
        )
        entry.adds = [] if is_contact else router.mentioned_anew(message)
    return entry
