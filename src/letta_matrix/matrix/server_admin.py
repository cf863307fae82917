"""What only an admin of the homeserver may do: Synapse's admin API, with somebody's password."""

import asyncio
from typing import Any

from mautrix.api import Method, PathBuilder, SynapseAdminPath
from mautrix.errors import MatrixRequestError

from letta_matrix.common import clock
from letta_matrix.common.json_fields import Json, as_list
from letta_matrix.matrix import answers
from letta_matrix.matrix.answers import Shape
from letta_matrix.matrix.logins import log_in
from letta_matrix.matrix.requests import Requests

_PAUSE = 300.0
_UNKNOWN_TOKEN = "M_UNKNOWN_TOKEN"  # noqa: S105 - an errcode


class ServerAdmin:
    """Logs in when it is first needed, under one device for all its logins, and keeps the token in
    memory. Methods raise MatrixRequestError for what is refused, the login too, and
    HomeserverUnavailable.
    """

    def __init__(self, homeserver: Requests, username: str, password: str) -> None:
        self._homeserver = homeserver
        self._username = username
        self._password = password
        self._token = ""
        self._logging_in = asyncio.Lock()
        self._refused: tuple[float, MatrixRequestError] | None = None

    async def set_password(self, user_id: str, password: str, *, sign_out: bool = False) -> None:
        """Let an account have a password; who is signed in there stays so, unless they are to be
        signed out."""
        body = {"password": password, "logout_devices": sign_out}
        await self._request(Method.PUT, SynapseAdminPath.v2.users[user_id], body)

    async def session_of(self, user_id: str) -> str:
        """An access token of one of the homeserver's users, which makes no device of theirs."""
        path = SynapseAdminPath.v1.users[user_id].login
        answer = await self._request(Method.POST, path, {}, answers.having("access_token", str))
        return str(answer["access_token"])

    async def room_state(self, room_id: str) -> list[Json] | None:
        """All state events of a room, None where the homeserver has no such room."""
        path = SynapseAdminPath.v1.rooms[room_id].state
        try:
            answer = await self._request(Method.GET, path, {}, answers.having("state", list))
        except MatrixRequestError as error:
            # 400: no id that a room can have.
            if error.http_status not in (400, 404):
                raise
            return None
        return as_list(answer["state"])

    async def empower(self, user_id: str, room_id: str) -> None:
        """Give one of the homeserver's users the most power that any of them has in a room, and
        invite them if they are not there. Refused with 400 where none has any."""
        path = SynapseAdminPath.v1.rooms[room_id].make_room_admin
        await self._request(Method.POST, path, {"user_id": user_id})

    async def _request(
        self,
        method: Method,
        path: PathBuilder,
        body: dict[str, Any],
        shape: Shape = answers.done,
    ) -> dict[str, Any]:
        token = self._token or await self._logged_in(self._token)
        try:
            return await self._send(token, method, path, body, shape)
        except MatrixRequestError as error:
            if error.errcode != _UNKNOWN_TOKEN:
                raise
            # Somebody has ended the session.
            return await self._send(await self._logged_in(token), method, path, body, shape)

    async def _logged_in(self, before: str) -> str:
        """Another token than the one `before`; one login for all who want it. What was refused is
        not tried again for a while: homeservers count logins that fail."""
        async with self._logging_in:
            if self._refused is not None and clock.now() < self._refused[0]:
                raise self._refused[1]
            if self._token == before:
                try:
                    self._token = await log_in(self._homeserver, self._username, self._password)
                except MatrixRequestError as error:
                    self._refused = clock.now() + _PAUSE, error
                    raise
            return self._token

    async def _send(
        self, token: str, method: Method, path: PathBuilder, body: dict[str, Any], shape: Shape
    ) -> dict[str, Any]:
        homeserver = self._homeserver.with_token(token)
        return await homeserver.request(method, path, body, shape=shape)
