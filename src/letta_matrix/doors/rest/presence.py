"""Requests that take long: whether somebody still waits for the answer, and may have it."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from letta_matrix.access.authenticator import bearer_of
from letta_matrix.common import clock
from letta_matrix.common.waiting import ended, ends_before
from letta_matrix.doors.rest.problems import Problem
from letta_matrix.doors.rest.security import peer_of, services_of

EVERY = 5.0
"""Seconds between two looks whether a token is still good."""

_LOOK = 1.0
"""Seconds between two looks whether a client is still there."""

_STOPPING = "The bridge is stopping. Ask again in a minute, with the same `Idempotency-Key`."

_T = TypeVar("_T")


class Presence:
    """Whoever sent a request, as long as it takes."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._authenticator = services_of(request).authenticator
        self._stopping = services_of(request).stopping
        self._bearer = bearer_of(request.headers.get("Authorization"))
        self._look_at = clock.now() + EVERY

    async def confirm(self) -> None:
        """Look the token up once more, if that was long ago.

        Raises Unauthorized, TooOften, StoreUnavailable, and Problem when the bridge stops.
        """
        if self._stopping.is_set():
            raise Problem("unavailable", _STOPPING)
        now = clock.now()
        if now >= self._look_at:
            self._look_at = now + EVERY
            await self._authenticator.identify(self._bearer, peer_of(self._request))

    async def during(self, work: Coroutine[None, None, _T]) -> _T:
        """Do `work`, which ends when the client goes away or the token does.

        Raises ClientDisconnect, and what `confirm` and `work` raise.
        """
        task = asyncio.create_task(work)
        try:
            while not await ends_before(task, self._stopping, min(_LOOK, EVERY)):
                if await self._request.is_disconnected():
                    raise ClientDisconnect
                await self.confirm()
        finally:
            await ended(task)
        return await task
