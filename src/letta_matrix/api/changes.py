"""Changes that no tool makes: done once for each transaction, and noted in the audit log."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

from pydantic import Field, StringConstraints

from letta_matrix.api.calling import DOOR
from letta_matrix.api.routing import Body
from letta_matrix.api.services import Services
from letta_matrix.runtimes.faults import (
    AgentGone,
    CredentialsRefused,
    RateLimited,
    RuntimeFault,
    RuntimeUnavailable,
)
from letta_matrix.store.audit import AuditEntry
from letta_matrix.toolbox.faults import Fault, ToolError
from letta_matrix.toolbox.ledger import fingerprint
from letta_matrix.toolbox.principal import Principal
from letta_matrix.toolbox.tool import Result


class WriteBody(Body):
    """What is sent to change something."""

    transaction_id: Annotated[str, StringConstraints(max_length=200, pattern=r"^[\x21-\x7e]*$")] = (
        Field("", description="the same as the header `Idempotency-Key`")
    )


async def change(
    api: Services,
    holder: Principal,
    what: str,
    arguments: Mapping[str, object],
    transaction_id: str,
    work: Callable[[bool], Awaitable[Result]],
) -> Result:
    """Do `work` in a principal's name; `what` names it in the log, such as `agents.create`.

    `work` is told whether an earlier try may have got somewhere. What a runtime says against it
    becomes a ToolError.
    """
    entry = AuditEntry(
        principal=holder.key,
        user_id=api.config.bot_user_id,
        door=DOOR,
        tool=what,
        fingerprint=fingerprint(arguments),
        at=time.time(),
        transaction_id=transaction_id or None,
    )

    async def told(again: bool) -> Result:
        try:
            return await work(again)
        except RuntimeFault as error:
            raise as_tool_error(error) from error

    return await api.toolbox.ledger.run(entry, told)


def as_tool_error(error: RuntimeFault) -> ToolError:
    """What a runtime says, for whoever called."""
    text = str(error) or type(error).__name__
    if isinstance(error, RateLimited):
        return ToolError(text, Fault.UNAVAILABLE, retry_after=error.retry_after)
    if isinstance(error, RuntimeUnavailable | CredentialsRefused):
        return ToolError(text, Fault.UNAVAILABLE)
    return ToolError(text, Fault.NOT_FOUND if isinstance(error, AgentGone) else Fault.REFUSED)
