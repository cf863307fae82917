"""The phone line: pairing a phone with it, and how it is."""

from typing import Literal

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.parts import part
from letta_matrix.operations.operation import operation
from letta_matrix.operations.toolbox.tool import Caller, Params, Result, WriteParams
from letta_matrix.operations.types import told
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.portals.provisioning import Provisioning, ProvisioningFault, Step, Why
from letta_matrix.store.portals import Portal

SMS = "sms"
"""What the phone line's bridge is called."""

_FAULTS = {
    Why.UNAVAILABLE: Fault.UNAVAILABLE,
    Why.LOGGED_OUT: Fault.CONFLICT,
    Why.REFUSED: Fault.REFUSED,
    Why.FOREIGN: Fault.REFUSED,
}


_UNPAIRED = (
    "no phone is paired with the line: `letta-matrix sms login` in a terminal, or `!sms login qr`"
)


class SmsLogin(WriteParams):
    flow: Literal["", "google", "qr"] = Field(
        "", description="begin by this way; empty: go on with what has been begun"
    )
    values: dict[str, str] = Field(
        default_factory=dict[str, str], description="what the last step wanted, by name"
    )


class SmsLogout(WriteParams):
    login_id: str = Field("all", max_length=255)


class LoginStep(TypedDict):
    instructions: str
    shows: str  # qr, emoji or the like; "" for nothing
    data: str
    wants: list[str]  # names of values
    url: str  # where they are found
    login_id: str  # of the phone that is paired now, "" before the end


class PhoneTold(TypedDict):
    login_id: str
    name: str
    state: str
    reason: str


class LineStatus(TypedDict):
    line: str
    phones: list[PhoneTold]
    trouble: str
    talks: int  # portals
    unnumbered: list[str]  # portals in which nobody has a number, so that nobody is answered


class ContactTold(TypedDict):
    name: str
    numbers: list[str]
    user_id: str
    room_id: str
    agent: str  # its name, "" for nobody


class Contacts(TypedDict):
    contacts: list[ContactTold]


class LoggedOut(TypedDict):
    login_id: str


@part
class SmsOperations:
    """Does with the bridge what operators want done. A login that was begun is kept in memory."""

    _policy: PortalPolicy
    _provisioning: Provisioning | None

    def __post_init__(self) -> None:
        self._step: Step | None = None

    @operation("sms.login", Scope.ADMIN, LoginStep, rest="POST /sms/login")
    async def sms_login(self, _: Caller, params: SmsLogin) -> LoginStep:
        """Pair a phone with the line, step by step."""
        try:
            if params.flow:
                self._step = await self._bridge.start(params.flow)
            elif self._step is None:
                text = "No login has been begun, or the bridge has ended it: begin one."
                raise ToolError(text, Fault.CONFLICT)
            else:
                self._step = await self._bridge.go_on(self._step, params.values)
        except ProvisioningFault as fault:
            # A step that was refused is over; one that nobody has done yet is not.
            self._step = self._step if fault.why is Why.UNAVAILABLE else None
            raise refused(fault) from None
        step = self._step
        self._step = None if step.login else step
        return told(LoginStep, step, wants=list(step.wants), login_id=step.login)

    @operation("sms.logout", Scope.ADMIN, LoggedOut, rest="POST /sms/logout")
    async def sms_logout(self, _: Caller, params: SmsLogout) -> Result:
        """Unpair a phone from the line, or all."""
        try:
            await self._bridge.logout(params.login_id)
        except ProvisioningFault as fault:
            raise refused(fault) from None
        return {"login_id": params.login_id}

    @operation("sms.status", Scope.ADMIN, LineStatus, rest="GET /sms")
    async def sms_status(self, _caller: Caller, _params: Params) -> Result:
        """Tell how the phone line is."""
        phones, bridge = list[PhoneTold](), self._bridge
        try:
            phones = [told(PhoneTold, one) for one in await bridge.logins()]
            trouble = "" if phones else _UNPAIRED
        except ProvisioningFault as fault:
            trouble = str(fault)
        ours = [one for one in self._policy.book.all() if one.name == SMS]
        return {
            "line": self._policy.bridges[SMS].line or "",
            "phones": phones,
            "trouble": trouble,
            "talks": len(ours),
            "unnumbered": unnumbered(self._policy),
        }

    @operation("sms.contacts", Scope.ADMIN, Contacts, rest="GET /sms/contacts")
    async def sms_contacts(self, _caller: Caller, _params: Params) -> Result:
        """List whom the phone knows, and who answers them."""
        try:
            known = await self._bridge.contacts()
        except ProvisioningFault as fault:
            raise refused(fault) from None
        contacts = [
            told(ContactTold, one, numbers=list(one.numbers), agent=self._agent_of(one.numbers))
            for one in known
        ]
        return {"contacts": contacts}

    @property
    def _bridge(self) -> Provisioning:
        if self._provisioning is None:
            raise ToolError("No phone line is configured (`sms`).", Fault.NOT_FOUND)
        return self._provisioning

    def _agent_of(self, numbers: tuple[str, ...]) -> str:
        found = (self._policy.agent_at(SMS, one) for one in numbers)
        return next((agent.name for agent in found if agent is not None), "")


def unnumbered(policy: PortalPolicy) -> list[str]:
    """The talks of two in which nobody has a number."""

    def has_none(portal: Portal) -> bool:
        is_numbered = policy.bridges[portal.name].numbered
        return is_numbered and portal.direct and not policy.contacts_in(portal)

    here = [one for one in policy.book.all() if one.name in policy.bridges]
    return [one.room_id for one in here if has_none(one)]


def unread(policy: PortalPolicy) -> list[str]:
    """The portals of which nothing can be read."""
    here = (one.room_id for one in policy.book.all() if one.name in policy.bridges)
    return [room_id for room_id in here if policy.book.is_encrypted(room_id)]


def refused(fault: ProvisioningFault) -> ToolError:
    """The same as a refusal of a call."""
    text = str(fault)
    return ToolError(f"{text[0].upper()}{text[1:]}.", _FAULTS[fault.why])
