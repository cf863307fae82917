"""What tests of the reading tools share."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.integration.bridge_world import Json
from tests.integration.toolbox.toolbox_bench import Bench

from letta_matrix.access.faults import Fault, ToolError

Read = Callable[..., Awaitable[Json]]


async def fault_of(call: Awaitable[Json]) -> Fault:
    with pytest.raises(ToolError) as error:
        await call
    return error.value.fault


def texts(told: Json) -> list[str]:
    return [message["text"] for message in told["messages"]]


async def say(bench: Bench, room_id: str, *said: str) -> list[str]:
    return [await bench.ann.send(room_id, text) for text in said]


async def upload(bench: Bench, data: bytes) -> str:
    url = f"{bench.ann.url}/_matrix/media/v3/upload"
    headers = {"Authorization": f"Bearer {bench.ann.token}", "Content-Type": "text/plain"}
    async with bench.ann.http.post(url, data=data, headers=headers) as response:
        return str((await response.json())["content_uri"])


async def post_file(bench: Bench, room_id: str, data: bytes, name: str, **more: Any) -> str:
    content = {"msgtype": "m.file", "body": name, "url": await upload(bench, data), **more}
    return await bench.ann.send_content(room_id, content)
