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
    action, network = context.arguments.text("ACTION"), context.arguments.text("network")
    if action == "tell":
        return await _tell(context, {"network": network})
    return await decide(context, action, network)


async def decide(
    context: CommandContext, action: str, named: str, verb: str = "!portal", only: str = ""
) -> str:
    """Carries out what is decided about contacts of the network `named`; `only` that one's routes
    are told."""
    contact, network = context.arguments.text("CONTACT"), {"network": named}
    match action:
        case "allow":
            agent = context.arguments.text("AGENT")
            if not contact or not agent:
                raise CommandFault(f"Say whom, and which agent: `{verb} allow CONTACT AGENT`.")
            done = await context.do("portals.allow", contact=contact, agent_id=agent, **network)
            return f"{code(done['contact'])} is answered by {code(done['agent'])} from now on."
        case "block":
            if not contact:
                raise CommandFault(f"Say whom: `{verb} block CONTACT`.")
            done = await context.do("portals.block", contact=contact, **network)
            return f"{code(done['contact'])} is answered by nobody from now on."
        case "hold" | "release":
            done = await context.do(f"portals.{action}", contact=contact, **network)
            where = counted(len(done["rooms"]), "portal")
            if done["held"]:
                return f"Agents are silent in {where}, until `{verb} release`."
            return f"Agents speak again in {where}."
        case _:
            return await _routes(context, only)


async def _tell(context: CommandContext, network: dict[str, str]) -> str:
    words = (context.arguments.text(name) for name in ("CONTACT", "AGENT"))
    text = " ".join(word for word in words if word)
    if not text:
        raise CommandFault("Say what: `!portal tell TEXT`.")
    room = context.arguments.text("room")
    done = await context.do("portals.tell", text=text, room=room, **network)
    heard = "\n".join(fenced(one) for one in done["answers"])
    return heard or "Said; the bridge's bot has not answered yet."


async def _routes(context: CommandContext, only: str) -> str:
    told = await context.do("portals.routes")
    lines = [
        f"- {code(one['network'])}: {code(one['contact'])} "
        + ("wants no messages" if one["stopped"] else f"→ {_agent(one['agent'])}")
        for one in told["routes"]
        if only in ("", one["network"])
    ]
    if not lines:
        return (
            "Nobody of another network is answered yet: `!portal allow CONTACT AGENT` lets "
            "somebody be, and so does `portals` in the configuration."
        )
    lines += [f"- Held: {code(room_id, limit=255)}" for room_id in told["held"]]
    if told["doubtful"]:
        claimed = ", ".join(map(code, told["doubtful"]))
        lines.append(f"- Claimed by several, so that they route nobody: {claimed}")
    return "\n".join(lines)


def _agent(name: str) -> str:
    return code(name) if name else "nobody"
