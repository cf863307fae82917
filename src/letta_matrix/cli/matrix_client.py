"""The few requests of the client-server API that the terminal client makes."""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast
from urllib.parse import quote

import aiohttp

from letta_matrix.cli.faults import Failure, Unreachable
from letta_matrix.common.connections.known_servers import CheckedConnector, KnownServer

_DEVICE = "letta-matrix chat"
_PAST = 50


class MatrixClient:
    """A person logged in for the length of a command; use it as `async with`. `known` is the
    homeserver that has to be there, if that is known."""

    def __init__(
        self, url: str, user_id: str, password: str, known: Sequence[KnownServer] = ()
    ) -> None:
        self._url = url
        self._user_id = user_id
        self._password = password
        self._http = aiohttp.ClientSession(
            connector=CheckedConnector(known), timeout=aiohttp.ClientTimeout(total=30)
        )
        self._headers: dict[str, str] = {}
        self._since = ""

    async def __aenter__(self) -> Self:
        login = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self._user_id},
            "password": self._password,
            "initial_device_display_name": _DEVICE,
        }
        try:
            answer = await self._call("POST", "/login", login)
        except BaseException:
            await self._http.close()
            raise
        self._headers = {"Authorization": f"Bearer {answer['access_token']}"}
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._call("POST", "/logout", {})
        except Failure:
            pass  # the homeserver went away first: the login stays behind, harmless
        finally:
            await self._http.close()

    async def send(
        self, room_id: str, text: str, relation: Mapping[str, object] | None = None
    ) -> str:
        """Send a text, with an `m.relates_to` if given; its event id. Raises Failure."""
        related = {"m.relates_to": relation} if relation else {}
        return await self._send(
            room_id, "m.room.message", {"msgtype": "m.text", "body": text, **related}
        )

    async def react(self, room_id: str, event_id: str, key: str) -> str:
        """React to an event; the reaction's id. Raises Failure."""
        relation = {"rel_type": "m.annotation", "event_id": event_id, "key": key}
        return await self._send(room_id, "m.reaction", {"m.relates_to": relation})

    async def read(self, room_id: str, event_id: str) -> None:
        """Show the room as read up to an event, everywhere. Raises Failure."""
        body = {"m.fully_read": event_id, "m.read": event_id}
        await self._call("POST", f"/rooms/{quote(room_id)}/read_markers", body)

    async def members(self, room_id: str) -> list[str]:
        """Who is in the room. Raises Failure."""
        answer = await self._call("GET", f"/rooms/{quote(room_id)}/joined_members", None)
        return list(answer["joined"])

    async def catch_up(self, room_id: str) -> list[Mapping[str, Any]]:
        """The room's last events; `news` tells what comes after them. Raises Failure."""
        self._since = ""
        return await self.news(room_id, 0)

    async def news(self, room_id: str, timeout: float) -> list[Mapping[str, Any]]:
        """The room's new events, waiting `timeout` seconds for one.

        Raises:
            Unreachable: no answer; may be asked again.
            Failure: refused.
        """
        timeline = {"limit": 200 if self._since else _PAST, "types": ["m.room.message"]}
        nothing = {"types": list[str]()}
        room = {"rooms": [room_id], "timeline": timeline, "ephemeral": nothing, "state": nothing}
        wanted = {"room": room, "presence": nothing, "account_data": nothing}
        query = {"filter": json.dumps(wanted), "timeout": str(int(timeout * 1000))}
        if self._since:
            query["since"] = self._since
        answer = await self._call("GET", "/sync", None, query)
        self._since = str(answer["next_batch"])
        joined = answer.get("rooms", {}).get("join", {}).get(room_id, {})
        return cast("list[Mapping[str, Any]]", joined.get("timeline", {}).get("events", []))

    async def _send(self, room_id: str, event_type: str, content: Mapping[str, object]) -> str:
        path = f"/rooms/{quote(room_id)}/send/{event_type}/{secrets.token_hex(8)}"
        return str((await self._call("PUT", path, content))["event_id"])

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        url = f"{self._url}/_matrix/client/v3{path}"
        try:
            async with self._http.request(
                method, url, json=body, params=query, headers=self._headers
            ) as response:
                answer = cast("dict[str, Any]", await response.json(content_type=None))
        except (aiohttp.ClientError, TimeoutError, ValueError):
            raise Unreachable(
                f"the homeserver at {self._url} does not answer; is it running?"
            ) from None
        if response.status >= 500:
            raise Unreachable(f"the homeserver at {self._url} fails: status {response.status}")
        if response.status != 200:
            raise Failure(f"the homeserver refused: {answer.get('error', response.status)}")
        return answer
