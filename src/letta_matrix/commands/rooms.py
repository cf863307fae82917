"""Commands about agents' own rooms: the way back into them, and what stands in the space."""

from collections.abc import Sequence

from mautrix.errors import MatrixRequestError

from letta_matrix.commands.command import CommandContext, CommandFault
from letta_matrix.commands.management import find_agent
from letta_matrix.commands.overview import active, room_link
from letta_matrix.commands.texts import counted, name_of
from letta_matrix.conversations.admission import Admitted
from letta_matrix.conversations.routing import are_ids
from letta_matrix.conversations.verbatim import inline_code as code
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.identifiers import is_ours
from letta_matrix.store.agents import Agent, AgentStatus


async def invite(context: CommandContext) -> str:
    """Invite somebody into an agent's room again, or into those of all agents."""
    person = _person(context)
    meant = _meant(context)
    if len(meant) == 1:
        return _told(context, meant[0], person, await _admit(context, meant[0], person))
    outcomes = [(agent, await _admit(context, agent, person)) for agent in meant]
    came = [agent for agent, outcome in outcomes if outcome is Admitted.INVITED]
    wait = sum(outcome is Admitted.WAITING for _, outcome in outcomes)
    if not came:
        also = f" {counted(wait, 'invitation')} can be accepted." if wait else ""
        return f"There is no further room for {code(person)} to come back to.{also}"
    links = [f"- {room_link(context, agent)}" for agent in came]
    return "\n".join([f"Invited {code(person)} to {counted(len(came), 'room')}:", "", *links])


async def archive(context: CommandContext) -> str:
    """Take removed agents' rooms out of the space."""
    wanted = context.arguments.text("AGENT")
    every = context.services.directory.all()
    gone = [agent for agent in every if agent.status is AgentStatus.REMOVED and agent.room_id]
    meant = [_removed(wanted, gone, active(context))] if wanted else _in_space(gone)
    for agent in meant:
        await context.services.archive(agent)
    if not meant:
        return "No removed agent's room stands in the space."
    names = ", ".join(name_of(agent) for agent in meant)
    return f"Out of the space: {names}. Who is in a room stays there, and can read it."


def _removed(wanted: str, gone: Sequence[Agent], there: Sequence[Agent]) -> Agent:
    if any(wanted in (one.agent_id, one.user_id, one.name) for one in there) and not any(
        wanted in (one.agent_id, one.user_id) for one in gone
    ):
        raise CommandFault(f"{code(wanted)} is not removed: `!remove` deletes an agent first.")
    return find_agent(wanted, list(gone))


def _in_space(agents: Sequence[Agent]) -> list[Agent]:
    return [agent for agent in agents if "space" in agent.applied]


def _person(context: CommandContext) -> str:
    named = context.arguments.text("person")
    if not named:
        return context.turn.sender
    if not context.is_admin:
        raise CommandFault("Only an admin invites somebody else; `!invite` alone is for yourself.")
    if not are_ids(named) or named[0] != "@" or ":" not in named:
        raise CommandFault(f"{code(named)} is no user id: `@name:server`.")
    if is_ours(named, context.services.config.bot_user_id):
        raise CommandFault("That is one of us: agents are invited by people, in their clients.")
    return named


def _meant(context: CommandContext) -> list[Agent]:
    wanted = context.arguments.text("AGENT")
    if wanted:
        return [find_agent(wanted, active(context))]
    return [context.agent] if context.agents else active(context)


async def _admit(context: CommandContext, agent: Agent, person: str) -> Admitted:
    try:
        return await context.services.admission.admit(agent, person, by_admin=context.is_admin)
    except MatrixRequestError as error:
        raise CommandFault(f"{name_of(agent)} cannot invite: {code(refusal(error))}") from error


def _told(context: CommandContext, agent: Agent, person: str, outcome: Admitted) -> str:
    room, who = room_link(context, agent), code(person)
    match outcome:
        case Admitted.INVITED:
            return f"Invited {who} to {room}."
        case Admitted.INSIDE:
            return f"{who} is in the room of {room} already."
        case Admitted.WAITING:
            return f"{who} has an invitation to {room} that waits to be accepted."
        case Admitted.BANNED:
            return f"{who} is banned from {room}: somebody with power there can lift that."
        case Admitted.NO_ROOM:
            return f"{name_of(agent)} has no room yet."
        case Admitted.STRANGER:
            line = code(f"!invite {agent.agent_id} --person {person}", limit=600)
            return f"Nobody has let {who} into that room so far. An admin can: {line}"
