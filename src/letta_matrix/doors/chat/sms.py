"""Commands about the phone line."""

from letta_matrix.doors.chat.command import CommandContext, CommandFault, command
from letta_matrix.doors.chat.portals import decide
from letta_matrix.doors.chat.texts import counted
from letta_matrix.matrix.verbatim import fenced
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.sms import SMS
from letta_matrix.operations.typed import Argument, Kind, Where

_DECISIONS = ("routes", "allow", "block", "hold", "release")
_ACTIONS = ("status", *_DECISIONS, "send", "login", "logout", "contacts")
_FLOWS = ("", "qr", "google")


@command(
    Argument("ACTION", Kind.CHOICE, required=True, choices=_ACTIONS),
    Argument("CONTACT"),
    Argument("AGENT", Kind.TEXT),
    permission="admin",
    scope=Where.BOTH,
)
async def sms(context: CommandContext) -> str:
    """Tells how the phone line is, pairs a phone, and decides whose texts are answered."""
    if context.services.config.sms is None:
        raise CommandFault("No phone line is configured (`sms`).")
    action, word = context.arguments.text("ACTION"), context.arguments.text("CONTACT")
    match action:
        case "status":
            return await _status(context)
        case "login":
            return await _login(context, word.lower())
        case "send":
            text = context.arguments.text("AGENT")
            if not text:
                raise CommandFault("Say whom, and what: `!sms send NUMBER TEXT`.")
            done = await context.do("sms_send", number=word, text=text)
            return f"Sent to {code(done['number'])}."
        case "logout":
            done = await context.do("sms.logout", login_id=word or "all")
            return f"Unpaired: {code(done['login_id'])}."
        case "contacts":
            return await _contacts(context)
        case _:
            return await decide(context, action, SMS, "!sms", SMS)


async def _status(context: CommandContext) -> str:
    told = await context.do("sms.status")
    talks = counted(told["talks"], "talk")
    lines = [f"The line is {code(told['line'] or '(none: by a relay)')}, in {talks}."]
    for one in told["phones"]:
        why = f": {code(one['reason'])}" if one["reason"] else ""
        named = code(one["name"] or one["login_id"])
        lines.append(f"- Phone {named}: {code(one['state'] or 'unknown')}{why}")
    if told["trouble"]:
        lines.append(f"- {told['trouble']}")
    if told["unnumbered"]:
        where = counted(len(told["unnumbered"]), "talk")
        lines.append(
            f"- In {where} the bridge tells no number, so that nobody is answered there: see "
            "`letta-matrix sms bridge-config`."
        )
    return "\n".join(lines)


async def _login(context: CommandContext, flow: str) -> str:
    if flow not in _FLOWS:
        raise CommandFault("Say how: `!sms login qr`; `!sms login` goes on.")
    if flow == "google":
        # What is written in a room stays there, and these open the whole account.
        raise CommandFault(
            "A Google account is logged in to by cookies, which do not belong into a room: "
            "`letta-matrix sms login google` in a terminal asks for them."
        )
    step = await context.do("sms.login", flow=flow)
    if step["login_id"]:
        return f"The phone is paired: {code(step['login_id'])}."
    shown = fenced(step["data"]) if step["data"] else ""
    how = "To be shown as a QR code" if step["shows"] == "qr" else "On the phone"
    return f"{step['instructions'] or how}\n\n{shown}\n\nThen go on, and wait: `!sms login`."


async def _contacts(context: CommandContext) -> str:
    told = await context.do("sms.contacts")
    lines = [
        f"- {code(', '.join(one['numbers']) or one['user_id'])} {code(one['name'] or '?')} → "
        + (code(one["agent"]) if one["agent"] else "nobody")
        for one in told["contacts"]
    ]
    return "\n".join(lines) or "The phone knows nobody yet."
