"""Commands that answer tool approvals. What cannot be known for sure is not allowed."""

import time
from collections.abc import Mapping

from letta_matrix.conversations.commands.command import CommandContext, CommandFault
from letta_matrix.conversations.commands.texts import counted, plain, span
from letta_matrix.conversations.verbatim import inline_code as code
from letta_matrix.store.approvals import Approval, ApprovalStatus

_ANSWERED = {
    ApprovalStatus.ALLOWED: "allowed",
    ApprovalStatus.ALWAYS: "allowed for good",
    ApprovalStatus.DENIED: "denied",
    ApprovalStatus.EXPIRED: "denied, as nobody answered in time",
    ApprovalStatus.LAPSED: "no longer needed: its turn has ended",
}


async def approve(context: CommandContext) -> str:
    """Let a tool run."""
    which, always = context.arguments.text("N|KEY"), bool(context.arguments.text("always"))
    if which.lower() == "always":
        which, always = "", True
    approval = await _meant(context, which)
    if which and approval is None:
        raise CommandFault(f"No approval {code(which)} waits here; `!status` numbers them.")
    approval = approval or await _only(context, "approve")
    status = ApprovalStatus.ALWAYS if always else ApprovalStatus.ALLOWED
    if always and not approval.always:
        raise CommandFault(
            f"{code(approval.tool)} cannot be allowed for good: `!approve {approval.key}` lets it "
            "run this once."
        )
    _check_seen(context, approval, named=which == approval.key)
    return await _answer(context, approval, status)


async def deny(context: CommandContext) -> str:
    """Do not let a tool run."""
    which, reason = context.arguments.text("N|KEY"), context.arguments.text("REASON")
    approval = await _meant(context, which)
    if approval is None and which.isdecimal():
        raise CommandFault(f"No approval {code(which)} waits here; `!status` numbers them.")
    if approval is None or (context.turn.reply_to and which != approval.key):
        # No word of it names an approval: all of them are the reason.
        reason = f"{which} {reason}".strip()
    approval = approval or await _only(context, "deny")
    reason = str(context.remembered.get("reason", reason))
    return await _answer(context, approval, ApprovalStatus.DENIED, reason)


async def react_approve(context: CommandContext) -> None:
    await _react(context, ApprovalStatus.ALLOWED)


async def react_always(context: CommandContext) -> None:
    await _react(context, ApprovalStatus.ALWAYS)


async def react_deny(context: CommandContext) -> None:
    await _react(context, ApprovalStatus.DENIED)


async def waiting_here(context: CommandContext) -> dict[int, Approval]:
    """The approvals that wait in this room, or, where no agent is, all that the person may
    answer, by their numbers for `!approve`."""
    known = enumerate(await _known_here(context), start=1)
    return {number: one for number, one in known if one.status is ApprovalStatus.PENDING}


def numbered(waiting: Mapping[int, Approval]) -> list[str]:
    """Lines that show approvals with their numbers."""
    now = time.time()
    return [
        f"- {number}: {code(one.tool)} · {span(one.expires_at - now)} left · key {code(one.key)}"
        for number, one in waiting.items()
    ]


async def _known_here(context: CommandContext) -> list[Approval]:
    """What waits, among what its turns asked for before: a number stays the same one's when
    another is answered."""
    approvals, turn = context.services.approvals, context.turn
    if context.agents:
        waiting = await approvals.store.pending(room_id=turn.room_id)
    else:
        every = await approvals.store.pending()
        waiting = [one for one in every if approvals.may_answer(one, turn.sender)]
    turn_ids = dict.fromkeys(one.turn_id for one in waiting)
    return [one for turn_id in turn_ids for one in await approvals.store.of_turn(turn_id)]


async def _meant(context: CommandContext, which: str) -> Approval | None:
    """The approval that was replied to, remembered from before a crash, or named."""
    approvals, turn = context.services.approvals, context.turn
    remembered = context.remembered.get("approval")
    if isinstance(remembered, str):
        return await approvals.store.get(remembered)
    if turn.reply_to is not None:
        replied = await approvals.store.asked_in(turn.reply_to)
        if replied is not None and replied.room_id == turn.room_id:
            return replied
    found = await approvals.store.get(which) if which else None
    if found is None and which.isdecimal():
        known = await _known_here(context)
        return known[int(which) - 1] if 0 < int(which) <= len(known) else None
    anywhere = not context.agents and found and approvals.may_answer(found, turn.sender)
    return found if found and (found.room_id == turn.room_id or anywhere) else None


async def _only(context: CommandContext, verb: str) -> Approval:
    waiting = await waiting_here(context)
    if not waiting:
        raise CommandFault("No approval waits here.")
    if len(waiting) > 1:
        lines = [f"{counted(len(waiting), 'approval')} wait here: say which, `!{verb} N`.", ""]
        raise CommandFault("\n".join([*lines, *numbered(waiting)]))
    return next(iter(waiting.values()))


def _check_seen(context: CommandContext, approval: Approval, *, named: bool) -> None:
    """Nobody allows what was not asked yet when they wrote: a number, or none, may by now mean
    another one than they saw."""
    turn = context.turn
    if named or turn.reply_to is not None or context.remembered:
        return
    if approval.asked_at > turn.sent_at:
        raise CommandFault(
            f"{code(approval.tool)} was asked for after you wrote that; to allow it: "
            f"`!approve {approval.key}`."
        )


async def _answer(
    context: CommandContext, approval: Approval, status: ApprovalStatus, reason: str = ""
) -> str:
    approvals, sender = context.services.approvals, context.turn.sender
    if not approvals.may_answer(approval, sender):
        who = approvals.who_may(approval)
        raise CommandFault(f"{code(approval.tool)} is for {who} to allow or deny.")
    await context.remember({"approval": approval.key, "reason": reason})
    if not await approvals.answer(approval, status, by=sender, reason=reason):
        settled = await approvals.store.get(approval.key) or approval
        if not (context.recovered and settled.status is status and settled.decided_by == sender):
            outcome = _ANSWERED.get(settled.status, "its time is up")
            return f"{code(approval.tool)} cannot be answered any more: {outcome}."
    outcome = _ANSWERED[status]
    return f"{code(approval.tool)}: {outcome}{f' ({plain(reason)})' if reason else ''}."


async def _react(context: CommandContext, status: ApprovalStatus) -> None:
    """Silent whatever happens: what was asked shows the answer itself."""
    approvals, turn = context.services.approvals, context.turn
    approval = await approvals.store.get(context.arguments.text("KEY"))
    if approval is None or approval.room_id != turn.room_id:
        return
    if status is ApprovalStatus.ALWAYS and not approval.always:
        return
    if approvals.may_answer(approval, turn.sender):
        await approvals.answer(approval, status, by=turn.sender)
