"""Our WebSocket as the MCP SDK's clients take transports."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from tests.mcp_socket import raw_client

Streams = tuple[
    MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]
]


@asynccontextmanager
async def transport(url: str, token: str) -> AsyncGenerator[Streams]:
    """Connected; it ends with the block."""
    async with raw_client(url, token) as raw:
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)

        async def receive() -> None:
            async with incoming:
                async for frame in raw.socket:
                    message = jsonrpc_message_adapter.validate_json(frame.data)
                    await incoming.send(SessionMessage(message))

        async def send() -> None:
            async with outgoing:
                async for item in outgoing:
                    text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                    await raw.socket.send_str(text)

        tasks = [asyncio.create_task(receive()), asyncio.create_task(send())]
        async with read, write:
            yield read, write
        await raw.socket.close()
        await asyncio.gather(*tasks, return_exceptions=True)
