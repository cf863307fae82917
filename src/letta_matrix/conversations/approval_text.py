"""What people read about a tool approval, and what the model is told of a denial."""

import json
import re
from collections.abc import Iterator

from letta_matrix.matrix.content import content_size, text_content
from letta_matrix.matrix.reactions import ALLOW, ALWAYS, DENY
from letta_matrix.matrix.splitting import CONTENT_LIMIT
from letta_matrix.matrix.unfolding import unfolded
from letta_matrix.matrix.verbatim import fenced, inline_code, visible
from letta_matrix.store.approvals import Approval, ApprovalStatus

TOO_LONG = "its arguments are too long to be shown here in full"
UNSEEN = "the homeserver did not take the question"
CHANGED = "its arguments are no longer those that were shown"
TAMPERED = (
    "its question was changed or removed after it was asked, so nobody knows what was allowed"
)
BROKEN = "nobody could be asked"
AGAIN = "it was asked again, after a restart"

ANSWER_FIRST = (
    "I wait for an answer to my question above: tap on it, or reply to it with yes or no. "
    "What you write meanwhile comes after that."
)

_STARTERS = {"Agent", "Task", "Workflow"}
"""Tools of the App Server that start other agents, which nobody is asked about."""
_ESCAPED = re.compile(r"(?<!\\)(?:\\\\)*\\u[0-9a-f]{4}")
_LIMIT = CONTENT_LIMIT - 2_000
"""Bytes of a prompt's content without its marker and relation."""

_KEY_SHOWN = 6
_LONGEST_TOOL = 200
_LONG_LINE = 160
_MANY_LINES = 20


def prompt(approval: Approval, who: str, *, admins_always: bool = False) -> str | None:
    """The question, in Markdown, with all arguments; None if they do not fit into one event.

    What is run comes first and once, other arguments are folded. `who` says who may answer,
    `admins_always` that of those only admins may allow it for good.
    """
    if len(_json(approval)) > _LIMIT or len(approval.tool) > _LONGEST_TOOL:
        return None
    source = _source(approval)
    whole = fenced(source, "json")
    plain = [_named(name, fenced(text)) for name, text in _plain(approval)]
    first = [*plain, *([] if _says_all(approval) else [_folded(whole) if plain else whole])]
    # What is easier to read comes on top of the whole, as long as there is room for both.
    for shown in (first, [whole]):
        blocks = [_question(approval), *shown, *(f"⚠️ {one}" for one in warnings(approval))]
        blocks.append(_ways(approval, who, admins_always=admins_always))
        markdown = "\n\n".join(blocks)
        if content_size(text_content(markdown, marker={}, plain=unfolded(markdown))) <= _LIMIT:
            return markdown
    return None


def in_full(approval: Approval) -> list[tuple[str, str]]:
    """The same arguments for pages, each text with its argument's name, every sign of it seen:
    what is easier to read comes first, and all of them as JSON, without a name, last, unless a
    text says it all."""
    plain = [(visible(name), visible(text, keep="\n\t")) for name, text in _plain(approval) if name]
    return plain if plain and _says_all(approval) else [*plain, ("", _source(approval))]


def warnings(approval: Approval) -> Iterator[str]:
    """What is to be known before it is allowed, a sentence each."""
    source = _source(approval)
    if approval.tool in _STARTERS:
        yield "What it starts runs tools of its own, a shell among them, without asking."
    if _ESCAPED.search(source) or visible(approval.tool) != approval.tool:
        yield "It has hidden characters, shown as \\u and a number."
    lines = source.replace("\\n", "\n").split("\n")
    if len(lines) > _MANY_LINES or max(map(len, lines)) > _LONG_LINE:
        yield f"It is long ({len(source):,} characters): scroll to see all of it."


def outcome(approval: Approval) -> str:
    """What became of a settled approval, in a line of Markdown."""
    tool, by = named(approval), inline_code(approval.decided_by)
    match approval.status:
        case ApprovalStatus.ALLOWED:
            return f"{ALLOW} {tool} allowed by {by}"
        case ApprovalStatus.ALWAYS:
            return f"{ALWAYS} {tool} allowed for good by {by}"
        case ApprovalStatus.DENIED:
            return f"{DENY} {tool} denied{f' by {by}' if approval.decided_by else ''}" + (
                f": {_line(approval.reason)}" if approval.reason else ""
            )
        case ApprovalStatus.EXPIRED:
            return f"⌛ {tool} denied: nobody answered within {_allowed_time(approval)}"
        case ApprovalStatus.LAPSED | ApprovalStatus.PENDING:
            return f"⌛ {tool} was not answered before the turn ended"


def superseded(approval: Approval) -> str:
    """What its question says once the agent, begun anew, has asked another in its place."""
    return f"⌛ {named(approval)} did not run: I had to begin anew, and ask again below"


def unheard(approval: Approval) -> str:
    """What its question says where an answer found nobody that waited for it."""
    return f"⌛ {named(approval)} did not run: the turn ended before the answer could reach it"


def denial(approval: Approval) -> str:
    """Why the tool may not run, for the model."""
    match approval.status:
        case ApprovalStatus.EXPIRED:
            return f"Denied: nobody answered within {_allowed_time(approval)}."
        case ApprovalStatus.DENIED:
            by = f" by {approval.decided_by}" if approval.decided_by else ""
            return f"Denied{by}: {approval.reason or 'no reason was given'}"
        case _:
            return "Denied: the turn had ended before somebody answered."


def named(approval: Approval) -> str:
    """A tool and the beginning of its command, in a line of Markdown."""
    command = approval.arguments.get("command")
    tool = inline_code(approval.tool)
    return f"{tool} ({inline_code(command, limit=80)})" if isinstance(command, str) else tool


def short_key(approval: Approval) -> str:
    """As much of its key as people need to type."""
    return approval.key[:_KEY_SHOWN]


def _question(approval: Approval) -> str:
    return f"**May I run {inline_code(approval.tool)}?**"


def _json(approval: Approval) -> str:
    return json.dumps(dict(approval.arguments), indent=2, ensure_ascii=False)


def _source(approval: Approval) -> str:
    return visible(_json(approval), keep="\n")


def _plain(approval: Approval) -> Iterator[tuple[str, str]]:
    """Texts among the arguments that JSON makes hard to read, with their names."""
    for name, value in approval.arguments.items():
        if not isinstance(value, str):
            continue
        if name == "command" or "\n" in value or len(approval.arguments) == 1:
            yield name, value


def _named(name: str, block: str) -> str:
    # A command needs no name: it is what the question is about.
    return block if name == "command" else f"{inline_code(name, limit=len(name))}:\n{block}"


def _folded(whole: str) -> str:
    return f"<details><summary>All arguments</summary>\n\n{whole}\n\n</details>"


def _says_all(approval: Approval) -> bool:
    """Whether the only argument, as plain text, leaves no doubt what it is."""
    value, *others = approval.arguments.values() or (None,)
    if others or not isinstance(value, str) or not value:
        return False
    is_seen = visible(value, keep="\n") == value
    return is_seen and all(line == line.rstrip() for line in f"{value}.".split("\n"))


def _ways(approval: Approval, who: str, *, admins_always: bool) -> str:
    sign = f"{ALWAYS} (admins)" if admins_always else ALWAYS
    always = f" · {sign} this very call for good, whenever an admin asks" if approval.always else ""
    key = short_key(approval)
    return (
        f"{ALLOW} yes · {DENY} no{always}\n"
        f"For {who}, within {_allowed_time(approval)}. "
        f"Several wait? `!approve {key}`, `!deny {key}`"
    )


def _line(text: str) -> str:
    return visible(" ".join(text.split())[:500])


def _allowed_time(approval: Approval) -> str:
    seconds = round(approval.expires_at - approval.asked_at)
    for unit, name in ((3600, "hour"), (60, "minute")):
        if seconds >= 2 * unit or seconds == unit:
            count = round(seconds / unit, 1)
            return f"{count:g} {name}{'' if count == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
