"""Whether we and the homeserver reach each other, and in which setting the mistake is if not.

The homeserver speaks of what it tries with errcodes of its own (Matrix 1.7, application service
ping), and what it tries is the `url` of *its* copy of the registration.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
from mautrix.api import ClientPath, Method
from mautrix.errors import MatrixRequestError
from yarl import URL

from letta_matrix.common.json_fields import mapping
from letta_matrix.common.vitals import Trouble
from letta_matrix.config import Config
from letta_matrix.matrix import answers
from letta_matrix.matrix.errors import NOT_REGISTERED, is_about_token, is_misrouted, refusal
from letta_matrix.matrix.requests import HomeserverUnavailable, Requests
from letta_matrix.matrix.spec_versions import is_older

AWAY = Trouble("the homeserver cannot be reached")
HANGS = Trouble(
    "the homeserver hangs: it takes connections, and gives no answer in 5 s",
    "see its log, and whether homeserver.url leads to it",
)

_TIMEOUT = aiohttp.ClientTimeout(total=5)
_PINGS = ("M_CONNECTION_FAILED", "M_CONNECTION_TIMEOUT", "M_BAD_STATUS")
"""What a homeserver says of an application service that it does not reach."""
_SILENT = ("M_CONNECTION_FAILED", "M_CONNECTION_TIMEOUT")
_STATUS = re.compile(r"(?:HTTP|status)(?: response)? (\d{3})")
PING_SPEC = "v1.7"
_FLAGS = ("fi.mau.msc2659", "fi.mau.msc2659.stable")
"""What homeservers called the ping before that version."""
_GATEWAYS = ("502", "503", "504")
_CONTAINER = (
    "Nobody listens there, as seen from the homeserver. In a container, 127.0.0.1 and localhost "
    "are the container itself: name an address of this machine, and let appservice.hostname be "
    "0.0.0.0"
)
_ADVICE = {
    "DNS": "it knows no such host, name one that it can look up",
    "InvalidCodepoint": "Synapse takes no address of IPv6, name a host",
    "SSL": "our port has no TLS, the address starts with http://",
}
"""By what Synapse says of a connection that comes to nothing; else `_CONTAINER`."""
_COPY = "copy registration.yaml to the homeserver again and restart it"
_CHANGE = (
    "It tries the `url` of the registration.yaml that it reads: change that and appservice.url, "
    "and restart the homeserver"
)


class NotReached(HomeserverUnavailable):
    """The homeserver is there, and one of us cannot speak to the other as configured; `trouble`
    says what to change."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(str(trouble))
        self.trouble = trouble


async def reach(homeserver: Requests, config: Config, transaction_id: str) -> bool:
    """Ask the homeserver to reach us (spec v1.7, MSC2659), which also ends its backoff, and whom
    it takes us for; whether it has a ping at all. One try each, so that a faulty registration
    shows at once.

    Raises:
        NotReached: something is configured wrongly.
        HomeserverUnavailable: it gave no answer that counts.
    """
    async with _explaining(homeserver, config):
        pings = await ping(homeserver, config, transaction_id)
    await recognised(homeserver, config)
    return pings


async def recognised(homeserver: Requests, config: Config) -> None:
    """Ask the homeserver whom it takes us for, once. Raises as `reach` does."""
    async with _explaining(homeserver, config):
        told = await homeserver.request(
            Method.GET, ClientPath.v3.account.whoami, give_up_after=0, shape=answers.user_id
        )
    _check_name(answers.words(str(told["user_id"])), config)


async def ping(homeserver: Requests, config: Config, transaction_id: str) -> bool:
    """Ask the homeserver to reach us, once; whether it can be asked.

    Raises:
        NotReached: it says that it cannot.
        HomeserverUnavailable: it gave no answer that counts.
    """
    path = ClientPath.v1.appservice[config.appservice.id].ping
    body = {"transaction_id": transaction_id}
    try:
        await homeserver.request(Method.POST, path, body, give_up_after=0)
    except MatrixRequestError as error:
        if is_misrouted(error) and await is_older(homeserver, PING_SPEC, _FLAGS):
            return False
        raise NotReached(await _explained(error, homeserver, config)) from error
    except HomeserverUnavailable as error:
        # Synapse trips over its own timer when it is sending to us already: we were reached.
        if any(sign in str(error) for sign in ("AlreadyCalled", "AlreadyCancelled")):
            return True
        cause = error.__cause__
        if isinstance(cause, MatrixRequestError) and _is_of_the_ping(cause):
            raise NotReached(_unreached(cause, config.appservice.url)) from error
        raise
    return True


def _is_of_the_ping(error: MatrixRequestError) -> bool:
    """Whether it says that the ping failed, and not the homeserver: those of the Conduit family
    have no errcode for that."""
    named = "appservice" in str(error.message).lower()
    return error.errcode in _PINGS or (error.errcode == "M_UNKNOWN" and named)


def unanswered(url: str) -> Trouble:
    """About a ping that the homeserver makes, and nobody answers at our `url`."""
    return Trouble(f"{_at(url)}: nobody answers. Does a firewall stand in between?", _CHANGE)


@asynccontextmanager
async def _explaining(homeserver: Requests, config: Config) -> AsyncGenerator[None]:
    """Raises NotReached where somebody else answers, or our settings are not the homeserver's."""
    try:
        yield
    except NotReached:
        raise
    except MatrixRequestError as error:
        raise NotReached(await _explained(error, homeserver, config)) from error
    except HomeserverUnavailable as error:
        cause = error.__cause__
        if isinstance(cause, answers.ForeignAnswer) or _is_of_a_proxy(cause):
            raise NotReached(Trouble(str(error) + await _offer(homeserver))) from error
        raise


async def _explained(error: MatrixRequestError, homeserver: Requests, config: Config) -> Trouble:
    """What a refusal of the first requests means."""
    service = config.appservice
    if is_about_token(error):
        return Trouble(NOT_REGISTERED)
    if error.errcode == "M_URL_NOT_SET":
        return Trouble(
            "the homeserver cannot reach us, as the registration that it reads has no url",
            f"write `url: {service.url}` into it and restart the homeserver",
        )
    if error.errcode == "M_FORBIDDEN":
        return Trouble(
            f"the homeserver knows our as_token under another id than {service.id!r}",
            "write the `id` of the registration that it reads into appservice.id",
        )
    if is_misrouted(error):
        return Trouble(refusal(error) + await _offer(homeserver))
    return Trouble(refusal(error))


def _unreached(error: MatrixRequestError, url: str) -> Trouble:
    told = " ".join(str(error.message or error.errcode).split()).rstrip(".")
    status = None if error.errcode in _SILENT else _STATUS.search(told)
    at = _at(url)
    if status is not None and status[1] in ("401", "403"):
        return Trouble(f"{at}: its hs_token is not ours (HTTP {status[1]})", _COPY)
    if status is not None and status[1] in _GATEWAYS:
        return Trouble(
            f"{at}: a proxy before the bridge finds none there that takes it now, or another "
            f"program answers there (HTTP {status[1]})",
            f"See which bridges that proxy has as its upstreams, and whether they run. {_CHANGE}",
        )
    if status is not None:
        return Trouble(
            f"{at}: another program answers there (HTTP {status[1]}), or there is a path in the "
            "address. The port is that of appservice.port.",
            _CHANGE,
        )
    if error.errcode == "M_CONNECTION_TIMEOUT":
        return unanswered(url)
    advice = next((advice for sign, advice in _ADVICE.items() if sign in told), "")
    return Trouble(f"{at}: {advice or f'{told}. {_CONTAINER}'}.", _CHANGE)


def _at(url: str) -> str:
    return f"the homeserver is there and cannot reach us at {url}"


def _check_name(user_id: str, config: Config) -> None:
    """Raises NotReached where the homeserver takes us for somebody else than we do."""
    localpart, _, domain = user_id.removeprefix("@").partition(":")
    if domain != config.homeserver.domain:
        raise NotReached(
            Trouble(
                f"homeserver.domain is {config.homeserver.domain}, and this homeserver is {domain}",
                "write that into config.yaml and into the namespaces of registration.yaml, and "
                "restart the homeserver",
            )
        )
    if localpart != config.appservice.bot_username:
        raise NotReached(
            Trouble(
                f"appservice.bot_username is {config.appservice.bot_username}, and the "
                f"registration that the homeserver reads has {localpart} as sender_localpart",
                _COPY,
            )
        )


def _is_of_a_proxy(cause: BaseException | None) -> bool:
    if not isinstance(cause, MatrixRequestError) or cause.errcode:
        return False
    return cause.http_status < 500


async def _offer(homeserver: Requests) -> str:
    """What the server at homeserver.url says where the homeserver is (spec: Well-known URI)."""
    base = await _well_known(homeserver)
    if base is None or base == homeserver.url:
        return ""
    return f" It says itself where it is: homeserver.url should be {base}"


async def _well_known(homeserver: Requests) -> str | None:
    url = URL(homeserver.url).origin() / ".well-known/matrix/client"
    try:
        _, body = await homeserver.route.ask("GET", url, _TIMEOUT)
    except (aiohttp.ClientError, TimeoutError, answers.ForeignAnswer):
        return None
    told = answers.parsed(body) or {}
    base = mapping(told.get("m.homeserver")).get("base_url")
    if not isinstance(base, str) or not base.startswith("http") or answers.words(base) != base:
        return None
    return base.rstrip("/")
