"""Commands about agents' own rooms: the way back into them, and what stands in the space."""

from letta_matrix.access.faults import ToolError
from letta_matrix.common.identifiers import is_ours
from letta_matrix.conversations.admission import Admitted
from letta_matrix.conversations.new_turns import are_ids
from letta_matrix.doors.chat.command import CommandContext, CommandFault, command
from letta_matrix.doors.chat.management import agent_meant
from letta_matrix.doors.chat.overview import active, room_link
from letta_matrix.doors.chat.texts import counted, name_of
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.records import Agent
from letta_matrix.operations.typed import Argument, Kind, Where


@command(Argument("AGENT", Kind.TEXT), Argument("person", Kind.OPTION), scope=Where.BOTH)
async def invite(context: CommandContext) -> str:
    """Invites you again into an agent's room, or into all you may be in; an admin can name
    somebody else."""
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
    named = context.arguments.text("AGENT") or context.agents
    return [agent_meant(context)] if named else active(context)


async def _admit(context: CommandContext, agent: Agent, person: str) -> Admitted:
    try:
        done = await context.do(
            "agents.invite", step=agent.agent_id, agent_id=agent.agent_id, user_id=person
        )
    except ToolError as error:
        if error.detail not in [one.value for one in Admitted]:
            raise
        return Admitted(error.detail)
    return Admitted(done["outcome"])


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
