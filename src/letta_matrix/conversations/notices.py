"""What an agent says about a turn that went wrong: short, and something can be done about it."""

from letta_matrix.conversations.routing import ASK_AGAIN

UNREADABLE = "I can only read unencrypted text so far. Tell me in words?"
NO_WORDS = "I am done, and have nothing to say to that."
STOPPED = "Stopped."
BROKEN = "Something went wrong on my side, and I cannot answer this message."
UNAVAILABLE = "I cannot be reached right now. Your message is safe: I'll answer when I am back."


def expired(hours: float) -> str:
    return (
        f"I was away when you wrote this, more than {hours:g} hours ago, so I leave it unanswered. "
        "Write again if it still matters."
    )


def failed(reason: str) -> str:
    return f"I could not finish: {_sentence(reason)}"


def refused(reason: str) -> str:
    return f"I could not take your message: {_sentence(reason)}"


def lost(reason: str, *, tools_started: bool) -> str:
    why = "A tool may have run, so I did not start over" if tools_started else "I tried it twice"
    return (
        f"I lost track of this while working on it ({reason.rstrip('.')}). {why}. "
        f"React with {ASK_AGAIN} to this message to ask me again."
    )


def silent(minutes: float) -> str:
    return f"I heard nothing from my model for {minutes:g} minutes, so I stopped. Ask me again?"


def too_long(minutes: float) -> str:
    return f"I worked on this for {minutes:g} minutes without an end, so I stopped."


def approval_denied(tool: str) -> str:
    return f"`{tool}` needs somebody's approval, which cannot be given from Matrix yet: denied."


def _sentence(reason: str) -> str:
    reason = " ".join(reason.split())[:300].rstrip(".")
    return f"{reason or 'no reason was given'}."
