"""A tool's work, with all that can go wrong as a ToolError."""

import asyncio
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.operations.toolbox.results import sentence
from letta_matrix.operations.toolbox.tool import Caller, Params, Result, Tool, WriteParams
from letta_matrix.store.database import StoreUnavailable

log = structlog.get_logger()

NO_DATABASE = "The bridge's database does not answer now. Try again in a minute."

_UNCERTAIN = (
    "It took too long. It may have happened or not: look with matrix_read_room before you try "
    "again."
)
_MAYBE = (
    "The homeserver does not answer now. It may have happened or not: look with matrix_read_room "
    "before you try again."
)
_SAFE = "It may have happened or not. Call again with the same `transaction_id`: it happens once."
_SLOW = "It took too long. Try again in a minute."
_AWAY = "The homeserver does not answer now. Try again in a minute."
_BROKEN = "The tool failed, by a fault of the bridge; its log has the reason."
_BY_STATUS = {403: Fault.FORBIDDEN, 404: Fault.NOT_FOUND, 413: Fault.TOO_LARGE, 504: Fault.TIMEOUT}


async def outcome_of(caller: Caller, tool: Tool[Any], params: Params) -> Result:
    """Run a tool, for as long as it may take. Raises ToolError alone."""
    try:
        async with asyncio.timeout(tool.seconds):
            return await tool.carry_out(caller, params)
    except ToolError:
        raise
    except Exception as error:
        told = told_as(error, caller, params, reads=tool.read_only)
        if told is None:
            log.error("a tool failed", who=caller.principal.key, tool=tool.name, exc_info=error)
            told = ToolError(_BROKEN, Fault.FAILED)
        raise told from error


def told_as(
    error: Exception, caller: Caller, params: Params, *, reads: bool = False
) -> ToolError | None:
    """A fault in the words that a caller is told, who only `reads` or not; None for a defect of
    ours."""
    match error:
        case ToolError():
            return error
        case TimeoutError():
            text = _SLOW if reads else _uncertain(caller, params, _UNCERTAIN)
            return ToolError(text, Fault.TIMEOUT)
        case HomeserverUnavailable():
            # It may have got the request; only its answer may be lost.
            text = _AWAY if reads else _uncertain(caller, params, _MAYBE)
            return ToolError(text, Fault.UNAVAILABLE)
        case StoreUnavailable():
            return ToolError(NO_DATABASE, Fault.UNAVAILABLE)
        case MatrixRequestError():
            fault = _BY_STATUS.get(error.http_status, Fault.REFUSED)
            return ToolError(sentence(refusal(error)), fault)
        case _:
            return None


def _uncertain(caller: Caller, params: Params, text: str) -> str:
    """What to do about a write that may have happened, with a transaction of the caller's own."""
    given = params.transaction_id if isinstance(params, WriteParams) else ""
    if not given or given != caller.request_id:
        return text
    return f"{text.partition('.')[0]}. {_SAFE}"
