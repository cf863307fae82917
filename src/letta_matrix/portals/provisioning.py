"""The provisioning API of mautrix bridges (bridgev2, `/_matrix/provision/v3`): pairing a phone, and
beginning talks."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from letta_matrix.common.connections.unreached import why_unreached
from letta_matrix.common.json_fields import (
    Json,
    as_list,
    as_texts,
    items,
    mapping,
    parse_json,
    string_of,
)
from letta_matrix.common.sureness import Sure, alone
from letta_matrix.config import SmsSettings
from letta_matrix.portals.bridges import NetworkBridge

FLOWS = ("google", "qr")
"""How mautrix-gmessages pairs a phone: by a Google account, or by a code that it scans."""

ANSWERS_WITHIN, DONE_WITHIN = 30.0, 240.0
"""Seconds for an answer, and for what somebody has to do on the phone before it comes."""
_LARGEST = 2_000_000
_LONGEST = 300


class Why(StrEnum):
    """Kinds of faults."""

    UNAVAILABLE = "unavailable"
    REFUSED = "refused"
    LOGGED_OUT = "logged-out"
    FOREIGN = "foreign"  # the answer is about somebody else


class ProvisioningFault(Exception):
    """The bridge did not do it; the text says why, and what to do."""

    def __init__(self, text: str, why: Why) -> None:
        super().__init__(text)
        self.why = why


@dataclass(frozen=True, slots=True)
class Step:
    """Where a login stands: it `shows` something (`data`) until somebody has done it on the phone,
    it `wants` values by these names, found at `url`, or it has led to `login`."""

    process: str
    step_id: str
    kind: str
    instructions: str = ""
    shows: str = ""
    data: str = ""
    wants: tuple[str, ...] = ()
    url: str = ""
    login: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """A phone that is paired, and how it is: `CONNECTED`, or what the bridge says instead, with
    the code of an `error` where it has one."""

    login_id: str
    name: str
    state: str
    reason: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody whom the phone knows; `room_id` is their portal, "" where there is none."""

    user_id: str
    name: str
    numbers: tuple[str, ...]
    room_id: str = ""


class Provisioning:
    """Asks the bridge in the name of its line. What is not as it has to be is a fault. Methods
    raise ProvisioningFault. `changed` is set when a phone has been paired or unpaired. It is `sure`
    before each request that changes something."""

    def __init__(self, settings: SmsSettings, domain: str, *, sure: Sure | None = None) -> None:
        self._sure = sure or alone
        self._bridge = NetworkBridge(settings)
        self._settings = settings
        self._domain = domain
        self.changed = asyncio.Event()

    async def logins(self) -> list[Login]:
        """The phones that the line has paired."""
        told = await self._call("GET", "whoami")
        bot, domain = string_of(told, "bridge_bot"), string_of(told, "homeserver")
        if (bot, domain) != (self._settings.bot, self._domain):
            raise self._foreign(f"it is the bridge of {bot or '(nobody)'}")
        if (logins := told.get("logins")) is not None and items(logins) is None:
            raise self._nonsense()
        found: list[Login] = []
        for one in as_list(logins):
            state = mapping(one.get("state"))
            event = string_of(state, "state_event") or string_of(one, "state_event")
            error = string_of(state, "error")[:_LONGEST]
            reason = string_of(state, "message")[:_LONGEST] or error
            name = string_of(one, "name")
            found.append(Login(string_of(one, "id"), name, event, reason, error))
        return found

    async def start(self, flow: str) -> Step:
        """Begin to pair a phone by one of FLOWS."""
        return self._step(await self._call("POST", f"login/start/{quote(flow, safe='')}"))

    async def go_on(self, step: Step, values: Mapping[str, str]) -> Step:
        """Give what a step wants, or wait until what it shows is done; the next one."""
        names = (step.process, step.step_id, step.kind)
        path = "login/step/" + "/".join(quote(one, safe="") for one in names)
        within = DONE_WITHIN if step.shows else ANSWERS_WITHIN + 30.0
        return self._step(await self._call("POST", path, dict(values), within))

    async def logout(self, login_id: str = "all") -> None:
        """Unpair a phone, or all of the line."""
        await self._call("POST", f"logout/{quote(login_id, safe='')}")
        self.changed.set()

    async def contacts(self) -> list[Known]:
        """Whom the phone knows."""
        told = (await self._call("GET", "contacts")).get("contacts")
        if items(told) is None:
            raise self._nonsense()
        return [self._known(one) for one in as_list(told)]

    async def talk_with(self, number: str) -> Known:
        """Somebody with a number, with the portal of the talk with them, which is made where there
        is none."""
        known = self._known(await self._call("POST", f"create_dm/{quote(number, safe='')}"))
        if known.numbers and number not in known.numbers:
            raise self._foreign("it tells of another number than was asked for")
        if not known.room_id.startswith("!"):
            raise self._nonsense()
        return known

    def _known(self, told: Json) -> Known:
        user_id = string_of(told, "mxid")
        if user_id and not self._bridge.is_ghost(user_id):
            raise self._foreign(f"{user_id[:_LONGEST]} is none of its ghosts")
        given = as_texts(told.get("identifiers"))
        numbers = tuple(sorted(self._bridge.normal(one) for one in given))
        room_id = string_of(told, "dm_room_mxid")
        return Known(user_id, string_of(told, "name")[:_LONGEST], numbers, room_id)

    def _step(self, told: Json) -> Step:
        process, step_id, kind = (string_of(told, key) for key in ("login_id", "step_id", "type"))
        shown, asked = mapping(told.get("display_and_wait")), mapping(told.get(kind))
        fields = as_list(asked.get("fields"))
        step = Step(
            process,
            step_id,
            kind,
            string_of(told, "instructions")[:_LONGEST],
            string_of(shown, "type"),
            string_of(shown, "data")[:4_000],
            tuple(string_of(one, "id") for one in fields if one.get("required", True)),
            string_of(asked, "url"),
            string_of(mapping(told.get("complete")), "user_login_id"),
        )
        if not (process and step_id) or not (step.shows or step.wants or step.login):
            raise self._nonsense()
        if step.login:
            self.changed.set()
        return step

    async def _call(
        self, method: str, path: str, given: Json | None = None, within: float = ANSWERS_WITHIN
    ) -> Json:
        settings = self._settings.provisioning
        if settings is None or self._settings.line is None:
            text = "`sms.provisioning` has to say where the bridge listens, and `sms.line` for whom"
            raise ProvisioningFault(text, Why.REFUSED)
        # Redirects may lead to anybody, and the secret would go with us.
        query = urlencode({"user_id": self._settings.line})
        url = URL(f"{settings.url}/_matrix/provision/v3/{path}?{query}", encoded=True)
        headers = {"Authorization": f"Bearer {settings.secret.get_secret_value()}"}
        data = None
        if method == "POST":
            data = json.dumps(given or {})
            await self._sure()
        timeout = aiohttp.ClientTimeout(total=within)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as http,
                http.request(method, url, data=data, allow_redirects=False) as response,
            ):
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > _LARGEST:
                        raise self._nonsense(response.status)
                return self._answer(response.status, parse_json(bytes(body)))
        except TimeoutError:
            text = f"the bridge at {settings.url} has not answered within {within:.0f} s"
            raise ProvisioningFault(text, Why.UNAVAILABLE) from None
        except (aiohttp.ClientError, OSError) as error:
            text = f"the bridge at {settings.url} cannot be reached: {why_unreached(error)}"
            raise ProvisioningFault(text, Why.UNAVAILABLE) from None

    def _answer(self, status: int, body: object) -> Json:
        told = mapping(body)
        if status in (200, 201) and isinstance(body, dict):
            return told
        errcode, error = string_of(told, "errcode"), string_of(told, "error")[:_LONGEST]
        if errcode == "FI.MAU.NOT_LOGGED_IN":
            text = "no phone is paired with the line: `letta-matrix sms login`"
            raise ProvisioningFault(text, Why.LOGGED_OUT)
        if status == 401 and errcode:
            text = "the bridge does not know our secret: `sms.provisioning.secret` has to be its "
            raise ProvisioningFault(text + "`provisioning.shared_secret`", Why.REFUSED)
        if status == 403 and errcode:
            text = f"the bridge lets {self._settings.line} not log in: `letta-matrix sms "
            raise ProvisioningFault(text + "bridge-config` says what it needs", Why.REFUSED)
        if errcode:
            raise ProvisioningFault(f"the bridge says: {error or errcode}", Why.REFUSED)
        raise self._nonsense(status)

    def _nonsense(self, status: int = 200) -> ProvisioningFault:
        text = f"what answers in the bridge's place (status {status}) is no provisioning API: see "
        text += "whether `sms.provisioning.url` leads to it"
        return ProvisioningFault(text, Why.UNAVAILABLE)

    def _foreign(self, what: str) -> ProvisioningFault:
        text = f"the bridge answers with what is not of this line ({what}): see whether "
        return ProvisioningFault(text + "`sms.provisioning.url` and `sms.bot` fit", Why.FOREIGN)
