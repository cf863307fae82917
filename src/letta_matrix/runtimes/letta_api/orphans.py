"""Approvals that nobody will answer any more: they would hold up their conversation for ever."""

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import structlog

from letta_matrix.common import clock
from letta_matrix.runtimes.faults import RuntimeRefused
from letta_matrix.runtimes.letta_api.history import waiting_calls
from letta_matrix.runtimes.letta_api.progress import answer_of, approval_of

if TYPE_CHECKING:
    from letta_matrix.runtimes.letta_api.client import Client

PATIENCE = 10.0
"""Seconds that a denial has to bring a run."""
GRACE = 2.0
"""Seconds that this run has to end once it is cancelled."""
_REASON = "Nobody is there any more to allow this."
_log = structlog.get_logger()


async def deny_orphans(client: "Client", conversation_id: str) -> bool:
    """Deny the tool calls that wait in a conversation, and stop what the agent makes of that.

    False if none wait there, as far as the newest messages tell. Raises RuntimeUnavailable.
    """
    calls = waiting_calls(await client.conversation_messages(conversation_id))
    if not calls:
        return False
    denial = answer_of(allow=False, message=_REASON)
    message = approval_of(dict.fromkeys(calls, denial), f"{calls[0]}:denied")
    try:
        await _send(client, conversation_id, message)
    except RuntimeRefused as error:
        _log.warning("waiting tool call could not be denied", reason=str(error))
        return False
    _log.info("waiting tool call denied", calls=len(calls))
    return True


async def _send(client: "Client", conversation_id: str, message: dict[str, object]) -> None:
    """Send an answer, and cancel the run it brings as soon as that is known."""
    cancelled = False
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE) as patience:
            async with aclosing(client.send(conversation_id, message)) as events:
                async for event in events:
                    if cancelled or not event.data.get("run_id"):
                        continue
                    cancelled = True
                    await client.cancel(conversation_id)
                    patience.reschedule(clock.now() + GRACE)
