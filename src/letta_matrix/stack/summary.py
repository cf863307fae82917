"""What `up` tells the person at the terminal once everything runs."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from letta_matrix.common.program import is_relative, typed
from letta_matrix.stack.state import ACCESS_FILE, ADMIN, StackState

_NAMES_SHOWN = 8
_WIDTH = 80


@dataclass(frozen=True, slots=True)
class Facts:
    """What the summary tells of a stack beside its `state`."""

    state: StackState
    login_token: str | None
    agents: Sequence[str]
    model: str
    demo: bool
    data: Path
    usual_data: bool
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


def sign_in_link(chat_url: str, login_token: str) -> str:
    """The address of the chat page that signs its reader in."""
    return f"{chat_url}#token={quote(login_token, safe='')}"


def _talk_now(facts: Facts) -> list[str]:
    if facts.login_token is None:
        return [
            "Talk to your agents in the browser (log in with the user and password below):",
            f"  {facts.state.chat['url']}",
        ]
    return [
        "Talk to your agents in the browser (this link works once, for a day):",
        f"  {sign_in_link(facts.state.chat['url'], facts.login_token)}",
        "A new link, when this one is used up:",
        f"  {_command(facts, 'link')}",
    ]


def _login(facts: Facts) -> list[tuple[str, str]]:
    url = facts.state.homeserver["url"]
    return [
        ("homeserver", url),
        ("user", facts.state.users[ADMIN]["user_id"]),
        ("password", _password(facts)),
        (
            "Element",
            "https://app.element.io - Sign in; beside the homeserver choose Edit, then Other "
            f"homeserver, and enter {url}",
        ),
        ("Cinny", f"https://app.cinny.in/login/{quote(url, safe='')}/"),
        (
            "",
            "(in the browser these two need Chromium or Chrome, and leave to access your "
            "local network; Safari blocks it; desktop clients need nothing)",
        ),
    ]


def _password(facts: Facts) -> str:
    return facts.state.users[ADMIN].get("password") or (
        f"yours: it was changed, {facts.data / 'admin.password'} no longer fits. Write the "
        f"new one into that file, for `{_command(facts, 'chat')}` and the sign-in link; forgotten: "
        'see docs/operations.md, "A changed password"'
    )


def _running(facts: Facts) -> list[tuple[str, str]]:
    state = facts.state
    return [
        ("agents", _names(facts.agents)),
        ("model", facts.model),
        ("chat page", state.chat["url"]),
        ("dashboard", f"{state.api['url']}/dashboard"),
        ("REST API", f"{state.api['url']}/docs"),
        *([("MCP", state.mcp["url"])] if state.mcp else []),
        ("token", f"for both: {facts.data / ACCESS_FILE}"),
        ("App Server", state.app_server["url"]),
        ("data and logs", str(facts.data)),
    ]


def _what_to_try(facts: Facts) -> list[str]:
    if not facts.agents:
        return ["Agents appear here and on Matrix as soon as you create them."]
    first = facts.agents[0]
    # The message stands last, in quotes: it is what a person changes first.
    command = f'{_command(facts, "chat", first)} "hello"'
    where = "In another terminal, in this folder" if is_relative(command) else "In another terminal"
    lines = [
        f'Try: open the space "Letta Agents", enter {first}\'s room, write hello.',
        f"{where}:",
        f"  {command}",
    ]
    if facts.demo:
        lines += [
            "",
            "The demo model only repeats what it is told. For a real one, stop, then start",
            "again with OPENAI_API_KEY or ANTHROPIC_API_KEY set, or with --model-base-url.",
        ]
    return lines


def _command(facts: Facts, name: str, *arguments: str) -> str:
    folder = [] if facts.usual_data else ["--data", str(facts.data)]
    return typed([name, *folder, *arguments])


def _names(agents: Sequence[str]) -> str:
    more = len(agents) - _NAMES_SHOWN
    shown = ", ".join(agents[:_NAMES_SHOWN]) or "none yet"
    return f"{shown} and {more} more" if more > 0 else shown


def _rows(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(label) for label, _ in rows)
    lines = [f"{title}:"]
    for label, value in rows:
        lines += textwrap.wrap(
            value,
            _WIDTH,
            initial_indent=f"  {label:<{width}}  ",
            subsequent_indent=" " * (width + 4),
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines
