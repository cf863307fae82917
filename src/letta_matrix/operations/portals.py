"""Who of other networks is answered by whom, and where nobody is: decided by admins."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.parts import part
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.operation import operation
from letta_matrix.operations.toolbox.finding import find_agent
from letta_matrix.operations.toolbox.tool import Caller, Line, Params, Result, WriteParams
from letta_matrix.portals.contacts import EVERYBODY, normal
from letta_matrix.portals.numbers import is_number
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.portals import BLOCKED, Contact, Portal

Network = Annotated[
    str, Field(max_length=32, description="`name` of the bridge; not needed if there is one")
]


class OfContact(WriteParams):
    contact: Line = Field(
        max_length=255, description="a ghost's user id, its id on the network, or an identifier"
    )
    network: Network = ""


class AllowContact(OfContact):
    agent_id: Line = Field(max_length=255, description="id, user id or name of the agent")


class InPortal(WriteParams):
    contact: str = Field(
        "", max_length=255, description="whose portals; needed where it is not said in the portal"
    )
    network: Network = ""


class RouteTold(TypedDict):
    network: str
    contact: str
    agent: Annotated[str, Field(description='its name or id, "" for nobody')]
    stopped: Annotated[bool, Field(description="they want no messages")]


class Held(TypedDict):
    rooms: list[str]
    held: bool


class Routes(TypedDict):
    routes: list[RouteTold]
    held: Annotated[list[str], Field(description="the rooms where agents are silent")]
    doubtful: Annotated[list[str], Field(description="identifiers that several ghosts claim")]


@part
class PortalOperations:
    """Changes what the portal policy's book remembers."""

    _policy: PortalPolicy
    _directory: AgentDirectory

    @operation("portals.allow", Scope.ADMIN, RouteTold, rest="POST /portals/allow")
    async def allow_contact(self, _: Caller, params: AllowContact) -> Result:
        """Let an agent answer somebody of another network."""
        agent = find_agent(params.agent_id, self._directory.active())
        told = await self._decide(params, agent.agent_id)
        return {**told, "agent": agent.name}

    @operation("portals.block", Scope.ADMIN, RouteTold, rest="POST /portals/block")
    async def block_contact(self, _: Caller, params: OfContact) -> Result:
        """Let nobody answer somebody of another network."""
        return await self._decide(params, BLOCKED)

    @operation("portals.routes", Scope.ADMIN, Routes, rest="GET /portals/routes", mcp=True)
    async def list_routes(self, _caller: Caller, _params: Params) -> Result:
        """List who of other networks is answered by whom."""
        book, configured = self._policy.book, list[RouteTold]()
        for bridge in self._policy.bridges.values():
            for contact, agent in bridge.settings.routes.items():
                known = book.contact(bridge.name, bridge.normal(contact))
                if known is None or known.agent_id is None:
                    configured.append(_told(bridge.name, contact, agent))
        decided = [
            _told(one.name, one.contact, self._name(one.agent_id), stopped=one.stopped)
            for one in book.contacts()
            if one.agent_id is not None or one.stopped
        ]
        held = [one.room_id for one in book.all() if one.held]
        return {"routes": configured + decided, "held": held, "doubtful": sorted(book.contested())}

    @operation("portals.hold", Scope.ADMIN, Held, rest="POST /portals/hold", mcp=True)
    async def hold_portal(self, caller: Caller, params: InPortal) -> Result:
        """Silence the agents in a portal, for a person to speak there."""
        return await self._set_held(caller, params, held=True)

    @operation("portals.release", Scope.ADMIN, Held, rest="POST /portals/release")
    async def release_portal(self, caller: Caller, params: InPortal) -> Result:
        """Let the agents in a portal speak again."""
        return await self._set_held(caller, params, held=False)

    async def _decide(self, params: OfContact, agent_id: str) -> RouteTold:
        network = network_of(self._policy, params.network)
        contact = self._read(network, params.contact)
        if contact.endswith(EVERYBODY):
            text = "Name one contact: prefixes and `*` stand in the configuration (`routes`)."
            raise ToolError(text, Fault.CONFLICT)
        known = self._policy.book.contact(network, contact)
        stopped = known is not None and known.stopped
        await self._policy.book.decide(Contact(network, contact, agent_id, stopped))
        return _told(network, contact, agent_id, stopped=stopped)

    async def _set_held(self, caller: Caller, params: InPortal, *, held: bool) -> Result:
        portals = self._meant(caller, params)
        await self._policy.book.hold(portals, held=held)
        if not held:
            # Also what a person is left alone for who has written there.
            for one in portals:
                if self._policy.book.typed_until(one.room_id):
                    await self._policy.book.typed(one.room_id, 0.0)
        return {"rooms": [one.room_id for one in portals], "held": held}

    def _meant(self, caller: Caller, params: InPortal) -> list[Portal]:
        """The portals that are meant: the one where it was said, or those with a contact."""
        here = self._policy.portal(caller.place.room_id) if caller.place is not None else None
        if not params.contact:
            if here is None:
                text = "Name the contact, or say it in the portal itself."
                raise ToolError(text, Fault.CONFLICT)
            return [here]
        network = network_of(self._policy, params.network)
        contact = self._read(network, params.contact)
        ours = [one for one in self._policy.book.all() if one.name == network]
        found = [one for one in ours if self._has(one, contact)]
        if not found:
            raise ToolError(f"There is no portal with {code(params.contact)}.", Fault.NOT_FOUND)
        return found

    def _read(self, network: str, contact: str) -> str:
        found = self._policy.bridges[network].normal(contact)
        if self._policy.bridges[network].numbered and found.isdigit() and not is_number(found):
            text = (
                f"{code(contact)} has no country: begin with + and its code, or set `sms.region`."
            )
            raise ToolError(text, Fault.INVALID)
        return found

    def _has(self, portal: Portal, contact: str) -> bool:
        people = self._policy.contacts_in(portal)
        named = {one for who in people for one in self._policy.names_of(portal.name, who)}
        return contact in named | {normal(portal.channel), normal(portal.room_id)}

    def _name(self, agent_id: str | None) -> str:
        agent = self._directory.get(agent_id or "")
        return agent.name if agent is not None else agent_id or ""


def network_of(policy: PortalPolicy, name: str) -> str:
    """The bridge that is meant. Raises ToolError."""
    known = list(policy.bridges)
    if name in known:
        return name
    if not name and len(known) == 1:
        return known[0]
    if not known:
        text = "No bridge to another network is configured (`portals`)."
        raise ToolError(text, Fault.NOT_FOUND)
    raise ToolError(f"Say which `network`: {', '.join(map(code, known))}.", Fault.CONFLICT)


def _told(network: str, contact: str, agent: str, *, stopped: bool = False) -> RouteTold:
    return {"network": network, "contact": contact, "agent": agent, "stopped": stopped}
