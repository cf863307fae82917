"""The double's portals: rooms that it makes by itself, and what goes through them."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tests.doubles.gmessages.matrix import PREFIX, Json, Matrix, Refused

STATUS = "com.beeper.message_send_status"
SMS, RCS = "gmessages-sms", "gmessages-rcs"
_BRIDGE_STATE = ("m.bridge", "uk.half-shot.bridge")
_IMAGES = [f"image/{kind}" for kind in ("png", "jpeg", "gif", "bmp", "wbmp", "webp")]
_CERTAIN = "FAIL_PERMANENT"


@dataclass
class Rules:
    """What its config.yaml says, as far as it is played. `permissions` are levels by user id,
    domain and `*`."""

    permissions: dict[str, str] = field(default_factory=dict[str, str])
    relay: bool = False
    kick_matrix_users: bool = True
    bare: bool = True  # relayed messages stand without their senders' names
    max_file_size: int = 100 * 1024 * 1024  # of the bridge itself; it leaves MMS to the phone

    def level(self, user_id: str) -> str:
        domain = user_id.partition(":")[2]
        keys = (user_id, domain, "*")
        return next((self.permissions[key] for key in keys if key in self.permissions), "block")

    def may_log_in(self, user_id: str) -> bool:
        return self.level(user_id) in ("user", "admin")


@dataclass
class Picture:
    """A picture that went out, with the words that came along."""

    number: str
    data: bytes
    name: str
    caption: str


@dataclass
class Phone:
    """What the network has: texts and pictures that went out, each with its number, and what was
    shown (`m.typing`, `m.receipt`) by which protocol. While it is not `connected` nothing goes
    out; while `answers` is not set it takes its time."""

    sent: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    pictures: list[Picture] = field(default_factory=list[Picture])
    shown: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    connected: bool = True
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answers.set()


@dataclass
class Login:
    """A phone that a user has paired."""

    login_id: str
    user_id: str
    number: str
    prefix: int


@dataclass
class Portal:
    """A talk of a login with a number."""

    number: str
    login: Login
    ghost: str
    protocol: str = SMS
    room_id: str = ""
    relay: Login | None = None


class Portals:
    """Brings texts from the phone into rooms, and messages in rooms to the phone."""

    def __init__(self, matrix: Matrix, rules: Rules, phone: Phone) -> None:
        self._matrix, self.rules, self.phone = matrix, rules, phone
        self.logins: dict[str, Login] = {}
        self.all: dict[tuple[str, str], Portal] = {}

    def logged_in(self, user_id: str) -> Login | None:
        return self.logins.get(user_id)

    def self_ghost(self, login: Login) -> str:
        """What is typed on the phone itself comes from here."""
        return f"@{PREFIX}_{login.prefix}.1:{self._matrix.domain}"

    async def portal(self, login: Login, number: str) -> Portal:
        """The portal with a number, made where there is none."""
        key = (login.login_id, number)
        if key not in self.all:
            participant = 2 + len(self.all)
            ghost = f"@{PREFIX}_{login.prefix}.{participant}:{self._matrix.domain}"
            profile = {"displayname": f"Contact {participant}"}
            told = profile | {"com.beeper.bridge.identifiers": [f"tel:{number}"]}
            await self._matrix.make_user(ghost, told)
            self.all[key] = Portal(number, login, ghost)
        portal = self.all[key]
        if not portal.room_id:
            await self._create(portal)
        return portal

    async def receive(self, login: Login, number: str, text: str = "", **content: Any) -> str:
        """A text comes in; the event's id."""
        portal = await self.portal(login, number)
        body = {"msgtype": "m.text", "body": text, **content}
        return await self._matrix.say(portal.room_id, body, portal.ghost)

    async def receive_file(
        self, login: Login, number: str, data: bytes, media_type: str, **content: Any
    ) -> str:
        """The same with a file; a text that came along is its caption."""
        url, info = await self._matrix.upload(data, media_type), {"size": len(data)}
        kind = "m.image" if media_type.startswith("image/") else "m.file"
        told = {"msgtype": kind, "url": url, "info": {"mimetype": media_type, **info}}
        return await self.receive(login, number, **told, **content)

    async def typed(self, login: Login, number: str, text: str) -> str:
        """Its owner types a text on the phone itself; the event's id."""
        portal, ghost = await self.portal(login, number), self.self_ghost(login)
        await self._matrix.make_user(ghost, {})
        if ghost not in await self._matrix.members(portal.room_id):
            await self._matrix.act(portal.room_id, "invite", user_id=ghost)
            await self._matrix.act(portal.room_id, "join", ghost)
        return await self._matrix.say(portal.room_id, {"msgtype": "m.text", "body": text}, ghost)

    async def switch(self, portal: Portal, protocol: str) -> None:
        """The talk goes on by other means."""
        portal.protocol = protocol
        for kind in _BRIDGE_STATE:
            key, content = self._bridge_state(portal)
            await self._matrix.set_state(portal.room_id, kind, key, content)

    async def make_again(self, portal: Portal) -> None:
        """Its room is given up; the next text makes another."""
        for who in await self._matrix.members(portal.room_id):
            if not self._matrix.is_own(who):
                await self._matrix.act(portal.room_id, "kick", user_id=who)
        for who in (portal.ghost, self._matrix.bot):
            await self._matrix.act(portal.room_id, "leave", who)
        portal.room_id = ""

    async def sync_members(self, portal: Portal) -> None:
        """Who is not in the talk on the phone is sent away, unless it has a relay."""
        if not self.rules.kick_matrix_users or portal.relay is not None:
            return
        for who in await self._matrix.members(portal.room_id):
            if not self._matrix.is_own(who) and self.logged_in(who) is not portal.login:
                await self._matrix.act(portal.room_id, "kick", user_id=who)

    async def handle(self, event: Json) -> None:
        """An event that the homeserver pushes."""
        sender, room_id = str(event["sender"]), str(event["room_id"])
        content = event.get("content", {})
        if self._matrix.is_own(sender):
            return
        if content.get("membership") == "invite" and event.get("state_key") == self._matrix.bot:
            await self._matrix.act(room_id, "join")
        portal = next((one for one in self.all.values() if one.room_id == room_id), None)
        if event["type"] != "m.room.message" or self.rules.level(sender) == "block":
            return
        body = str(content.get("body", ""))
        if body == "!gm" or body.startswith("!gm "):
            await self._command(room_id, portal, sender, body.split()[1:])
        elif portal is not None:
            await self._out(portal, event, content)

    def show(self, event: Json) -> None:
        """Typing and receipts, which come to nothing where it is not RCS."""
        room_id = event.get("room_id")
        portal = next((one for one in self.all.values() if one.room_id == room_id), None)
        if portal is not None:
            self.phone.shown.append((portal.protocol, str(event["type"])))

    async def _create(self, portal: Portal) -> None:
        matrix, user = self._matrix, portal.login.user_id
        key, told = self._bridge_state(portal)
        bridge = [{"type": kind, "state_key": key, "content": told} for kind in _BRIDGE_STATE]
        levels = {
            "users": {matrix.bot: 9001, portal.ghost: 50},
            **dict.fromkeys(("invite", "state_default", "kick", "ban"), 99),
            **dict.fromkeys(("events_default", "users_default", "redact"), 0),
        }
        content: Json = {
            "preset": "private_chat",
            "room_version": "11",  # of later ones the bot's power would have no number
            "visibility": "private",
            "is_direct": True,
            "initial_state": bridge,
            "invite": [user, portal.ghost],
            "power_level_content_override": levels,
        }
        portal.room_id = str((await matrix.call("POST", "/createRoom", content))["room_id"])
        await matrix.act(portal.room_id, "join", portal.ghost)

    def _bridge_state(self, portal: Portal) -> tuple[str, Json]:
        channel = f"{portal.login.prefix}.{portal.number.removeprefix('+')}"
        content = {
            "bridgebot": self._matrix.bot,
            "creator": self._matrix.bot,
            "protocol": {"id": portal.protocol, "displayname": "Google Messages"},
            "channel": {"id": channel, "receiver": portal.login.login_id},
            "com.beeper.room_type": "dm",
        }
        return f"fi.mau.gmessages://gmessages/{channel}", content

    async def _command(
        self, room_id: str, portal: Portal | None, sender: str, words: list[str]
    ) -> None:
        login, answer = self.logged_in(sender), "Unknown command, use the `help` command for help."
        match words:
            case ["set-relay"] if portal is not None:
                answer = "You're not logged in."
                if not self.rules.relay:
                    answer = "This bridge does not allow relay mode."
                elif login is not None:
                    portal.relay, answer = login, "Messages will now be relayed."
            case ["set-pl", level] if self.rules.level(sender) == "admin":
                await self._set_power(room_id, sender, int(level))
                answer = "Power level set."
            case _:
                pass
        await self._matrix.say(room_id, {"msgtype": "m.notice", "body": answer})

    async def _set_power(self, room_id: str, user_id: str, level: int) -> None:
        path = f"/rooms/{room_id}/state/m.room.power_levels"
        levels = await self._matrix.call("GET", path)
        levels["users"][user_id] = level
        await self._matrix.set_state(room_id, "m.room.power_levels", "", levels)

    async def _out(self, portal: Portal, event: Json, content: Json) -> None:
        text, sender = str(content.get("body", "")), str(event["sender"])
        unsupported = (_CERTAIN, "com.beeper.unsupported_event")
        if content.get("msgtype") == "m.notice":
            await self._tell(portal, event, *unsupported, "ignoring m.notice", notice=False)
        elif content.get("m.relates_to", {}).get("rel_type") == "m.replace":
            await self._tell(portal, event, *unsupported, "this bridge doesn't support edits")
        elif self.logged_in(sender) is portal.login:
            await self._send(portal, event, text)
        elif portal.relay is not None and self.rules.relay:
            await self._send(portal, event, text if self.rules.bare else f"{sender}: {text}")
        else:
            why = (_CERTAIN, "m.bridge_unavailable", "You're not logged in")
            await self._tell(portal, event, *why)

    async def _picture(self, portal: Portal, content: Json) -> Picture | str:
        """A picture as it may go out, else why not."""
        info, name = content.get("info", {}), str(content.get("filename", content["body"]))
        if info.get("size", 0) > self.rules.max_file_size:
            return "this file is too large"
        if info.get("mimetype") not in _IMAGES:
            return "this file type is not supported"
        try:
            data = await self._matrix.download(str(content.get("url")))
        except Refused:
            return "failed to download media"
        has_caption = content["body"] != name and portal.protocol != RCS
        return Picture(portal.number, data, name, content["body"] if has_caption else "")

    async def _send(self, portal: Portal, event: Json, text: str) -> None:
        content = event["content"]
        picture = (
            await self._picture(portal, content) if content.get("msgtype") == "m.image" else None
        )
        if isinstance(picture, str):
            await self._tell(portal, event, _CERTAIN, "com.beeper.unsupported_event", picture)
            return
        if picture is None and content.get("msgtype") not in ("m.text", "m.emote"):
            await self._tell(portal, event, _CERTAIN, "com.beeper.unsupported_event", "no text")
            return
        await self.phone.answers.wait()
        if not self.phone.connected:
            why = ("FAIL_RETRIABLE", "m.foreign_network_error", "Your phone is not responding")
            await self._tell(portal, event, *why)
            return
        if picture is not None:
            self.phone.pictures.append(picture)
        else:
            self.phone.sent.append((portal.number, text))
        await self._tell(portal, event, "SUCCESS")

    async def _tell(
        self,
        portal: Portal,
        event: Json,
        status: str,
        reason: str = "",
        says: str = "",
        *,
        notice: bool = True,
    ) -> None:
        """What became of a message: by a status event, and of a failure by a notice."""
        target = str(event["event_id"])
        content: Json = {"network": PREFIX, "status": status}
        content["m.relates_to"] = {"rel_type": "m.reference", "event_id": target}
        content |= {"reason": reason, "message": says} if reason else {}
        await self._matrix.say(portal.room_id, content, kind=STATUS)
        if reason and notice:
            body = f"\u26a0\ufe0f Your message was not bridged: {says}"
            replied = {"m.in_reply_to": {"event_id": target}}
            told = {"msgtype": "m.notice", "body": body, "m.relates_to": replied}
            await self._matrix.say(portal.room_id, told)
