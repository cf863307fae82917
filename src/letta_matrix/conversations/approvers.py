"""Whose answer to an approval counts. Pure decisions."""

from collections.abc import Iterable
from typing import Literal

from letta_matrix.common.identifiers import is_ours
from letta_matrix.config import Config
from letta_matrix.matrix.verbatim import inline_code
from letta_matrix.store.approvals import Approval, ApprovalStatus

_MOST_PINGED = 20


class Approvers:
    """Who may answer, as configured (`conversations.approvers`, for the tools in
    `approver_tools`)."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def may_answer(
        self, approval: Approval, status: ApprovalStatus, *, by: str, room_id: str
    ) -> bool:
        """Whether a person's answer, given by an event in a room, counts there.

        Nothing is allowed from afar, where the question cannot be seen; and only by admins what
        then holds for good.
        """
        # Agents can react too, but never in a person's stead.
        if is_ours(by, self._config.bot_user_id):
            return False
        role, here = self._config.role_of(by), room_id == approval.room_id
        if role == "admin":
            return here or status is ApprovalStatus.DENIED
        # An event in the room is what shows that its sender is in it.
        if not here or status is ApprovalStatus.ALWAYS:
            return False
        others = self._besides_admins(approval)
        is_meant = others == "users" or (others == "requester" and by == approval.requester)
        return role == "user" and is_meant

    def who_may(self, approval: Approval) -> str:
        """Whose answer counts, in words."""
        in_words = {
            "requester": f"{inline_code(approval.requester)} or an admin",
            "users": "everybody who may talk to me",
            "admins": "an admin",
        }
        return in_words[self._besides_admins(approval)]

    def among(self, approval: Approval, members: Iterable[str]) -> list[str]:
        """Those of a room's members who may allow it, who asked for it first; not more than are
        to be pinged."""
        room_id, allowed = approval.room_id, ApprovalStatus.ALLOWED
        able = [
            user for user in members if self.may_answer(approval, allowed, by=user, room_id=room_id)
        ]
        return sorted(able, key=lambda user: (user != approval.requester, user))[:_MOST_PINGED]

    def is_always_special(self, approval: Approval) -> bool:
        """Whether some may answer who may not allow it for good, as they are no admins."""
        others = self._besides_admins(approval)
        is_admins = self._config.role_of(approval.requester) == "admin"
        return others == "users" or (others == "requester" and not is_admins)

    def _besides_admins(self, approval: Approval) -> Literal["requester", "users", "admins"]:
        settings = self._config.conversations
        # Another agent's message is nobody's wish: its author cannot vouch for it.
        ours = is_ours(approval.requester, self._config.bot_user_id)
        return (
            "admins" if ours or approval.tool not in settings.approver_tools else settings.approvers
        )
