"""Commands about other networks: who is answered there by whom, and where nobody is."""

from letta_matrix.doors.chat.command import CommandContext, CommandFault, command
from letta_matrix.doors.chat.texts import counted
from letta_matrix.matrix.verbatim import fenced
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.typed import Argument, Kind, Where

ACTIONS = ("allow", "block", "routes", "hold", "release", "tell")


@command(
    Argument("ACTION", Kind.CHOICE, required=True, choices=ACTIONS),
    Argument("CONTACT"),
    Argument("AGENT", Kind.TEXT),
    Argument("network", Kind.OPTION),
    Argument("room", Kind.OPTION),
    permission="admin",
    scope=Where.BOTH,
)
async def portal(context: CommandContext) -> str:
    """Decides who of other networks is answered by whom, and talks to their bridges."""
    action, contact = context.arguments.text("ACTION"), context.arguments.text("CONTACT")
    network = {"network": context.arguments.text("network")}
    match action:
        case "allow":
            agent = context.arguments.text("AGENT")
            if not contact or not agent:
                raise CommandFault("Say whom, and which agent: `!portal allow CONTACT AGENT`.")
            done = await context.do("portals.allow", contact=contact, agent_id=agent, **network)
            return f"{code(done['contact'])} is answered by {code(done['agent'])} from now on."
        case "block":
            if not contact:
                raise CommandFault("Say whom: `!portal block CONTACT`.")
            done = await context.do("portals.block", contact=contact, **network)
            return f"{code(done['contact'])} is answered by nobody from now on."
        case "tell":
            return await _tell(context, network)
        case "hold" | "release":
            done = await context.do(f"portals.{action}", contact=contact, **network)
            where = counted(len(done["rooms"]), "portal")
            if done["held"]:
                return f"Agents are silent in {where}, until `!portal release`."
            return f"Agents speak again in {where}."
        case _:
            return await _routes(context)


async def _tell(context: CommandContext, network: dict[str, str]) -> str:
    words = (context.arguments.text(name) for name in ("CONTACT", "AGENT"))
    text = " ".join(word for word in words if word)
    if not text:
        raise CommandFault("Say what: `!portal tell TEXT`.")
    room = context.arguments.text("room")
    done = await context.do("portals.tell", text=text, room=room, **network)
    heard = "\n".join(fenced(one) for one in done["answers"])
    return heard or "Said; the bridge's bot has not answered yet."


async def _routes(context: CommandContext) -> str:
    told = await context.do("portals.routes")
    lines = [
        f"- {code(one['network'])}: {code(one['contact'])} "
        + ("wants no messages" if one["stopped"] else f"→ {_agent(one['agent'])}")
        for one in told["routes"]
    ]
    if not lines:
        return (
            "Nobody of another network is answered: `portals` in the configuration, or "
            "`!portal allow CONTACT AGENT`."
        )
    lines += [f"- Held: {code(room_id, limit=255)}" for room_id in told["held"]]
    if told["doubtful"]:
        claimed = ", ".join(map(code, told["doubtful"]))
        lines.append(f"- Claimed by several, so that they route nobody: {claimed}")
    return "\n".join(lines)


def _agent(name: str) -> str:
    return code(name) if name else "nobody"
