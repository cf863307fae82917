"""What a tool refuses, as an error of JSON-RPC."""

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS

from letta_matrix.access.faults import Fault, ToolError

_BEYOND_THE_CALLER = {Fault.RATE_LIMITED, Fault.UNAVAILABLE, Fault.TIMEOUT, Fault.FAILED}


def rpc_error(error: ToolError) -> MCPError:
    """For requests whose results cannot say that they failed, such as `resources/read`."""
    code = INTERNAL_ERROR if error.fault in _BEYOND_THE_CALLER else INVALID_PARAMS
    data: dict[str, object] = {"fault": str(error.fault)}
    if error.retry_after > 0:
        data["retry_after"] = error.retry_after
    return MCPError(code, str(error).encode("utf-8", "replace").decode(), data)
