"""The original way: a bot that long-polls /sync and logs in by password for each reply.

Runs as `python -m bench.nio_bot SETTINGS.json`: the listener's account syncs, and the agent's
account is logged in anew whenever it is to answer.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from aiohttp import web
from nio import AsyncClient, Event, MatrixRoom, RoomMessageText

_SYNC_MS = 5000


class LoginPerReplyBot:
    """Answers `person` with `echo: ...`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self.listening = False

    async def run(self) -> None:
        listener = AsyncClient(self._settings["homeserver"], self._settings["listener"])
        await listener.login(self._settings["listener_password"])
        await listener.sync(timeout=0)
        listener.add_event_callback(self._answer, RoomMessageText)
        self.listening = True
        await listener.sync_forever(timeout=_SYNC_MS)

    async def _answer(self, room: MatrixRoom, event: Event) -> None:
        if not isinstance(event, RoomMessageText) or event.sender != self._settings["person"]:
            return
        agent = AsyncClient(self._settings["homeserver"], self._settings["agent"])
        try:
            await agent.login(self._settings["agent_password"])
            content = {"msgtype": "m.text", "body": f"echo: {event.body}"}
            await agent.room_send(room.room_id, "m.room.message", content)
        finally:
            await agent.close()


async def _serve(settings: dict[str, Any]) -> None:
    bot = LoginPerReplyBot(settings)

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({}, status=200 if bot.listening else 503)

    app = web.Application()
    app.router.add_get("/health", health)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", settings["port"]).start()
    await bot.run()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(Path(sys.argv[1]).read_text())))
