"""The points at which a bridge can be made to die: a call of a method, and a moment in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from letta_matrix.conversations.reply import Reply
from letta_matrix.conversations.speech import UNASKED
from letta_matrix.conversations.turn_runner import TurnRunner
from letta_matrix.doors.chat.runner import CommandRunner
from letta_matrix.matrix.appservice import Appservice
from letta_matrix.matrix.content import BESIDE, MARKER
from letta_matrix.matrix.intent import Intent
from letta_matrix.operations.toolbox.registry import Toolbox
from letta_matrix.operations.toolbox.texting import Texting
from letta_matrix.portals.day_budget import TEXT
from letta_matrix.portals.provisioning import Provisioning
from letta_matrix.runtimes.app_server.adapter import AppServer
from letta_matrix.runtimes.keeper.client import KeeperClient
from letta_matrix.runtimes.letta_api.adapter import LettaApi
from letta_matrix.runtimes.letta_api.turns import Turn as LettaTurn
from letta_matrix.store.approvals import ApprovalStore
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.inbox import Inbox
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.speech import SpeechStore
from letta_matrix.store.turns import TurnStore

Filter = Callable[..., bool]


class Moment(Enum):
    """When to die in a call."""

    BEFORE = "before"
    AFTER = "after"
    COMMIT = "before the call's database transaction is committed"
    ANSWERED = "after the HTTP response that the call returns has been sent"


@dataclass(frozen=True)
class Point:
    """The `call`-th call of a method that `when` accepts, and a moment in it."""

    owner: type
    method: str
    moment: Moment
    call: int = 1
    when: Filter = lambda *_args, **_kwargs: True

    def __post_init__(self) -> None:
        assert hasattr(self.owner, self.method), f"there is no {self.owner}.{self.method}"


def _completes(*_args: object, completes: object = None, **_kwargs: object) -> bool:
    return completes is not None


def _is_input(_client: object, frame: bytes, **_kwargs: object) -> bool:
    return b'"type": "input"' in frame


def _asks(_outbox: object, entries: Sequence[OutboxEntry], **_kwargs: object) -> bool:
    return [entry.kind for entry in entries] == [OutboxKind.APPROVAL]


def _is_outcome(_outbox: object, entries: Sequence[OutboxEntry], **_kwargs: object) -> bool:
    return any(entry.kind is OutboxKind.UPDATE for entry in entries)


def _marked(key: str, value: str) -> Filter:
    def is_marked(
        _intent: object,
        _room: object,
        _type: object,
        content: Mapping[str, Any],
        *_: object,
        **__: object,
    ) -> bool:
        return content.get(MARKER, {}).get(key) == value

    return is_marked


def _unasked(
    _intent: object,
    _room: object,
    _type: object,
    content: Mapping[str, Any],
    *_: object,
    **__: object,
) -> bool:
    return str(content.get("body", "")).startswith(UNASKED.strip())


def _tells(
    _store: object, _agent: object, _run: object, _cursor: object, told: Sequence[object]
) -> bool:
    return bool(told)


def _is_by_tool(_intent: object, content: Mapping[str, Any], **_kwargs: object) -> bool:
    return MARKER in content.get("creation_content", {})


def _of_kind(kind: OutboxKind) -> Filter:
    def is_of_kind(_outbox: object, entry: OutboxEntry, *_: object) -> bool:
        return entry.kind is kind

    return is_of_kind


BEFORE, AFTER, COMMIT = Moment.BEFORE, Moment.AFTER, Moment.COMMIT

# Each leaves something else behind: in the database, at the runtime or at the homeserver.
BEGINNING_POINTS = {
    # admitting
    "admitted, not committed": Point(Inbox, "admit", COMMIT),
    "admitted, before the 200": Point(Inbox, "admit", AFTER),
    "after the 200, before its turn runs": Point(Appservice, "_transaction", Moment.ANSWERED),
    # asking
    "conversation created, not stored": Point(AppServer, "create_conversation", AFTER),
    "turn's state saved, input not sent": Point(TurnStore, "run", AFTER),
    "input sent": Point(KeeperClient, "send", AFTER, when=_is_input),
    # beginning to answer
    "first message frozen, not sent": Point(Outbox, "freeze", AFTER),
    "first message sent, not confirmed": Point(Intent, "send", AFTER),
    "first message confirmed": Point(Outbox, "confirm", AFTER),
}

EDITING_POINTS = {
    "in an interim edit": Point(Intent, "send_interim", AFTER),
}

ENDING_POINTS = {
    "end frozen, not committed": Point(Outbox, "freeze", COMMIT, when=_completes),
    "end frozen, not sent": Point(Outbox, "freeze", AFTER, when=_completes),
    "end sent, not recorded": Point(Reply, "deliver", AFTER),
    "end recorded, turn kept by the runtime": Point(TurnStore, "finish", AFTER),
}

TURN_POINTS = BEGINNING_POINTS | EDITING_POINTS | ENDING_POINTS

QUESTION_POINTS = {
    "question frozen, not committed": Point(Outbox, "freeze", COMMIT, when=_asks),
    "question frozen, not sent": Point(Outbox, "freeze", AFTER, when=_asks),
    "question sent, not confirmed": Point(
        Intent, "send", AFTER, when=_marked(BESIDE, OutboxKind.APPROVAL)
    ),
    "question confirmed": Point(Outbox, "confirm", AFTER, when=_of_kind(OutboxKind.APPROVAL)),
    "a reaction offered": Point(Intent, "react", AFTER),
}

DECISION_POINTS = {
    "decision not committed": Point(ApprovalStore, "decide", COMMIT),
    "decision stored": Point(ApprovalStore, "decide", AFTER),
    "runtime told": Point(AppServer, "answer_approval", AFTER),
    "outcome frozen, not sent": Point(Outbox, "freeze", AFTER, when=_is_outcome),
}

OTHER_POINTS = {
    "Letta API's run not known": Point(LettaTurn, "_know", BEFORE),
    "answer kept, not sent": Point(LettaApi, "answer_approval", AFTER),
    "command begins": Point(CommandRunner, "run", BEFORE),
    "before the agent is created": Point(AppServer, "create_agent", BEFORE),
    "agent created, not answered": Point(AppServer, "create_agent", AFTER),
    "turn cancelled": Point(TurnRunner, "cancel", AFTER),
    "tool called": Point(Toolbox, "_run", BEFORE),
    "tool's message sent": Point(
        Intent, "send", AFTER, when=_marked("tool", "matrix_send_message")
    ),
    "call noted": Point(AuditStore, "begin", AFTER),
    "tool's room made": Point(Intent, "create_room", AFTER, when=_is_by_tool),
    "call's end not committed": Point(AuditStore, "end", COMMIT),
    "call's end noted": Point(AuditStore, "end", AFTER),
    "talk made, not known": Point(Provisioning, "talk_with", AFTER),
    "text to be sent": Point(Texting, "_goes_on_here", AFTER),
    "half of a text sent": Point(Intent, "send", BEFORE, call=2, when=_marked("tool", TEXT)),
    "speech not committed": Point(SpeechStore, "advance", COMMIT, when=_tells),
    "speech stored, not sent": Point(SpeechStore, "advance", AFTER, when=_tells),
    "speech sent, not confirmed": Point(Intent, "send", AFTER, when=_unasked),
}

POINTS = TURN_POINTS | QUESTION_POINTS | DECISION_POINTS | OTHER_POINTS
