"""What one of our users does on Matrix. An intent is cheap: make one whenever it is needed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, Unpack

from mautrix.api import ClientPath, MediaPath, Method, PathBuilder
from mautrix.errors import MatrixRequestError, MUserInUse

from letta_matrix.common.json_fields import Json, items, mapping
from letta_matrix.matrix import answers
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.errors import OwnSession
from letta_matrix.matrix.requests import Options, Recover
from letta_matrix.matrix.room_reading import RoomReader

_OLD_ROOM_VERSION = 10
_ROOM_VERSION = re.compile(r"[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class Intent(RoomReader):
    """Calls the client-server API as `user_id`, which must be in our namespace.

    Methods raise MatrixRequestError for what the homeserver refuses and HomeserverUnavailable
    when it does not answer.
    """

    def acting_as(self, user_id: str) -> Self:
        """What another of our users does there."""
        return replace(self, user_id=user_id)

    async def register(self) -> bool | None:
        """Make the account exist (`m.login.application_service`); whether it is a new one, None
        where it is there and an earlier try of ours, whose answer was lost, may have made it."""
        is_new: bool | None = False

        async def resending() -> None:
            nonlocal is_new
            is_new = None

        localpart = self.user_id[1:].partition(":")[0]
        body = {
            "type": "m.login.application_service",
            "username": localpart,
            "inhibit_login": True,
        }
        try:
            path = ClientPath.v3.register
            await self.homeserver.request(
                Method.POST, path, body, recover=resending, shape=answers.user_id
            )
        except MUserInUse:
            return is_new
        return True

    async def default_room_version(self) -> int:
        """The version of rooms that are made without one (spec: `m.room_versions`)."""
        path, shape = ClientPath.v3.capabilities, answers.having("capabilities")
        told = mapping((await self._get(path, shape))["capabilities"]).get("m.room_versions")
        default = str(mapping(told).get("default", ""))
        return int(default) if _ROOM_VERSION.fullmatch(default) else _OLD_ROOM_VERSION

    async def devices(self) -> list[str]:
        """The ids of the sessions in which somebody else is signed in (spec: Device management)."""
        answer = await self._get(ClientPath.v3.devices, answers.having("devices", list))
        found = items(answer.get("devices")) or []
        ids = [str(mapping(one).get("device_id")) for one in found]
        own = await self.own_device() if ids else ""
        return [one for one in ids if one != own]

    async def may_act(self) -> bool:
        """Whether the homeserver lets us act as this user; Synapse does once one is registered."""
        path, shape = ClientPath.v3.account.whoami, answers.user_id
        try:
            await self._get(path, shape)
        except MatrixRequestError:
            return False
        return True

    async def own_device(self) -> str:
        """The device of our token, where the homeserver has made one for it; "" for none, as
        Synapse does."""
        path, shape = ClientPath.v3.account.whoami, answers.user_id
        told = await self.homeserver.request(Method.GET, path, shape=shape)
        return str(told.get("device_id") or "") if told["user_id"] == self.user_id else ""

    async def end_sessions(self) -> None:
        """Sign out whoever is signed in to the account (spec: `POST /logout/all`). Raises
        MatrixRequestError, too, where that would end our own token."""
        if own := await self.own_device():
            raise OwnSession(own)
        await self._background(Method.POST, ClientPath.v3.logout["all"], {})

    async def set_displayname(self, name: str) -> None:
        path = ClientPath.v3.profile[self.user_id].displayname
        await self._background(Method.PUT, path, {"displayname": name})

    async def set_avatar(self, mxc: str) -> None:
        path = ClientPath.v3.profile[self.user_id].avatar_url
        await self._background(Method.PUT, path, {"avatar_url": mxc})

    async def upload(
        self, data: bytes, content_type: str, filename: str, *, give_up_after: float = 60.0
    ) -> str:
        """Upload media; returns its `mxc://` URI."""
        answer = await self._background(
            Method.POST,
            MediaPath.v3.upload,
            data,
            query={"filename": filename},
            content_type=content_type,
            give_up_after=give_up_after,
            shape=answers.media_uri,
        )
        return str(answer["content_uri"])

    async def creation(self, room_id: str) -> Json:
        """A room's `m.room.create` event, whole, with its sender."""
        return await self.state_event(room_id, "m.room.create")

    async def create_room(
        self, content: Mapping[str, Any], *, recover: Recover | None = None
    ) -> str:
        """`POST /createRoom`; returns the room id. `recover` is asked before a resend for the
        answer to an earlier try. Raises MRoomInUse when the alias is taken."""
        path, shape = ClientPath.v3.createRoom, answers.room_id
        answer = await self._background(Method.POST, path, content, recover=recover, shape=shape)
        return str(answer["room_id"])

    async def join(self, room_id: str, *, via: str = "") -> None:
        """Join a room, with `via` by a server that is in it already."""
        path, query = ClientPath.v3.rooms[room_id].join, None
        if via:
            # Before version 1.12 of the spec the parameter is called `server_name`.
            path, query = ClientPath.v3.join[room_id], {"via": via, "server_name": via}
        await self._background(Method.POST, path, {}, query=query, shape=answers.room_id)

    async def leave(self, room_id: str) -> None:
        await self._background(Method.POST, ClientPath.v3.rooms[room_id].leave, {})

    async def invite(self, room_id: str, user_id: str, reason: str = "") -> None:
        """Invite somebody. Raises ServerSilent (a MatrixRequestError) where their server has to
        be asked and does not answer."""
        async with self.asking(user_id):
            await self._about(ClientPath.v3.rooms[room_id].invite, user_id, reason)

    async def kick(self, room_id: str, user_id: str, reason: str = "") -> None:
        await self._about(ClientPath.v3.rooms[room_id].kick, user_id, reason)

    async def ban(self, room_id: str, user_id: str, reason: str = "") -> None:
        await self._about(ClientPath.v3.rooms[room_id].ban, user_id, reason)

    async def unban(self, room_id: str, user_id: str, reason: str = "") -> None:
        await self._about(ClientPath.v3.rooms[room_id].unban, user_id, reason)

    async def set_state(
        self, room_id: str, event_type: str, content: Mapping[str, Any], state_key: str = ""
    ) -> None:
        path = ClientPath.v3.rooms[room_id].state[event_type]
        path = path[state_key] if state_key else path
        await self._background(Method.PUT, path, content, shape=answers.event_id)

    async def point_alias(self, alias: str, room_id: str) -> None:
        """Let an alias of ours lead to a room, wherever it led before."""
        if await self.resolve_alias(alias) is not None:
            await self.remove_alias(alias)
        path = ClientPath.v3.directory.room[alias]
        await self._background(Method.PUT, path, {"room_id": room_id})

    async def remove_alias(self, alias: str) -> None:
        await self._background(Method.DELETE, ClientPath.v3.directory.room[alias], {})

    async def send(
        self,
        room_id: str,
        event_type: str,
        content: Mapping[str, Any],
        txn_id: str,
        *,
        give_up_after: float | None = None,
        look_first: bool = False,
    ) -> str:
        """Send an event once, whatever happens on the way; returns its event id.

        The homeserver forgets txn ids when it restarts, so before a resend (and before the
        first try with `look_first`, after a crash of our own) the room is searched for it.
        """

        async def recover() -> dict[str, str] | None:
            found = await self.find_sent(room_id, txn_id, give_up_after=give_up_after)
            return {"event_id": found} if found else None

        if look_first and (known := await recover()) is not None:
            return known["event_id"]
        async with self.homeserver.pacer.urgent():
            answer = await self.homeserver.request(
                Method.PUT,
                ClientPath.v3.rooms[room_id].send[event_type][txn_id],
                content,
                user_id=self.user_id,
                give_up_after=give_up_after,
                recover=recover,
                shape=answers.event_id,
            )
        return str(answer["event_id"])

    async def send_interim(
        self, room_id: str, event_type: str, content: Mapping[str, Any], txn_id: str
    ) -> None:
        """Send an event that a later one replaces anyway: one try."""
        await self.homeserver.request(
            Method.PUT,
            ClientPath.v3.rooms[room_id].send[event_type][txn_id],
            content,
            user_id=self.user_id,
            give_up_after=0,
            shape=answers.event_id,
        )

    async def react(self, room_id: str, event_id: str, key: str, txn_id: str) -> str:
        """React to an event with `key` (spec: Annotations), once; returns the reaction's event
        id, "" if `user_id` had reacted so already."""
        content = {
            "m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": key},
            MARKER: {"txn": txn_id},
        }
        path = ClientPath.v3.rooms[room_id].send["m.reaction"][txn_id]
        try:
            answer = await self._background(Method.PUT, path, content, shape=answers.event_id)
        except MatrixRequestError as error:
            if error.errcode == "M_DUPLICATE_ANNOTATION":
                return ""
            raise
        return str(answer["event_id"])

    async def redact(
        self,
        room_id: str,
        event_id: str,
        txn_id: str,
        reason: str = "",
        *,
        give_up_after: float | None = None,
    ) -> str:
        """Remove an event's content (spec: Redactions); returns the redaction's event id. Raises
        MForbidden for an event of others without the power to."""
        body = {MARKER: {"txn": txn_id}, **({"reason": reason} if reason else {})}
        path = ClientPath.v3.rooms[room_id].redact[event_id][txn_id]
        answer = await self._background(
            Method.PUT, path, body, give_up_after=give_up_after, shape=answers.event_id
        )
        return str(answer["event_id"])

    async def typing(self, room_id: str, timeout_ms: int) -> None:
        """Show as typing for `timeout_ms`, or stop with 0."""
        body = {"typing": True, "timeout": timeout_ms} if timeout_ms > 0 else {"typing": False}
        await self._hint(Method.PUT, ClientPath.v3.rooms[room_id].typing[self.user_id], body)

    async def read_receipt(self, room_id: str, event_id: str) -> None:
        path = ClientPath.v3.rooms[room_id].receipt["m.read"][event_id]
        await self._hint(Method.POST, path, {})

    async def mark_read(self, room_id: str, event_id: str, *, private: bool = False) -> None:
        """Have read a room as far as an event: the read marker and a receipt, which nobody else
        sees if it is `private` (spec: Fully read markers; Receipts)."""
        receipt = "m.read.private" if private else "m.read"
        body = {"m.fully_read": event_id, receipt: event_id}
        await self._hint(Method.POST, ClientPath.v3.rooms[room_id].read_markers, body)

    async def _about(self, path: PathBuilder, user_id: str, reason: str) -> None:
        """Change somebody's membership."""
        body = {"user_id": user_id} | ({"reason": reason} if reason else {})
        await self._background(Method.POST, path, body)

    async def _hint(self, method: Method, path: PathBuilder, body: Mapping[str, Any]) -> None:
        await self._background(method, path, body, give_up_after=0)

    async def _background(
        self,
        method: Method,
        path: PathBuilder,
        body: Mapping[str, Any] | bytes,
        **options: Unpack[Options],
    ) -> dict[str, Any]:
        await self.homeserver.pacer.background()
        return await self.homeserver.request(method, path, body, user_id=self.user_id, **options)
