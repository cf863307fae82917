"""What an admin has allowed for good."""

import json
from collections.abc import Mapping

import structlog

from letta_matrix.config import Config
from letta_matrix.conversations.approval_question import Question
from letta_matrix.matrix.identifiers import is_ours
from letta_matrix.store.approvals import ApprovalStore

log = structlog.get_logger()


async def is_allowed_for_good(question: Question, store: ApprovalStore, config: Config) -> bool:
    """Whether an admin allowed this very call of the agent for good, and an admin asks for it
    now: what others ask for always asks, since they may have talked the agent into it."""
    turn, event = question.reply.turn, question.event
    if is_ours(turn.sender, config.bot_user_id) or config.role_of(turn.sender) != "admin":
        return False
    for one in await store.kept(turn.agent_id):
        if one.tool == event.tool and to_the_letter(one.arguments, event.arguments):
            # What people were asked before it was allowed is theirs to answer.
            if await store.get(question.key) is not None:
                return False
            log.info("allowed for good", turn=turn.turn_id, tool=event.tool, key=one.key)
            return True
    return False


def to_the_letter(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether arguments are the same as JSON, where `true` is not 1."""
    return json.dumps(dict(one), sort_keys=True) == json.dumps(dict(other), sort_keys=True)
