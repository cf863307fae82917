"""Tools called by the endpoints."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Header, Response

from letta_matrix.access.principal import Principal
from letta_matrix.doors.rest.problems import Problem
from letta_matrix.doors.rest.services import Services
from letta_matrix.operations.toolbox.tool import Result

DOOR = "api"

IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        max_length=202,
        pattern=r"^[\x21-\x7e]*$",
        description="any text of your own; a request that comes again with it does nothing more",
    ),
]


class Json(Response):
    """JSON in which broken surrogates, which other people may write, do no harm."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


async def call(
    api: Services, holder: Principal, name: str, arguments: Mapping[str, object], key: str = ""
) -> Result:
    """Call a tool; `key` is the `Idempotency-Key`. Raises ToolError, Problem."""
    if key:
        arguments = _keyed(api, name, arguments, key)
    return await api.toolbox.call(holder, name, arguments, door=DOOR)


async def do(
    api: Services, holder: Principal, name: str, arguments: Mapping[str, object], key: str = ""
) -> Any:
    """Carry out an operation; `key` is the `Idempotency-Key`. Raises ToolError, Problem."""
    once = given_once(str(arguments.get("transaction_id", "")), key)
    return await api.toolbox.do(holder, name, arguments, door=DOOR, transaction_id=once)


def given_once(transaction_id: str, key: str) -> str:
    """The one that was given of a call's `transaction_id` and the `Idempotency-Key`, whose
    quotation marks do not count. Raises Problem."""
    key = key.strip('"')
    if transaction_id and key and transaction_id != key:
        text = "`Idempotency-Key` and `transaction_id` differ; give one of them."
        raise Problem("invalid-arguments", text)
    return transaction_id or key


def _keyed(
    api: Services, name: str, arguments: Mapping[str, object], key: str
) -> Mapping[str, object]:
    tool: Any = api.toolbox.tools.get(name)
    if tool is None or "transaction_id" not in tool.params.model_fields:
        return arguments
    given = arguments.get("transaction_id", "")
    if not isinstance(given, str):
        return arguments
    return {**arguments, "transaction_id": given_once(given, key)}
