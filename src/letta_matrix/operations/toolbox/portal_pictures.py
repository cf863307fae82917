"""The tool by which agents send a picture to whoever writes to them from another network."""

from typing import NamedTuple, NotRequired

from pydantic import Field

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.image_headers import image_shape
from letta_matrix.common.parts import part
from letta_matrix.common.pictures import PictureFault, prepare
from letta_matrix.config import PortalSettings
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.media import human_size
from letta_matrix.operations.toolbox.files import BASE64, MXC, PostedImage, named
from letta_matrix.operations.toolbox.portal_budget import count
from letta_matrix.operations.toolbox.tool import Caller, Result, WriteParams, tool
from letta_matrix.operations.toolbox.uploads import MAX_BYTES, file_of
from letta_matrix.operations.toolbox.writing import marker_of, send_once
from letta_matrix.portals.day_budget import PICTURE, DayBudget
from letta_matrix.portals.outgoing import PROFILE, outgoing, profile_of
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.agents import Agent
from letta_matrix.store.portals import Portal

_SIDE = 2_048
"""Pixels of the longer side of a picture that is made smaller, at first."""


class SendPicture(WriteParams):
    content_base64: str = Field("", description=f"PNG, JPEG, GIF or WebP: {BASE64}")
    mxc: str = Field("", max_length=600, description=MXC)
    name: str = Field("image", min_length=1, max_length=1000, description="file name")
    caption: str = Field("", max_length=10_000, description="a few words with it")


class PictureSent(PostedImage):
    """A picture as it went out; with `more_event_ids` where its caption is a message by itself."""

    more_event_ids: NotRequired[list[str]]
    note: NotRequired[str]


class _Picture(NamedTuple):
    """A picture that may go out; `mxc` is where it is already, `note` what was done to it."""

    data: bytes
    media_type: str
    width: int
    height: int
    mxc: str = ""
    note: str = ""


class _Here(NamedTuple):
    """Where an agent answers somebody now, and by whom it speaks there."""

    portal: Portal
    settings: PortalSettings
    agent: Agent
    intent: Intent


@part
class PortalPictures:
    """Sends into the portal alone that the agent's turn is for, as far as its answer might go out
    there too."""

    _policy: PortalPolicy
    _homeserver: Homeserver
    _budget: DayBudget

    @tool(PICTURE, "Send a picture to another network", Scope.WRITE, PictureSent)
    async def portal_send_image(self, caller: Caller, params: SendPicture) -> Result:
        """Send a picture to whoever you are answering now, where they write to you from another
        network, such as by SMS."""
        here = self._here(caller)
        captions = outgoing(params.caption, here.settings) if params.caption else []
        if len(captions) > 1:
            text = "`caption` is longer than one message; say the rest in your answer."
            raise ToolError(text, Fault.TOO_LARGE)
        picture = await self._fitting(caller, params, here.settings.image_bytes)
        # Much may have been decided meanwhile.
        here = self._here(caller)
        txn, room_id = caller.txn(PICTURE, 0), here.portal.room_id
        sent = await here.intent.find_sent(room_id, txn) if caller.again else None
        if sent is None:
            await count(self._budget, caller, here.portal, PICTURE, caller.speaker)
        return await self._send(caller, here, picture, params.name, captions, sent)

    def _here(self, caller: Caller) -> _Here:
        """Raises ToolError where nobody is being answered to whom something may go out."""
        room_id = caller.place.room_id if caller.turn_id and caller.place is not None else ""
        portal = self._policy.portal(room_id)
        if portal is None or not caller.principal.may_act_in(room_id):
            text = "You are answering nobody on another network now. matrix_send_image sends "
            raise ToolError(text + "pictures to Matrix rooms.", Fault.CONFLICT)
        agent = self._policy.agent_for(portal, caller.speaker)
        if agent is None or self._policy.is_silent(portal, caller.speaker, caller.agent_id):
            text = "Nothing may go out there now: a person has taken over, or they want no more."
            raise ToolError(text, Fault.FORBIDDEN)
        speaker = self._policy.speaker_in(agent, room_id)
        if speaker is None:
            raise ToolError("Nobody who could send it is in the talk's room.", Fault.CONFLICT)
        settings = self._policy.bridges[portal.name].settings
        return _Here(portal, settings, agent, self._homeserver.acting_as(speaker))

    async def _fitting(self, caller: Caller, params: SendPicture, most: int) -> _Picture:
        """The picture as it may go out: as it is, or made smaller. Raises ToolError."""
        file = await file_of(caller, base64_text=params.content_base64, mxc=params.mxc)
        shape = image_shape(file.data)
        if shape is None:
            text = "That is no picture: PNG, JPEG, GIF and WebP go out, and no other files. Say "
            raise ToolError(text + "in your answer what is in it, or give a link.")
        if not file.whole:
            text = f"The picture is larger than {human_size(MAX_BYTES)}."
            raise ToolError(text, Fault.TOO_LARGE)
        if len(file.data) <= most:
            return _Picture(file.data, shape.media_type, shape.width, shape.height, file.mxc)
        try:
            made = await prepare(file.data, _SIDE, most)
        except PictureFault as fault:
            text = f"At most {human_size(most)} go out, and the picture could not be made smaller: "
            raise ToolError(f"{text}{fault}. Send a smaller one.", Fault.TOO_LARGE) from None
        note = f"It was made smaller: at most {human_size(most)} go out."
        return _Picture(made.data, made.media_type, made.width, made.height, note=note)

    async def _send(
        self,
        caller: Caller,
        here: _Here,
        picture: _Picture,
        name: str,
        captions: list[str],
        sent: str | None,
    ) -> Result:
        name = named(name, picture.media_type)
        apart = captions if not self._policy.takes_captions(here.portal) else []
        if sent is None:
            url = picture.mxc or await here.intent.upload(picture.data, picture.media_type, name)
            size = {"size": len(picture.data), "w": picture.width, "h": picture.height}
            content: dict[str, object] = {
                "msgtype": "m.image",
                "body": name if apart or not captions else captions[0],
                "filename": name,
                "url": url,
                "info": {"mimetype": picture.media_type, **size},
            }
            sent = await self._say(caller, here, content, 0)
        more = [
            await self._say(caller, here, {"msgtype": "m.text", "body": text}, number)
            for number, text in enumerate(apart, 1)
        ]
        told = {"room_id": here.portal.room_id, "event_id": sent, "name": name}
        told |= {"bytes": len(picture.data), "width": picture.width, "height": picture.height}
        told |= {"more_event_ids": more} if more else {}
        return told | ({"note": picture.note} if picture.note else {})

    async def _say(self, caller: Caller, here: _Here, content: dict[str, object], step: int) -> str:
        txn = caller.txn(PICTURE, step)
        marker = marker_of(caller, PICTURE, txn)
        by_line = here.intent.user_id != here.agent.user_id
        more = {PROFILE: profile_of(here.agent)} if by_line else {}
        content = {**content, "m.mentions": {}, MARKER: marker, **more}
        return await send_once(caller, here.portal.room_id, content, txn, by=here.intent)
