"""The tool by which agents write text messages to phones."""

import asyncio
from typing import NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.parts import part
from letta_matrix.config import SmsSettings
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.toolbox.portal_budget import count
from letta_matrix.operations.toolbox.tool import Caller, Line, Markdown, Result, WriteParams, tool
from letta_matrix.operations.toolbox.writing import marker_of, send_once, spoken
from letta_matrix.portals.day_budget import TEXT, DayBudget
from letta_matrix.portals.numbers import is_number
from letta_matrix.portals.outgoing import PROFILE, outgoing, profile_of
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.portals.provisioning import Provisioning, ProvisioningFault, Why
from letta_matrix.portals.quiet import until_open
from letta_matrix.store.agents import Agent
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.places import Place
from letta_matrix.store.portals import Portal

_COMES_WITHIN = 20.0
"""Seconds that a new talk's room has to be there within."""


class SendText(WriteParams):
    number: Line = Field(max_length=40, description="phone number, best with + and its country")
    text: Markdown = Field(description="what to write; it arrives as plain text")


class TextSent(TypedDict):
    """A text as it went out; a long one has `more_event_ids`."""

    number: str
    room_id: str
    event_id: str
    more_event_ids: NotRequired[list[str]]


@part
class Texting:
    """Writes to those alone whose texts the agent answers, within what may be written at all. What
    they answer comes to where the agent wrote from."""

    _sms: SmsSettings
    _policy: PortalPolicy
    _provisioning: Provisioning
    _homeserver: Homeserver
    _conversations: ConversationStore
    _budget: DayBudget

    def __post_init__(self) -> None:
        self._sending = asyncio.Lock()

    @tool(TEXT, "Send a text message", Scope.WRITE, TextSent)
    async def sms_send(self, caller: Caller, params: SendText) -> Result:
        """Send a text message (SMS) to a phone number that you are allowed to write to; what is
        answered comes to you."""
        number = self._number(params.number)
        known = self._portal_with(number)
        agent = self._agent(caller, number, known)
        texts = outgoing(spoken(params.text, "text"), self._sms)
        if not texts:
            raise ToolError("`text` has no text in it.")
        if not caller.principal.may_act_in(known.room_id if known is not None else ""):
            raise ToolError("Your token is not for the room of this talk.", Fault.FORBIDDEN)
        # One at a time: what is under way counts.
        async with self._sending:
            has_begun = known is not None and await self._has_begun(caller, agent, known)
            if not has_begun:
                self._check_heard(agent, number, known)
            portal = known
            if portal is None or not self._is_there(agent, portal):
                portal = await self._begin(agent, number)
                # What was decided by another name of theirs is known only now.
                self._check_heard(agent, number, portal)
            if not has_begun and self._policy.speaker_in(agent, portal.room_id):
                await count(self._budget, caller, portal, TEXT)
            await self._goes_on_here(caller, agent, portal)
            return await self._send(caller, agent, portal, number, texts)

    def _is_there(self, agent: Agent, portal: Portal) -> bool:
        """Whether the line has come into a talk, which the bridge may have just made. Where there
        is none nobody comes by itself."""
        return self._sms.line is None or bool(self._policy.speaker_in(agent, portal.room_id))

    async def _has_begun(self, caller: Caller, agent: Agent, portal: Portal) -> bool:
        """Whether an earlier try of the call has sent something, so that it is to be ended."""
        speaker = self._policy.speaker_in(agent, portal.room_id)
        if not caller.again or speaker is None:
            return False
        intent = self._homeserver.acting_as(speaker)
        return await intent.find_sent(portal.room_id, caller.txn(TEXT, 0)) is not None

    def _number(self, given: str) -> str:
        number = self._policy.bridges[self._sms.name].normal(given)
        if not is_number(number):
            text = f"{code(given)} is no phone number: write it as +, its country and the rest."
            raise ToolError(text)
        return number

    def _agent(self, caller: Caller, number: str, known: Portal | None) -> Agent:
        """The agent that answers a number, if the caller may write for it."""
        agent = self._policy.agent_at(self._sms.name, number)
        is_admin = not caller.agent_id and Scope.ADMIN in caller.principal.scopes
        is_theirs = agent is not None and (is_admin or caller.agent_id == agent.agent_id)
        if agent is None or not is_theirs or not (known or self._is_named(number)):
            raise ToolError(
                f"You may not write to {code(number)}. An admin allows it: "
                f"`!sms allow {number} AGENT`.",
                Fault.FORBIDDEN,
            )
        return agent

    def _is_named(self, number: str) -> bool:
        """Whether somebody has named the number: that everybody is answered is no leave to write
        to anybody with whom there is no talk."""
        bridge = self._policy.bridges[self._sms.name]
        decided = self._policy.book.contact(bridge.name, number)
        is_allowed = decided is not None and decided.agent_id is not None
        return is_allowed or bridge.routes.of([number], everybody=False) is not None

    def _portal_with(self, number: str) -> Portal | None:
        policy = self._policy
        for one in policy.book.all():
            if one.name != self._sms.name or not one.direct:
                continue
            if self._is_with(one, number):
                return one
        return None

    def _is_with(self, portal: Portal, number: str) -> bool:
        policy, people = self._policy, self._policy.contacts_in(portal)
        return any(number in policy.names_of(portal.name, who) for who in people)

    def _check_heard(self, agent: Agent, number: str, portal: Portal | None) -> None:
        """Raises ToolError for whom the agent is not to write to now."""
        decided = self._policy.book.contact(self._sms.name, number)
        stopped = decided is not None and decided.stopped
        here = [(portal, who) for who in self._policy.contacts_in(portal)] if portal else []
        answering = [self._policy.agent_for(*one) for one in here]
        if any(one is None or one.agent_id != agent.agent_id for one in answering):
            # Decided by another name of theirs.
            text = f"You may not write to {code(number)}: another agent answers there, or nobody."
            raise ToolError(text, Fault.FORBIDDEN)
        if portal is not None and self._policy.book.is_encrypted(portal.room_id):
            text = f"The bridge encrypts the talk with {code(number)}, so that no answer, and no "
            text += "STOP, could be read; an operator sees in `/health` what to do."
            raise ToolError(text, Fault.CONFLICT)
        whys = (self._policy.silence(*one) for one in here)
        why = "stopped" if stopped else next((one for one in whys if one), "")
        if why == "stopped":
            text = f"{code(number)} wants no more messages, until they send START."
            raise ToolError(text, Fault.FORBIDDEN)
        if why:
            text = f"A person writes with {code(number)} now; nothing goes out until they let go."
            raise ToolError(text, Fault.CONFLICT)
        left = until_open(self._sms.quiet_hours, self._policy.now())
        if left > 0:
            text = f"Hours are quiet for {left / 60:.0f} minutes more; try again then."
            raise ToolError(text, Fault.RATE_LIMITED, retry_after=left)

    async def _begin(self, agent: Agent, number: str) -> Portal:
        """The talk with a number, which the bridge makes, once the line is there."""
        try:
            talk = await self._provisioning.talk_with(number)
        except ProvisioningFault as fault:
            kind = Fault.UNAVAILABLE if fault.why is Why.UNAVAILABLE else Fault.REFUSED
            raise ToolError(f"The text cannot be sent: {fault}.", kind) from None
        if talk.user_id and talk.numbers:
            # What the bridge itself says need not be looked up when they come.
            await self._policy.book.claim(self._sms.name, talk.user_id, talk.numbers)

        def come() -> Portal | None:
            portal = self._policy.portal(talk.room_id)
            is_there = self._policy.speaker_in(agent, talk.room_id) is not None
            is_it = portal is not None and is_there and self._is_with(portal, number)
            return portal if is_it else None

        portal = await self._policy.book.changes.until(come, _COMES_WITHIN)
        if portal is None:
            text = "The talk's room does not come; an operator looks at `!sms status`."
            raise ToolError(text, Fault.UNAVAILABLE)
        return portal

    async def _goes_on_here(self, caller: Caller, agent: Agent, portal: Portal) -> None:
        """Let what is answered come to the conversation that the text was written in."""
        place, conversation_id = Place(agent.agent_id, portal.room_id, ""), caller.conversation_id
        if conversation_id and self._conversations.current(place) != conversation_id:
            await self._conversations.begin(place, conversation_id, "text messages")

    async def _send(
        self,
        caller: Caller,
        agent: Agent,
        portal: Portal,
        number: str,
        texts: list[str],
    ) -> Result:
        user_id = self._policy.speaker_in(agent, portal.room_id)
        if user_id is None:
            text = "Nobody who could write is in the talk's room: see `!sms status`."
            raise ToolError(text, Fault.CONFLICT)
        intent, sent = self._homeserver.acting_as(user_id), list[str]()
        by_line = user_id != agent.user_id
        for part_number, text in enumerate(texts):
            txn = caller.txn(TEXT, part_number)
            content: dict[str, object] = {"msgtype": "m.text", "body": text, "m.mentions": {}}
            content[MARKER] = marker_of(caller, TEXT, txn) | {"agent_id": agent.agent_id}
            content |= {PROFILE: profile_of(agent)} if by_line else {}
            sent.append(await send_once(caller, portal.room_id, content, txn, by=intent))
        told = {"number": number, "room_id": portal.room_id, "event_id": sent[0]}
        return told | ({"more_event_ids": sent[1:]} if sent[1:] else {})
