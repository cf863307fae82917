"""The floor: an application service that answers every message at once and does nothing else.

Runs as `python -m bench.echo_appservice SETTINGS.json`. The ghost that made a room answers in it.
"""

import asyncio
import itertools
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import web


class EchoAppservice:
    """Transactions in, `echo: ...` out; nothing is stored, checked or retried."""

    def __init__(self, settings: dict[str, Any], http: aiohttp.ClientSession) -> None:
        self._url: str = settings["homeserver"]
        self._headers = {"Authorization": f"Bearer {settings['as_token']}"}
        self._person: str = settings["person"]
        self._http = http
        self._ghosts: dict[str, str] = {}
        self._txn = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_put("/_matrix/app/v1/transactions/{txn}", self._transaction)
        app.router.add_get("/health", self._health)
        return app

    async def _transaction(self, request: web.Request) -> web.Response:
        for event in (await request.json())["events"]:
            if event["type"] == "m.room.create":
                self._ghosts[event["room_id"]] = event["sender"]
            elif event["type"] == "m.room.message" and event["sender"] == self._person:
                task = asyncio.create_task(self._echo(event))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return web.json_response({})

    async def _echo(self, event: dict[str, Any]) -> None:
        room = event["room_id"]
        path = f"rooms/{quote(room)}/send/m.room.message/echo{next(self._txn)}"
        async with self._http.put(
            f"{self._url}/_matrix/client/v3/{path}",
            params={"user_id": self._ghosts[room]},
            json={"msgtype": "m.text", "body": f"echo: {event['content']['body']}"},
            headers=self._headers,
        ) as response:
            response.raise_for_status()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({})


async def _serve(settings: dict[str, Any]) -> None:
    async with aiohttp.ClientSession() as http:
        app = EchoAppservice(settings, http).application()
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", settings["port"]).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(Path(sys.argv[1]).read_text())))
