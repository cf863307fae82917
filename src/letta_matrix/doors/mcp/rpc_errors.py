"""Refusals as errors of JSON-RPC."""

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.doors.mcp.refusals import Refusable, refusal_of

_BEYOND_THE_CALLER = {Fault.RATE_LIMITED, Fault.UNAVAILABLE, Fault.TIMEOUT, Fault.FAILED}


def rpc_error(error: ToolError) -> MCPError:
    """For requests whose results cannot say that they failed, such as `resources/read`."""
    code = INTERNAL_ERROR if error.fault in _BEYOND_THE_CALLER else INVALID_PARAMS
    data: dict[str, object] = {"fault": str(error.fault)}
    if error.retry_after > 0:
        data["retry_after"] = error.retry_after
    return MCPError(code, str(error).encode("utf-8", "replace").decode(), data)


def refused(error: Refusable) -> MCPError:
    """For what no request gets past; `error` is one of `REFUSED`."""
    refusal = refusal_of(error)
    wait = {"retry_after": round(refusal.retry_after, 3)} if refusal.retry_after else None
    return MCPError(refusal.code, str(refusal), wait)
