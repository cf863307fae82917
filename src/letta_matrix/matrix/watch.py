"""Notices that the homeserver went away and came back, with hardly a question to it.

A restarted Synapse hands out what it had not delivered only at the next event of
interest (FACTS 2), so somebody has to notice the restart and wake it.
"""

import asyncio
import contextlib
from enum import Enum, auto
from http import HTTPStatus
from typing import Protocol

import aiohttp
from yarl import URL

from letta_matrix.common import clock
from letta_matrix.common.backoff import Backoff
from letta_matrix.common.waiting import ended, ends_before
from letta_matrix.matrix import answers
from letta_matrix.matrix.requests import Requests
from letta_matrix.matrix.route import Route

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 30.0
_LONG_LIVED = 5.0
_ANSWER_TIMEOUT = 5.0
_IDLE = 15.0
"""Seconds after which it is asked without a cause."""


class ServerState(Enum):
    """How the homeserver is: HERE answers, SLOW takes connections but gives no answer in 5 s,
    AWAY is down, or its proxy says so, or somebody else answers in its place."""

    HERE = auto()
    SLOW = auto()
    AWAY = auto()


class Looked(Protocol):
    """Where the homeserver is, and the way there."""

    url: str
    route: Route


async def until_gone(homeserver: Requests) -> ServerState:
    """Return SLOW or AWAY once the homeserver is that.

    An idle connection shows at once that a homeserver died; behind a reverse proxy, or where it
    hangs, it does not. Our own failed requests (`Homeserver.outage`) give cause to ask it (one of
    them alone means nothing: a homeserver under load may fail at some and serve all others), and
    where nothing is asked of it, it is asked every 15 seconds.
    """
    holding = asyncio.create_task(_until_refused(homeserver))
    try:
        while not await ends_before(holding, homeserver.outage, _IDLE):
            homeserver.outage.clear()
            if (presence := await look(homeserver)) is not ServerState.HERE:
                return presence
            homeserver.foreign = ""
            await asyncio.sleep(_FIRST_PAUSE)
        holding.result()
        return ServerState.AWAY
    finally:
        await ended(holding)


async def until_back(homeserver: Requests) -> ServerState:
    """Return once the homeserver is HERE: how it was at its worst until then."""
    pauses, worst = iter(Backoff(_FIRST_PAUSE, _LONGEST_PAUSE / 10, 1.5)), ServerState.HERE
    while (presence := await look(homeserver)) is not ServerState.HERE:
        worst = presence if worst is not ServerState.AWAY else worst
        await asyncio.sleep(next(pauses))
    homeserver.outage.clear()
    homeserver.foreign = ""
    return worst


async def look(homeserver: Looked, token: str = "", owner: str = "") -> ServerState:
    """Ask for `/_matrix/client/versions`, or whether a token is its `owner`'s, on a connection of
    its own. One that does not take the token, or takes it for somebody else's, is AWAY."""
    url = URL(homeserver.url) / "_matrix/client"
    url /= "v3/account/whoami" if token else "versions"
    headers = {"Authorization": f"Bearer {token}"} if token else None
    timeout = aiohttp.ClientTimeout(total=_ANSWER_TIMEOUT)
    try:
        response, body = await homeserver.route.ask("GET", url, timeout, headers=headers)
    except TimeoutError:
        return ServerState.AWAY if homeserver.route.process == "" else ServerState.SLOW
    except (aiohttp.ClientError, answers.ForeignAnswer):
        return ServerState.AWAY
    answer = answers.parsed(body)
    # Somebody else's page is there in its place otherwise.
    told = "user_id" if token else "versions"
    speaks = answers.text_of(answer, "errcode") or told in (answer or {})
    refused = token and response.status == HTTPStatus.UNAUTHORIZED
    is_owner = not token or answers.text_of(answer, "user_id") in (None, owner)
    is_here = response.status < 500 and speaks and not refused and is_owner
    return ServerState.HERE if is_here else ServerState.AWAY


async def _until_refused(homeserver: Requests) -> None:
    """Returns, too, when it is another process: a port that is held for it refuses nobody."""
    pause, process = _FIRST_PAUSE, homeserver.route.process
    while homeserver.route.process == process:
        started = clock.now()
        try:
            await _hold(URL(homeserver.url))
        except OSError:
            return
        # Idle connections are closed now and then; a server that does so at once gets fewer.
        short = clock.now() - started < _LONG_LIVED
        pause = min(pause * 2, _LONGEST_PAUSE) if short else _FIRST_PAUSE
        # A process closes its connections a little before it has ended.
        await asyncio.sleep(pause if short or process else 0)


async def _hold(url: URL) -> None:
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        with contextlib.suppress(ConnectionResetError):
            await reader.read(1)
    finally:
        writer.close()
