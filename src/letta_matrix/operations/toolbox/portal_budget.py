"""What agents send to other networks by tools counts as what is asked there does."""

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.operations.toolbox.tool import Caller
from letta_matrix.portals.day_budget import DayBudget
from letta_matrix.store.portals import Portal


async def count(
    budget: DayBudget, caller: Caller, portal: Portal, tool: str, contact: str = ""
) -> None:
    """Count what a call of `tool` sends to a `contact`, once. Raises ToolError where a day's
    number is used up, and StoreUnavailable."""
    if await budget.text(portal, caller.txn(tool, 0), contact) is not None:
        text = "The number of messages in a day is used up; try again tomorrow."
        raise ToolError(text, Fault.RATE_LIMITED)
