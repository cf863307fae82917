"""What a reaction or a reply to one of our events means, and whose and where it counts."""

from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.builders import (
    agent,
    asked_approval,
    config_for,
    message,
    reaction,
    reply_to,
    said_in,
    stored_turn,
)
from tests.routing_kit import NO_PORTALS

from letta_matrix.conversations.answers import Answers, decision
from letta_matrix.conversations.approvers import Approvers
from letta_matrix.conversations.routing import Router
from letta_matrix.matrix.reactions import ASK_AGAIN, STOP
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.approvals import ApprovalStatus, ApprovalStore
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import Database
from letta_matrix.store.inbox import Inbox, InboxState
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Outcome, Turn, TurnKind, TurnStatus, TurnStore

GHOST = "@agent_1:test"
REPLY, OFFER, NOTICE, QUESTION = "$reply", "$offer", "$notice", "$question"


class Room:
    """Agent 1's room with a turn that is worked on: a reply, an offer, a notice, an approval."""

    def __init__(self, database: Database, directory: AgentDirectory) -> None:
        self.database = database
        self.outbox, self.turns = Outbox(database), TurnStore(database)
        self.approvals = ApprovalStore(database)
        permissions = {"test": "user", "@troll:test": "block"}
        config = config_for(Path(), permissions=permissions)
        known = (directory, Rooms(database), ConversationStore(database))
        router = Router(config, *known, NO_PORTALS)
        known = (self.outbox, self.turns, self.approvals, Approvers(config))
        self.answers = Answers(router, *known, directory, cast("Any", None), Inbox(database))

    async def furnish(self, event: dict[str, Any]) -> None:
        self.turn = await stored_turn(self.database, "do it", event)
        self.approval = asked_approval(self.turn, "k1", prompt_txn=QUESTION)
        kinds = {
            REPLY: OutboxKind.MESSAGE,
            OFFER: OutboxKind.OFFER,
            NOTICE: OutboxKind.NOTICE,
            QUESTION: OutboxKind.APPROVAL,
        }
        entries = [
            OutboxEntry(name, self.turn.turn_id, seq, kind, 0, self.turn.room_id, GHOST, {})
            for seq, (name, kind) in enumerate(kinds.items())
        ]
        await self.outbox.freeze(entries, also=[self.approvals.insert(self.approval)])
        for entry in entries:
            await self.outbox.confirm(entry, entry.txn_id)

    async def read(self, event: dict[str, Any]) -> Turn | None:
        entry = await self.answers.read(event)
        if entry is None:
            return None
        assert (entry.event_id, entry.room_id) == (event["event_id"], event["room_id"])
        assert entry.state is InboxState.ROUTED
        (turn,) = entry.turns
        author = self.turn.sender if turn.kind is TurnKind.MESSAGE else event["sender"]
        assert (turn.event_id, turn.sender) == (event["event_id"], author)
        return turn

    async def command(self, event: dict[str, Any]) -> str | None:
        """The command that an event stands for."""
        turn = await self.read(event)
        assert turn is not None
        assert (turn.kind, turn.agent_id) == (TurnKind.COMMAND, "agent-1")
        return turn.prompt


@pytest.fixture
async def room(database: Database, directory: AgentDirectory) -> Room:
    await directory.reserve([agent(1), agent(2)])
    made = Room(database, directory)
    await made.furnish(message("do it"))
    return made


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("✅", "react-approve k1"),
        ("✅\ufe0f", "react-approve k1"),
        ("❌", "react-deny k1"),
        ("❌\ufe0f", "react-deny k1"),
        ("♾", "react-always k1"),
        ("♾\ufe0f", "react-always k1"),
    ],
)
async def test_a_reaction_answers_an_approval(room: Room, key: str, line: str) -> None:
    assert await room.command(reaction(QUESTION, key)) == line


@pytest.mark.parametrize(
    "event",
    [
        reaction(QUESTION, "👀"),
        reaction(QUESTION, "✅✅"),
        reaction(QUESTION, ""),
        reaction(REPLY, "✅"),
        reaction(OFFER, "✅"),
        reaction("$unknown", "✅"),
        reaction(QUESTION, "✅", "!2:test"),
        reaction(QUESTION, "✅", sender="@troll:test"),
        reaction(QUESTION, "✅", sender="@ann:elsewhere"),
        reaction(QUESTION, "✅", sender=GHOST),
        reaction(QUESTION, "✅", sender="@letta:test"),
        reaction(QUESTION, "✅", sender=7),
        reaction(QUESTION, "✅", event_id=None),
        reaction(QUESTION, "✅", event_id="$\ud800"),
        reaction("$\ud800", "✅"),
        reaction("$" + "x" * 255, "✅"),
        reaction(REPLY, ASK_AGAIN),
        reaction(QUESTION, ASK_AGAIN),
        reaction(OFFER, ASK_AGAIN, "!2:test"),
        reaction(OFFER, ASK_AGAIN, sender="@troll:test"),
        reaction(REPLY, STOP, "!2:test"),
        reaction(REPLY, STOP, sender="@troll:test"),
        reaction("$unknown", STOP),
        reply_to(QUESTION, "yes", "!2:test"),
        reply_to(QUESTION, "yes", sender="@troll:test"),
        reply_to(QUESTION, "yes", sender=GHOST),
        reply_to(REPLY, "yes"),
        reply_to("$unknown", "yes"),
        reply_to(QUESTION, "what does it do?"),
        reply_to(QUESTION, ""),
        said_in(QUESTION, "yes"),
        message("yes"),
        message(type="m.room.member"),
        message(content=None),
        {},
    ],
    ids=lambda event: f"{event.get('sender')} {event.get('room_id')} {event.get('content')}"[:150],
)
async def test_what_answers_nothing_is_left_to_the_router(
    room: Room, event: dict[str, Any]
) -> None:
    assert await room.answers.read(event) is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("yes", "approve k1"),
        ("no, not that one", "deny k1 not that one"),
        ("always", "approve k1 always"),
        ("> <@agent_1:test> May I?\n\nyes", "approve k1"),
    ],
)
async def test_a_reply_answers_an_approval(room: Room, text: str, line: str) -> None:
    assert await room.command(reply_to(QUESTION, text)) == line


async def test_a_reply_inside_of_the_thread_answers_too(room: Room) -> None:
    event = said_in("$root", "no")
    relation = event["content"]["m.relates_to"]
    relation |= {"is_falling_back": False, "m.in_reply_to": {"event_id": QUESTION}}
    turn = await room.read(event)
    assert turn is not None
    assert (turn.prompt, turn.thread_id) == ("deny k1", "$root")


async def test_a_settled_approval_takes_no_more_replies(room: Room) -> None:
    assert await room.approvals.decide(room.approval, ApprovalStatus.DENIED)
    assert await room.read(reply_to(QUESTION, "yes")) is None


async def test_a_reaction_to_a_settled_approval_is_no_message_for_the_agent(room: Room) -> None:
    await room.approvals.decide(room.approval, ApprovalStatus.DENIED)
    assert await room.command(reaction(QUESTION, "✅")) == "react-approve k1"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("yes", "approve k"),
        ("Yes!", "approve k"),
        (" y ", "approve k"),
        ("OK.", "approve k"),
        ("okay", "approve k"),
        ("approve", "approve k"),
        ("approved", "approve k"),
        ("allow", "approve k"),
        ("✅", "approve k"),
        ("always", "approve k always"),
        ("Always allow", None),
        ("allow always", "approve k always"),
        ("♾", "approve k always"),
        ("♾\ufe0f", "approve k always"),
        ("no", "deny k"),
        ("No.", "deny k"),
        ("n", "deny k"),
        ("❌", "deny k"),
        ("❌ too dangerous", "deny k too dangerous"),
        ("no because it deletes all", "deny k because it deletes all"),
        ("no: use trash\ninstead", "deny k use trash\ninstead"),
        ("deny", "deny k"),
        ("denied, sorry", "deny k sorry"),
        ("not yet", None),
        ("nope", "deny k"),
        ("none of that", None),
        ("yes, but only once", None),
        ("yes and no", None),
        ("why?", None),
        ("okapi", None),
        ("✅ or ❌?", None),
        ("", None),
    ],
)
def test_only_plain_words_are_a_decision(text: str, line: str | None) -> None:
    assert decision(text, "k") == line


@pytest.mark.parametrize("target", [REPLY, NOTICE, QUESTION, "its message"])
async def test_a_stop_sign_stops_the_turn_it_is_on(room: Room, target: str) -> None:
    target = room.turn.event_id if target == "its message" else target
    assert await room.command(reaction(target, STOP)) == f"react-cancel {target}"


async def test_a_turn_that_is_done_cannot_be_stopped(room: Room) -> None:
    await room.turns.finish(room.turn, Outcome.ANSWERED)
    for target in (REPLY, room.turn.event_id):
        assert await room.read(reaction(target, STOP)) is None


async def test_an_offer_is_taken_up_as_the_message_was(
    database: Database, directory: AgentDirectory
) -> None:
    await directory.reserve([agent(1)])
    room = Room(database, directory)
    event = said_in("$root", "look at that")
    attachment = {"msgtype": "m.image", "body": "cat.png", "url": "mxc://test/1"}
    event["content"] |= attachment
    event["content"]["m.relates_to"] |= {
        "is_falling_back": False,
        "m.in_reply_to": {"event_id": "$other"},
    }
    await room.furnish(event)
    wish = reaction(OFFER, ASK_AGAIN, sender="@bob:test")
    turn = await room.read(wish)
    assert turn is not None
    assert turn.turn_id != room.turn.turn_id
    assert (turn.kind, turn.agent_id, turn.prompt, turn.thread_id, turn.reply_to) == (
        TurnKind.MESSAGE,
        "agent-1",
        "do it",
        "$root",
        "$other",
    )
    assert turn.attachment == attachment
    assert (turn.sender, turn.status, turn.conversation_id) == (
        room.turn.sender,
        TurnStatus.QUEUED,
        None,
    )


async def test_an_offer_in_a_thread_is_taken_up_there(
    database: Database, directory: AgentDirectory
) -> None:
    await directory.reserve([agent(1)])
    room = Room(database, directory)
    await room.furnish(said_in("$root"))
    turn = await room.read(reaction(OFFER, ASK_AGAIN))
    assert turn is not None
    assert turn.thread_id == "$root"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
targets = st.sampled_from([QUESTION, OFFER, REPLY]) | anything
keys = st.sampled_from(["✅", STOP, ASK_AGAIN]) | anything
relations = st.fixed_dictionaries(
    {},
    optional={
        "event_id": targets,
        "key": keys,
        "rel_type": anything,
        "is_falling_back": anything,
        "m.in_reply_to": st.fixed_dictionaries({}, optional={"event_id": targets}) | anything,
    },
)


@given(relations | anything, st.sampled_from(["m.reaction", "m.room.message"]), anything)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_no_relation_breaks_it(room: Room, relation: Any, kind: str, body: Any) -> None:
    content = {"msgtype": "m.text", "body": body, "m.relates_to": relation}
    await room.read(message(type=kind, content=content))
