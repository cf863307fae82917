"""Commands that answer tool approvals. What cannot be known for sure is not allowed."""

import time
from collections.abc import Sequence

from letta_matrix.conversations.approval_text import named, short_key
from letta_matrix.doors.chat.command import CommandContext, CommandFault, command
from letta_matrix.doors.chat.texts import span
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.matrix.verbatim import link
from letta_matrix.operations.approvals import LONGEST_REASON, STATUS
from letta_matrix.operations.records import Approval
from letta_matrix.operations.typed import Argument, Kind, Where

_SHORTEST_KEY = 4


@command(
    Argument("KEY"),
    Argument("always", Kind.CHOICE, choices=("always",)),
    aliases=("allow",),
    scope=Where.BOTH,
)
async def approve(context: CommandContext) -> str:
    """Lets a tool run; without a key the one that asks, if there is just one. A ✅ or ♾️ on the
    question does it too."""
    which, always = context.arguments.text("KEY"), bool(context.arguments.text("always"))
    if which.lower() == "always":
        which, always = "", True
    approval = await _meant(context, which)
    if which and approval is None:
        raise CommandFault(f"No approval {code(which)} waits here; `!status` lists their keys.")
    approval = approval or await _only(context, "approve")
    if always and not approval.always:
        raise CommandFault(
            f"{code(approval.tool)} cannot be allowed for good: "
            f"{context.typed(f'approve {short_key(approval)}')} lets it run this once."
        )
    return await _answer(context, approval, "always" if always else "allow")


@command(Argument("KEY"), Argument("REASON", Kind.TEXT), aliases=("reject",), scope=Where.BOTH)
async def deny(context: CommandContext) -> str:
    """Does not let a tool run, and tells the agent why. A ❌ does it too."""
    which, reason = context.arguments.text("KEY"), context.arguments.text("REASON")
    approval = await _meant(context, which)
    if approval is None or not _names(which, approval):
        # No word of it names an approval: all of them are the reason.
        reason = f"{which} {reason}".strip()
    approval = approval or await _only(context, "deny")
    reason = str(context.remembered.get("reason", reason))
    return await _answer(context, approval, "deny", reason)


@command(Argument("KEY", required=True), scope=Where.BOTH, hidden=True)
async def react_approve(context: CommandContext) -> None:
    """Is ✅."""
    await _react(context, "allow")


@command(Argument("KEY", required=True), scope=Where.BOTH, hidden=True)
async def react_always(context: CommandContext) -> None:
    """Is ♾️."""
    await _react(context, "always")


@command(Argument("KEY", required=True), scope=Where.BOTH, hidden=True)
async def react_deny(context: CommandContext) -> None:
    """Is ❌."""
    await _react(context, "deny")


async def waiting_here(context: CommandContext) -> list[Approval]:
    """The approvals that wait in the room."""
    return await context.services.approvals.store.pending(room_id=context.turn.room_id)


def listed(context: CommandContext, waiting: Sequence[Approval]) -> list[str]:
    """Lines that show approvals of the room with their keys."""
    now = time.time()
    return [
        f"- {code(short_key(one))}: {named(one)} · {span(one.expires_at - now)} left"
        + ("" if one.thread_id == context.turn.thread_id else _elsewhere(one))
        for one in waiting
    ]


def _elsewhere(approval: Approval) -> str:
    return " · in another thread" if approval.thread_id else " · outside of threads"


async def _meant(context: CommandContext, word: str) -> Approval | None:
    """The approval that was replied to, remembered from before a crash, or named."""
    store, turn = context.services.approvals.store, context.turn
    remembered = context.remembered.get("approval")
    if isinstance(remembered, str):
        return await store.get(remembered)
    if turn.reply_to is not None:
        replied = await store.asked_in(turn.reply_to)
        if replied is not None and replied.room_id == turn.room_id:
            return replied
    if not word:
        return None
    # Admins can deny from afar, alone with the bot.
    room_id = "" if context.is_admin and not context.agents else turn.room_id
    found = [one for one in await store.named(word.lower(), room_id) if _names(word, one)]
    if len(found) > 1:
        keys = ", ".join(code(one.key) for one in found)
        raise CommandFault(f"Several keys begin with {code(word)}; give more of one: {keys}.")
    return found[0] if found else None


def _names(word: str, approval: Approval) -> bool:
    """Whether a word is an approval's key, or enough of its beginning."""
    word = word.lower()
    return word == approval.key or (len(word) >= _SHORTEST_KEY and approval.key.startswith(word))


async def _only(context: CommandContext, verb: str) -> Approval:
    """What a command without a key means: the one that waits where it was said, if no other
    could be answered there at that time. Its writer may have seen another one than we do."""
    store, turn = context.services.approvals.store, context.turn
    waiting = await waiting_here(context)
    here = [one for one in waiting if one.thread_id == turn.thread_id]
    seen = await store.open_at(turn.room_id, turn.thread_id, turn.sent_at)
    if len(here) == 1 and [one.key for one in seen] == [here[0].key]:
        return here[0]
    if not waiting:
        raise CommandFault(
            "No approval waits here. `!status` lists those that do, in the room where they ask."
        )
    example = context.typed(f"{verb} {short_key(waiting[0])}")
    lines = [f"Say which one is meant, as in {example}:", ""]
    raise CommandFault("\n".join([*lines, *listed(context, waiting)]))


def _refusal(context: CommandContext, approval: Approval, decision: str) -> str:
    """Why an answer does not count, and whose would."""
    approvers, tool = context.services.approvals.approvers, code(approval.tool)
    if _may(context, approval, "allow"):
        once = context.typed(f"approve {short_key(approval)}")
        return f"Only an admin may allow {tool} for good: {once} lets it run this once."
    if decision != "deny" and approval.room_id != context.turn.room_id:
        where = link("the room where it asks", approval.room_id)
        return f"{tool} can be allowed only in {where}, with the question in sight."
    return f"{tool} is for {approvers.who_may(approval)} to allow or deny."


async def _answer(
    context: CommandContext, approval: Approval, decision: str, reason: str = ""
) -> str:
    if not _may(context, approval, decision):
        raise CommandFault(_refusal(context, approval, decision))
    # However much is said with it, a denial is one.
    reason = reason[:LONGEST_REASON]
    await context.remember({"approval": approval.key, "reason": reason})
    wanted = {"key": approval.key, "decision": decision, "reason": reason}
    done = await context.do("approvals.answer", **wanted)
    shown = f" ({code(reason)})" if reason else ""
    return f"{code(approval.tool)}: {done['outcome']}{shown}."


async def _react(context: CommandContext, decision: str) -> None:
    """Silent whatever happens: what was asked shows the answer itself."""
    key = context.arguments.text("KEY")
    approval = await context.services.approvals.store.get(key)
    # From another room it would be no reaction to what asked; and whoever may not answer could
    # fill the audit log by tapping.
    is_here = approval is not None and approval.room_id == context.turn.room_id
    if approval is not None and is_here and _may(context, approval, decision):
        await context.do("approvals.answer", key=key, decision=decision)


def _may(context: CommandContext, approval: Approval, decision: str) -> bool:
    approvers, turn = context.services.approvals.approvers, context.turn
    status = STATUS[decision]
    return approvers.may_answer(approval, status, by=turn.sender, room_id=turn.room_id)
