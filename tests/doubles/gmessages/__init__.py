"""A double of mautrix-gmessages: a second application service on the real homeserver, strict about
what the real one refuses. There is no phone here, so the phone is one over HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web
from tests.doubles.gmessages.matrix import Json, Matrix
from tests.doubles.gmessages.portals import Login, Phone, Portals, Rules
from tests.doubles.gmessages.provisioning import Provisioning


@dataclass
class Gmessages:
    """The bridge as it runs. It may stop and start again, and goes on then."""

    registration: Json
    matrix: Matrix
    phone: Phone
    portals: Portals
    provisioning: Provisioning
    _seen: set[str] = field(default_factory=set[str])
    _events: asyncio.Queue[Json] = field(default_factory=asyncio.Queue[Json])
    _current: Json | None = None
    _runner: web.AppRunner = field(init=False)
    _working: asyncio.Task[None] = field(init=False)

    @property
    def url(self) -> str:
        return str(self.registration["url"])

    async def _work(self) -> None:
        while True:
            self._current = self._current or await self._events.get()
            await self.portals.handle(self._current)
            self._current = None

    async def _transaction(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.registration['hs_token']}":
            return web.json_response({"errcode": "M_FORBIDDEN"}, status=403)
        txn = request.match_info["txn"]
        told: Json = await request.json() if txn not in self._seen else {}
        for event in told.get("events", ()):
            self._events.put_nowait(event)
        for event in told.get("ephemeral", ()):
            self.portals.show(event)
        self._seen.add(txn)
        return web.json_response({})

    async def _asked(self, request: web.Request) -> web.Response:
        return web.json_response({"errcode": "M_NOT_FOUND"}, status=404)

    async def _told(self, request: web.Request) -> web.Response:
        texts = [{"to": number, "text": text} for number, text in self.phone.sent]
        return web.json_response({"texts": texts, "connected": self.phone.connected})

    async def _done(self, request: web.Request) -> web.Response:
        """`text` comes in, is `typed` on the phone, or its `state` changes."""
        given, login = await request.json(), self._login()
        match request.match_info["what"]:
            case "text" if login is not None:
                done = await self.portals.receive(login, given["number"], given["text"])
            case "typed" if login is not None:
                done = await self.portals.typed(login, given["number"], given["text"])
            case "state":
                self.phone.connected = given.get("connected", True)
                slow = given.get("slow", False)
                (self.phone.answers.clear if slow else self.phone.answers.set)()
                done = ""
            case _:
                return web.json_response({"error": "no phone is paired"}, status=409)
        return web.json_response({"event_id": done})

    def _login(self) -> Login | None:
        return next(iter(self.portals.logins.values()), None)

    async def start(self) -> None:
        """Listen, and work; all is as it was before."""
        app = web.Application()
        app.router.add_put("/_matrix/app/v1/transactions/{txn}", self._transaction)
        app.router.add_get("/_matrix/app/v1/{kind}/{name}", self._asked)
        app.add_subapp("/_matrix/provision", self.provisioning.app())
        app.router.add_get("/phone", self._told)
        app.router.add_post("/phone/{what}", self._done)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        port = int(self.url.rpartition(":")[2])
        await web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True).start()
        self._working = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Be gone, whatever is under way."""
        self._working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._working
        await self._runner.cleanup()


@asynccontextmanager
async def gmessages_on(
    file: Path, homeserver_url: str, domain: str, rules: Rules
) -> AsyncGenerator[Gmessages]:
    """The bridge whose registration is in `file`, running."""
    told: Json = yaml.safe_load(file.read_text())
    async with aiohttp.ClientSession() as http:
        matrix, phone = Matrix(http, homeserver_url, told["as_token"], domain), Phone()
        portals = Portals(matrix, rules, phone)
        made = Gmessages(told, matrix, phone, portals, Provisioning(matrix, portals))
        await made.start()
        try:
            yield made
        finally:
            await made.stop()
