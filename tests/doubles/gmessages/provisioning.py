"""The double's provisioning API (bridgev2, `/_matrix/provision/v3`)."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web
from tests.doubles.gmessages.matrix import PREFIX, Json, Matrix
from tests.doubles.gmessages.portals import Login, Portals

_FLOWS = [
    {"id": "google", "name": "Google Account", "description": "pair by tapping an emoji"},
    {"id": "qr", "name": "QR", "description": "pair by scanning a code"},
]
_COOKIES = ("SID", "HSID", "SSID", "OSID", "APISID", "SAPISID")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _refusal(status: int, errcode: str, error: str) -> web.Response:
    return web.json_response({"errcode": errcode, "error": error}, status=status)


@dataclass
class Process:
    """A login that is under way: the step that is next."""

    user_id: str
    step: Json


@dataclass
class Provisioning:
    """Answers whoever knows the `secret`, in the name of a user. `odd` answers in its place if
    it is set; `tapped` is set once somebody has tapped or scanned, and its `number` is the
    phone's."""

    matrix: Matrix
    portals: Portals
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    number: str = "+15550000001"
    tapped: asyncio.Event = field(default_factory=asyncio.Event)
    odd: Callable[[web.Request], web.StreamResponse | None] = lambda _: None
    processes: dict[str, Process] = field(default_factory=dict[str, Process])
    requests: list[str] = field(default_factory=list[str])

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guarded])
        app.router.add_get("/v3/whoami", self._whoami)
        app.router.add_post("/v3/login/start/{flow}", self._start)
        app.router.add_post("/v3/login/step/{process}/{step}/{kind}", self._step)
        app.router.add_post("/v3/logout/{login}", self._logout)
        app.router.add_get("/v3/contacts", self._contacts)
        app.router.add_post("/v3/create_dm/{number}", self._create_dm)
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path.rpartition('/v3')[2]}")
        if (odd := self.odd(request)) is not None:
            return odd
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not given:
            return _refusal(401, "M_MISSING_TOKEN", "Missing auth token")
        if not secrets.compare_digest(given, self.secret):
            return _refusal(401, "M_UNKNOWN_TOKEN", "Invalid auth token")
        if not self.portals.rules.may_log_in(_user(request)):
            return _refusal(403, "M_FORBIDDEN", "User does not have login permissions")
        return await handler(request)

    async def _whoami(self, request: web.Request) -> web.Response:
        login = self.portals.logged_in(_user(request))
        event = {"state_event": "CONNECTED"}
        if not self.portals.phone.connected:
            # Not unpaired, though it is called so.
            event = {"state_event": "BAD_CREDENTIALS", "error": "gm-phone-not-responding"}
            event["message"] = "Your Google Messages app is not responding."
        told = [{"id": login.login_id, "name": login.number, "state": event}] if login else []
        answer = {
            "network": {"displayname": "Google Messages", "network_id": PREFIX},
            "login_flows": _FLOWS,
            "homeserver": self.matrix.domain,
            "bridge_bot": self.matrix.bot,
            "command_prefix": "!gm",
            "logins": told,
        }
        return web.json_response(answer)

    async def _start(self, request: web.Request) -> web.Response:
        flow = request.match_info["flow"]
        if flow not in ("google", "qr"):
            return _refusal(500, "M_UNKNOWN", "Internal error creating login process")
        step = _shown("qr") if flow == "qr" else _asked()
        process_id = secrets.token_hex(8)
        self.processes[process_id] = Process(_user(request), step)
        return web.json_response({"login_id": process_id, **step})

    async def _step(self, request: web.Request) -> web.Response:
        process_id, wanted = request.match_info["process"], request.match_info["step"]
        process = self.processes.get(process_id)
        if process is None:
            return _refusal(404, "M_NOT_FOUND", "Login not found")
        if (process.step["step_id"], process.step["type"]) != (wanted, request.match_info["kind"]):
            return _refusal(400, "M_BAD_STATE", "Step ID does not match")
        if process.step["type"] == "cookies":
            given = await request.json()
            if any(not given.get(one) for one in _COOKIES):
                why = "Phone not responding."
                return _refusal(400, "FI.MAU.GMESSAGES.PAIR_INIT_TIMEOUT", why)
            process.step = _shown("emoji")
        else:
            await self.tapped.wait()
            process.step = self._paired(process.user_id)
        return web.json_response({"login_id": process_id, **process.step})

    def _paired(self, user_id: str) -> Json:
        login_id = f"phone-{secrets.token_hex(4)}"
        prefix = len(self.portals.logins) + 1
        self.portals.logins[user_id] = Login(login_id, user_id, self.number, prefix)
        complete = {"user_login_id": login_id}
        return {"type": "complete", "step_id": "fi.mau.gmessages.complete", "complete": complete}

    async def _logout(self, request: web.Request) -> web.Response:
        login, wanted = self.portals.logged_in(_user(request)), request.match_info["login"]
        if wanted != "all" and (login is None or login.login_id != wanted):
            return _refusal(404, "M_NOT_FOUND", "Login not found")
        self.portals.logins.pop(_user(request), None)
        return web.json_response({})

    async def _contacts(self, request: web.Request) -> web.Response:
        login = self.portals.logged_in(_user(request))
        if login is None:
            return _refusal(400, "FI.MAU.NOT_LOGGED_IN", "Not logged in")
        known = [one for one in self.portals.all.values() if one.login is login]
        told = [_contact(one.ghost, one.number, one.room_id) for one in known]
        return web.json_response({"contacts": told})

    async def _create_dm(self, request: web.Request) -> web.Response:
        login, number = self.portals.logged_in(_user(request)), request.match_info["number"]
        if login is None:
            return _refusal(400, "FI.MAU.NOT_LOGGED_IN", "Not logged in")
        if not number.removeprefix("+").isdigit():
            return _refusal(404, "M_NOT_FOUND", "Identifier not found")
        is_new = (login.login_id, number) not in self.portals.all
        portal = await self.portals.portal(login, number)
        told = _contact(portal.ghost, number, portal.room_id)
        return web.json_response(told, status=201 if is_new else 200)


def _user(request: web.Request) -> str:
    return request.query.get("user_id", "")


def _contact(ghost: str, number: str, room_id: str) -> Json:
    told = {"id": ghost, "mxid": ghost, "identifiers": [f"tel:{number}"]}
    return told | ({"dm_room_mxid": room_id} if room_id else {})


def _shown(kind: str) -> Json:
    shows = {"type": kind, "data": "\U0001f98a" if kind == "emoji" else "https://pair.test/#abc"}
    step_id = f"fi.mau.gmessages.{kind}"
    return {
        "type": "display_and_wait",
        "step_id": step_id,
        "instructions": "Do it on your phone",
        "display_and_wait": shows,
    }


def _asked() -> Json:
    fields: list[Json] = [{"id": one, "required": True, "sources": []} for one in _COOKIES]
    return {
        "type": "cookies",
        "step_id": "fi.mau.gmessages.google_account",
        "instructions": "",
        "cookies": {"url": "https://accounts.test", "fields": fields},
    }
