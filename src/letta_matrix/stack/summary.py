"""What `up` tells the person at the terminal once everything runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

_NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the summary mentions."""

    homeserver_url: str
    user_id: str
    password: str
    chat_url: str
    login_token: str | None
    app_server_url: str
    agents: Sequence[str]
    model: str
    demo: bool
    data: Path
    seconds: float


def summary(facts: Facts) -> str:
    """The closing table: where to log in, as whom, and what to try."""
    return "\n".join(
        [
            "",
            f"letta-matrix is running (ready after {facts.seconds:.0f} s).",
            "",
            *_talk_now(facts),
            "",
            *_rows("Or log in with any Matrix client", _login(facts)),
            "",
            *_rows("Running here", _running(facts)),
            "",
            *_what_to_try(facts),
            "",
            "Ctrl-C stops everything; starting again keeps it all.",
        ]
    )


def _talk_now(facts: Facts) -> list[str]:
    if facts.login_token is None:
        return [f"Talk to your agents in the browser: {facts.chat_url}"]
    link = f"{facts.chat_url}#token={quote(facts.login_token, safe='')}"
    return ["Talk to your agents in the browser (this link works once, for a day):", f"  {link}"]


def _login(facts: Facts) -> list[tuple[str, str]]:
    homeserver = quote(facts.homeserver_url, safe="")
    name = facts.user_id[1:].partition(":")[0]
    return [
        ("homeserver", facts.homeserver_url),
        ("user", facts.user_id),
        ("password", facts.password),
        ("Element", "https://app.element.io  -> Sign in -> Edit the homeserver, enter the above"),
        ("Cinny", f"https://app.cinny.in/login/{homeserver}/?username={quote(name)}"),
        ("", "(hosted clients: use a Chromium browser and allow access to the local network;"),
        ("", "Safari blocks it; desktop clients need nothing)"),
    ]


def _running(facts: Facts) -> list[tuple[str, str]]:
    return [
        ("agents", _names(facts.agents)),
        ("model", facts.model),
        ("chat page", facts.chat_url),
        ("homeserver", facts.homeserver_url),
        ("App Server", facts.app_server_url),
        ("data and logs", str(facts.data)),
    ]


def _what_to_try(facts: Facts) -> list[str]:
    first = facts.agents[0] if facts.agents else "an agent"
    lines = [
        f'Try: open the space "Letta Agents", enter {first}\'s room, write hello.',
        f'In another terminal: letta-matrix chat {first} "hello"' if facts.agents else "",
    ]
    if facts.demo:
        lines.append(
            "The demo model only repeats what it is told. For a real one, stop and start again with"
            "\nOPENAI_API_KEY or ANTHROPIC_API_KEY set, or with --model-base-url URL --model ID."
        )
    return [line for line in lines if line]


def _names(agents: Sequence[str]) -> str:
    more = len(agents) - _NAMES_SHOWN
    shown = ", ".join(agents[:_NAMES_SHOWN]) or "none yet"
    return f"{shown} and {more} more" if more > 0 else shown


def _rows(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(label) for label, _ in rows)
    return [f"{title}:", *(f"  {label:<{width}}  {value}".rstrip() for label, value in rows)]
