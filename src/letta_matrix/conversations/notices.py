"""What an agent says about a turn that went wrong: short, and something can be done about it."""

from letta_matrix.matrix.content import text_content
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.reactions import ASK_AGAIN
from letta_matrix.matrix.verbatim import inline_code

UNREADABLE = "I cannot read encrypted messages. Tell me in a room without encryption?"
UNUSABLE = "I cannot use this kind of message. Tell me in words?"
NO_WORDS = "I am done, and have nothing to say to that."
STOPPED = "Stopped."
UNHEARD = "I stopped listening. My runtime cannot be stopped, so what I was doing may go on unseen."
UNREACHED = (
    "I stopped listening, but my runtime could not be reached: what I was doing may go on. "
    "Look at what it has done before you ask again."
)
BROKEN = (
    "Something went wrong on my side, and I cannot answer this message. Ask again; if it goes "
    "on like this, an operator finds the reason in the log."
)
UNAVAILABLE = "I cannot be reached right now. Your message is safe: I'll answer when I am back."
BUSY = "I am busy with something else in this conversation. I'll answer when that is done."
RATE_LIMITED = "I was asked too much at once and have to wait a little. I'll answer then."
WAS_AWAY = "I could not be reached for a while."
WAS_BUSY = "I was busy with something else first."
HAD_TO_WAIT = "I was asked too much at once, and had to wait a little."
WAS_RETRIED = "My model did not answer at first, and I tried again."
OVER_BUDGET = (
    "That is more than one person may ask at once, so I leave this unanswered, and what you write "
    "next. What you asked before is safe. Write again in a minute, or when some is answered."
)
GONE = "I was deleted from my runtime, so I cannot answer any more."
LOOP = (
    "We seem to answer each other without anybody meaning it, so I stop answering you here for a "
    "while. A word of a person, or one of yours that takes its time, and we go on."
)
UNCLEAR = (
    "My database was put back from a backup, and I cannot look whether I have answered this since. "
    "So that nobody gets an answer twice, I leave it. Ask again if it matters."
)
LEFT_BEHIND = (
    "This room was replaced, and I was not let into the new one. Invite me there, and we go on."
)

_AGAIN = f"React with {ASK_AGAIN} to this message to ask me again."


async def say(intent: Intent, room_id: str, text: str, cause: str, **about: str) -> None:
    """Say something that belongs to no reply, once for each `cause` (a txn id); `about` stands in
    its marker. Raises MatrixRequestError and HomeserverUnavailable."""
    content = text_content(text, marker={**about, "txn": cause}, msgtype="m.notice")
    await intent.send(room_id, "m.room.message", content, cause, give_up_after=60, look_first=True)


def encrypted(instead: str) -> str:
    """`instead` is where to write, as Markdown."""
    return (
        "This room is encrypted, and I cannot read encrypted messages yet. "
        f"Write to me in {instead}."
    )


def muted(where: str, own: int, needed: int) -> str:
    """`where` is the room, as Markdown."""
    return (
        f"I may not write in {where}: my power level there is {own}, and it takes {needed}. So I "
        "leave unanswered what you ask me there until somebody of that room changes it."
    )


def gone_from(where: str) -> str:
    """`where` is the room, as Markdown."""
    return (
        f"I am not in {where} any more, so I leave unanswered what you asked me there. Invite me "
        "again and ask once more?"
    )


def cut_off(where: str) -> str:
    """`where` is the room, as Markdown."""
    return (
        f"I was sent out of {where} before all of my answer to you was there. Invite me again, and "
        "I finish it."
    )


def expired(hours: float) -> str:
    return (
        f"I was away when you wrote this, more than {hours:g} hours ago, so I leave it unanswered. "
        "Write again if it still matters."
    )


def failed(reason: str) -> str:
    return f"I could not finish: {_sentence(reason)} {_AGAIN}"


def retried(reason: str) -> str:
    return (
        f"My model does not answer ({' '.join(reason.split())[:200].rstrip('.')}). I try again by "
        f"myself; if nothing comes of it, {ASK_AGAIN} on this message asks me once more."
    )


def refused(reason: str) -> str:
    return f"I could not take your message: {_sentence(reason)}"


def lost(reason: str, *, tools_started: bool) -> str:
    why = "A tool may have run, so I did not start over" if tools_started else "I tried it twice"
    return f"I lost track of this while working on it ({reason.rstrip('.')}). {why}. {_AGAIN}"


def silent(minutes: float) -> str:
    return f"I heard nothing from my model for {minutes:g} minutes, so I stopped. Ask me again?"


def too_long(minutes: float) -> str:
    worked = f"I worked on this for {minutes:g} minutes without an end, so I stopped."
    return f"{worked} Ask for less at once?"


def credentials(reason: str) -> str:
    return f"My runtime does not let me in, so an operator has to look: {_sentence(reason)}"


def not_shown(reason: str) -> str:
    return f"I did not see your picture: {_sentence(reason)}"


def about_contact(sender: str) -> str:
    """What stands before a word about somebody on another network, said elsewhere."""
    return f"About {inline_code(sender, limit=255)}: "


def undelivered(reason: str) -> str:
    return (
        f"my text did not go out, or perhaps not: {_sentence(reason)} I do not send it again by "
        "myself, so that nobody gets it twice."
    )


PORTAL_UNREADABLE = (
    "messages from there cannot be read, since the bridge encrypts the talk's room: an operator "
    "turns `encryption` off in the bridge's own config.yaml and lets it make the room anew."
)
PORTAL_GONE = "this was not answered, since the bridge has given the talk's room up."
WITHHELD = "my answer was not sent, since I was silenced there while I wrote it."
CONTACT_SPENT = (
    "nothing more is answered today, since the number of messages in a day is used up "
    "(`contact_per_day` and `per_day` of `portals`)."
)


def _sentence(reason: str) -> str:
    reason = " ".join(reason.split())[:300].rstrip(".")
    return f"{reason or 'no reason was given'}."
