"""Whose event is it? Silence is the default, and no event can break the decision."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.builders import PERSON, agent, config_for, invite, message, reply_to, said_in
from tests.routing_kit import NO_PORTALS, Known, KnownConversations, KnownRooms

from letta_matrix.conversations.new_turns import command_line, new_turn
from letta_matrix.conversations.routing import Router
from letta_matrix.matrix.content import MARKER
from letta_matrix.store.agents import ANSWERED_UNTIL, AgentStatus
from letta_matrix.store.inbox import InboxEntry, InboxState
from letta_matrix.store.places import Place
from letta_matrix.store.turns import Turn, TurnKind

BOT = "@letta:test"
GHOSTS = [f"@agent_{number}:test" for number in range(6)]
SHARED, DIRECT, MANAGEMENT = "!shared:test", "!direct:test", "!management:test"
CROWDED = "!crowded:test"
OWN_THREAD, SILENT_THREAD = "$own-thread", "$silent-thread"
REMOVED = agent(2, status=AgentStatus.REMOVED)
PAUSED = agent(5)
ROUTER = Router(
    config_for(Path(), permissions={"test": "user", "@troll:test": "block", "far": "block"}),
    Known(agent(1), REMOVED, agent(3), agent(4), PAUSED),
    KnownRooms(
        {
            SHARED: {BOT: False, **dict.fromkeys(GHOSTS[1:6], False)},
            DIRECT: {GHOSTS[3]: True},
            MANAGEMENT: {BOT: True},
            CROWDED: {GHOSTS[3]: True, GHOSTS[1]: True},
        },
        ("agent-5", "!5:test"),
        ("agent-5", SHARED),
    ),
    KnownConversations(
        Place("agent-3", SHARED, OWN_THREAD), Place("agent-1", "!1:test", SILENT_THREAD)
    ),
    NO_PORTALS,
)


def routed(event: dict[str, Any]) -> InboxEntry:
    entry = ROUTER.route(event)
    assert entry is not None
    return entry


def turns_of(event: dict[str, Any]) -> list[Turn]:
    entry = routed(event)
    assert entry.state is (InboxState.ROUTED if entry.turns else InboxState.IGNORED)
    return entry.turns


def turn_of(event: dict[str, Any]) -> Turn:
    (turn,) = turns_of(event)
    return turn


def prompt_of(event: dict[str, Any]) -> str | None:
    turn = turn_of(event)
    assert turn.kind is TurnKind.MESSAGE
    return turn.prompt


def command_of(event: dict[str, Any]) -> tuple[str, str | None]:
    """The agent that a command is about, and its line."""
    turn = turn_of(event)
    assert (turn.kind, turn.attachment) == (TurnKind.COMMAND, None)
    return turn.agent_id, turn.prompt


def test_a_message_in_an_agents_room_is_a_turn() -> None:
    event = message("  hello there\n", origin_server_ts=1_700_000_000_500)
    turn = turn_of(event)
    assert (turn.kind, turn.thread_id, turn.reply_to, turn.attachment, turn.hops) == (
        TurnKind.MESSAGE,
        "",
        None,
        None,
        0,
    )
    assert (turn.agent_id, turn.room_id, turn.event_id, turn.sender, turn.prompt, turn.sent_at) == (
        "agent-1",
        "!1:test",
        event["event_id"],
        PERSON,
        "hello there",
        1_700_000_000.5,
    )
    assert turn.message_id == event["event_id"]


def test_what_another_has_answered_before_a_room_was_adopted_is_not_answered_again() -> None:
    adopted = agent(1, applied={ANSWERED_UNTIL: 1_700_000_000.5})
    router = Router(
        config_for(Path()), Known(adopted), KnownRooms({}), KnownConversations(), NO_PORTALS
    )
    times = (1_700_000_000_000, 1_700_000_000_500, 1_700_000_000_501)
    entries = [router.route(message(origin_server_ts=time)) for time in times]
    entries += [router.route(message("!new", origin_server_ts=time)) for time in times]
    assert [bool(entry and entry.turns) for entry in entries] == [False, False, True] * 2


def test_the_turns_id_follows_from_event_and_agent() -> None:
    event = message()
    first, again = new_turn(event, "agent-1", "x"), new_turn(event, "agent-1", "y")
    assert first.turn_id == again.turn_id
    assert first.turn_id != new_turn(event, "agent-2", "x").turn_id


def test_a_message_in_an_unknown_room_is_parked() -> None:
    entry = routed(message(room_id="!unknown:test"))
    assert (entry.state, entry.turns) == (InboxState.PARKED, [])


@pytest.mark.parametrize(
    "event",
    [
        message(sender="@troll:test"),
        message(sender="@ann:far"),
        message(sender="@ann:elsewhere"),
        message(room_id="!2:test"),
        message(content={"msgtype": "m.notice", "body": "I am a bot"}),
        message(content={"msgtype": "m.text", "body": ""}),
        message(content={"msgtype": "m.text", "body": " \n\t"}),
        message(content={"msgtype": "m.text", "body": 7}),
        message(content={"msgtype": "m.text"}),
        message(content={"msgtype": "m.server_notice", "body": "x"}),
        message(content={"msgtype": "m.key.verification.request", "body": "x"}),
        message(content={}, type="m.sticker"),
        message(type="org.matrix.msc3381.poll.response", content={"body": "x"}),
        message(type="m.poll.end", content={"body": "x"}),
        message(type="m.call.invite", content={"body": "x"}),
        message(type="m.room.encrypted", content={"m.relates_to": {"rel_type": "m.replace"}}),
        message(type="m.room.encrypted", content={"m.relates_to": {"rel_type": "m.reference"}}),
        message(content={}),
        message(content=None),
        message(content=["m.text"]),
        message(state_key=""),
        message(type="m.room.member", state_key=PERSON),
        message(type="m.reaction"),
        message(type="m.room.redaction"),
        message(
            content={
                "msgtype": "m.text",
                "body": "* x",
                "m.relates_to": {"rel_type": "m.replace", "event_id": "$1"},
            }
        ),
    ],
    ids=lambda event: f"{event['sender']} {event['type']} {event['content']}"[:60],
)
def test_silence(event: dict[str, Any]) -> None:
    assert turns_of(event) == []


@pytest.mark.parametrize("msgtype", ["m.image", "m.file", "m.audio", "m.video"])
def test_a_file_is_a_turn_with_what_is_known_of_it(msgtype: str) -> None:
    known: dict[str, Any] = {
        "msgtype": msgtype,
        "body": "cat.png",
        "url": "mxc://test/1",
        "info": {"size": 7, "mimetype": "image/png"},
    }
    turn = turn_of(message(content={**known, "org.example": "x" * 1000}))
    assert (turn.prompt, turn.attachment) == ("", known)


@pytest.mark.parametrize(
    ("body", "filename", "caption"),
    [
        ("What is that?", "cat.png", "What is that?"),
        (" half \ud83d ", "cat.png", "half \ufffd"),
        ("cat.png", "cat.png", ""),
        ("cat.png", None, ""),
        ("cat.png", 7, ""),
    ],
)
def test_a_caption_is_what_is_said(body: str, filename: object, caption: str) -> None:
    content = {"msgtype": "m.image", "body": body, "filename": filename}
    assert prompt_of(message(content=content)) == caption


def test_an_encrypted_file_keeps_where_it_is() -> None:
    content = {"msgtype": "m.file", "body": "x", "file": {"url": "mxc://test/1", "v": "v2"}}
    assert turn_of(message(content=content)).attachment == content


def test_an_encrypted_message_is_a_turn_without_words() -> None:
    assert prompt_of(message(type="m.room.encrypted", content={"ciphertext": "x"})) is None


def test_an_emote_shows_as_one() -> None:
    assert prompt_of(message(content={"msgtype": "m.emote", "body": "waves"})) == "* waves"


def test_the_quote_before_a_reply_is_not_said_again() -> None:
    relation = {"m.in_reply_to": {"event_id": "$1"}}
    body = "> <@bob:test> old words\n> more\n\nnew words"
    content = {"msgtype": "m.text", "body": body, "m.relates_to": relation}
    assert prompt_of(message(content=content)) == "new words"
    assert prompt_of(message("> a quote\n\nof my own")) == "> a quote\n\nof my own"


def test_a_huge_message_is_cut() -> None:
    prompt = prompt_of(message("x" * 1_000_000))
    assert prompt is not None
    assert len(prompt) == 200_000


@pytest.mark.parametrize(
    "fields",
    [
        {"event_id": None},
        {"event_id": 7},
        {"event_id": ""},
        {"event_id": "$" + "x" * 255},
        {"room_id": None},
        {"room_id": ["!1:test"]},
        {"sender": None},
        {"sender": {}},
        {"event_id": "$\ud800"},
        {"room_id": "!\udfff:test"},
        {"sender": "@\ud800:test"},
    ],
    ids=repr,
)
def test_an_event_without_proper_ids_is_none(fields: dict[str, Any]) -> None:
    assert ROUTER.route(message(**fields)) is None


@pytest.mark.parametrize(
    "sent_at", [None, "now", [], {}, float("nan"), float("inf"), -float("inf"), 10**400, True]
)
def test_an_odd_timestamp_harms_nobody(sent_at: Any) -> None:
    turn = turn_of(message(origin_server_ts=sent_at))
    assert 0 <= turn.sent_at < 1e13


def test_half_a_character_becomes_one_that_can_be_stored() -> None:
    prompt = prompt_of(message("half \ud83d of a smile"))
    assert prompt is not None
    prompt.encode()
    assert prompt.startswith("half ")


@pytest.mark.parametrize("inviter", [GHOSTS[3], BOT])
def test_our_own_invites_are_known_as_ours(inviter: str) -> None:
    assert ROUTER.is_own(invite(GHOSTS[1], "!new:test", sender=inviter))


@pytest.mark.parametrize(
    ("sender", "own"),
    [
        ("@letta:test", True),
        ("@letta_sms:test", True),
        ("@agent_1:test", True),
        ("@agent_2:test", True),
        ("@agent_1:elsewhere", False),
        ("@letta:elsewhere", False),
        ("@lettas:test", False),
        ("@agents:test", False),
        (PERSON, False),
        ("", False),
        (None, False),
        (7, False),
    ],
)
def test_our_own_users_are_known_by_their_ids(sender: Any, own: bool) -> None:
    assert ROUTER.is_own(message(sender=sender)) is own


def test_a_message_in_a_thread_is_for_that_thread() -> None:
    turn = turn_of(said_in("$root"))
    assert (turn.thread_id, turn.reply_to) == ("$root", None)


def test_a_reply_inside_of_a_thread_is_both() -> None:
    event = said_in("$root")
    relation = event["content"]["m.relates_to"]
    relation |= {"is_falling_back": False, "m.in_reply_to": {"event_id": "$other"}}
    turn = turn_of(event)
    assert (turn.thread_id, turn.reply_to) == ("$root", "$other")


def test_a_reply_names_what_it_replies_to() -> None:
    turn = turn_of(reply_to("$other"))
    assert (turn.thread_id, turn.reply_to) == ("", "$other")


@pytest.mark.parametrize(
    "relation",
    [
        {"rel_type": "m.thread"},
        {"rel_type": "m.thread", "event_id": 7},
        {"rel_type": "m.thread", "event_id": "$\ud800"},
        {"rel_type": "m.thread", "event_id": "$" + "x" * 255},
        {"rel_type": ["m.thread"], "event_id": "$root"},
        {"rel_type": "m.reference", "event_id": "$root"},
        {"m.in_reply_to": {"event_id": 7}},
        {"m.in_reply_to": "$other"},
        "$root",
    ],
    ids=repr,
)
def test_an_odd_relation_is_none(relation: object) -> None:
    content = {"msgtype": "m.text", "body": "hello", "m.relates_to": relation}
    turn = turn_of(message(content=content))
    assert (turn.thread_id, turn.reply_to, turn.prompt) == ("", None, "hello")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("!new", "new"),
        ("  !new \n", "new"),
        ("!deny k1 not\nthat one", "deny k1 not\nthat one"),
        ("!letta help", "help"),
        ("!LETTA   Help", "Help"),
        ("!letta", "help"),
        ("!lettuce", "lettuce"),
        ("!", None),
        ("!!!", None),
        ("!?", None),
        ("! new", None),
        ("!important: look", None),
        ("!7", None),
        ("new!", None),
        ("say !new", None),
        ("", None),
    ],
)
def test_command_lines(text: str, line: str | None) -> None:
    assert command_line(text) == line


@pytest.mark.parametrize("text", ["!new", "!letta new", "!Letta\tnew"])
def test_a_command_in_an_agents_room_is_about_that_agent(text: str) -> None:
    assert command_of(message(text)) == ("agent-1", "new")


@pytest.mark.parametrize("text", ["!", "!!!", "!?", "! new", "!wow: great"])
def test_what_only_looks_like_a_command_is_said_to_the_agent(text: str) -> None:
    assert prompt_of(message(text)) == text


def test_a_command_belongs_to_its_thread() -> None:
    turn = turn_of(said_in("$root", "!new"))
    assert (turn.kind, turn.thread_id) == (TurnKind.COMMAND, "$root")


def test_a_paused_agent_hears_commands_only() -> None:
    turn = turn_of(message("hello", "!5:test"))
    assert (turn.kind, turn.agent_id, turn.prompt) == (TurnKind.PAUSED, "agent-5", None)
    assert command_of(message("!resume", "!5:test")) == ("agent-5", "resume")


@pytest.mark.parametrize("text", ["agents", "!agents", "!letta agents"])
def test_all_that_is_said_to_the_bot_alone_is_a_command(text: str) -> None:
    assert command_of(message(text, MANAGEMENT)) == ("", "agents")


@pytest.mark.parametrize("text", ["!letta new", "!LETTA new", "  !letta new", "!letta\nnew"])
def test_a_shared_room_takes_commands_by_their_long_form(text: str) -> None:
    assert command_of(message(text, SHARED)) == ("", "new")


def test_a_command_in_a_reply_with_an_old_quote_is_taken() -> None:
    assert command_of(reply_to("$x", "> <@bob:test> hi\n\n!letta new", SHARED)) == ("", "new")


@pytest.mark.parametrize(
    "event",
    [
        message("!new", SHARED),
        message("!lettuce", SHARED),
        message("!letta", SHARED, sender="@troll:test"),
        message("hello everybody", SHARED),
        said_in("$unknown", "hello", SHARED),
        said_in(SILENT_THREAD, "hello", SHARED),
        message("hello @agent_9", SHARED),
        message("mail me at x@agent_1:test.example", SHARED),
    ],
    ids=lambda event: event["content"]["body"],
)
def test_a_shared_room_is_silent_unless_somebody_is_addressed(event: dict[str, Any]) -> None:
    assert turns_of(event) == []


def mention(*users: str, room_id: str = SHARED, **fields: Any) -> dict[str, Any]:
    event = message("hello there", room_id, **fields)
    event["content"]["m.mentions"] = {"user_ids": list(users)}
    return event


def test_an_agent_that_is_mentioned_answers_in_a_thread() -> None:
    event = mention(GHOSTS[1], PERSON)
    turn = turn_of(event)
    assert (turn.agent_id, turn.thread_id, turn.prompt) == (
        "agent-1",
        event["event_id"],
        "hello there",
    )


def test_an_agent_that_is_named_in_the_text_answers() -> None:
    assert turn_of(message("@agent_1 hello", SHARED)).agent_id == "agent-1"
    assert turn_of(message("hello @agent_3:test", SHARED)).agent_id == "agent-3"


def test_two_agents_that_are_mentioned_both_answer() -> None:
    event = mention(GHOSTS[3], GHOSTS[1])
    turns = turns_of(event)
    assert sorted(turn.agent_id for turn in turns) == ["agent-1", "agent-3"]
    assert {turn.thread_id for turn in turns} == {event["event_id"]}
    assert len({turn.turn_id for turn in turns}) == 2


def test_a_file_may_mention_an_agent() -> None:
    event = mention(GHOSTS[1])
    event["content"] |= {"msgtype": "m.image", "body": "cat.png", "url": "mxc://test/1"}
    turn = turn_of(event)
    assert turn.attachment is not None
    assert turn.attachment["url"] == "mxc://test/1"


@pytest.mark.parametrize(
    "event",
    [
        mention(GHOSTS[2]),
        mention(BOT),
        mention(PERSON),
        mention(GHOSTS[0]),
        mention(GHOSTS[1], sender="@troll:test"),
        mention(GHOSTS[1], content={"msgtype": "m.notice", "body": "@agent_1"}),
    ],
    ids=["removed", "bot", "person", "unknown", "blocked", "notice"],
)
def test_mentions_that_nobody_answers(event: dict[str, Any]) -> None:
    assert turns_of(event) == []


def test_a_paused_agent_that_is_mentioned_gives_a_sign_and_talks_to_nobody() -> None:
    event = mention(GHOSTS[5])
    assert turn_of(event).kind is TurnKind.PAUSED
    assert turns_of(said_in(event["event_id"], "and now?", SHARED)) == []


def test_an_agent_goes_on_in_its_thread_without_a_mention() -> None:
    turn = turn_of(said_in(OWN_THREAD, "and now?", SHARED))
    assert (turn.agent_id, turn.thread_id) == ("agent-3", OWN_THREAD)


def test_another_agent_may_be_called_into_a_thread() -> None:
    event = said_in(OWN_THREAD, "what do you think?", SHARED)
    event["content"]["m.mentions"] = {"user_ids": [GHOSTS[4]]}
    turn = turn_of(event)
    assert (turn.agent_id, turn.thread_id) == ("agent-4", OWN_THREAD)


def test_a_thread_goes_on_before_its_first_answer() -> None:
    """The conversation begins only when the runtime is reached."""
    event = mention(GHOSTS[1])
    turn_of(event)
    turn = turn_of(said_in(event["event_id"], "I forgot to say", SHARED))
    assert (turn.agent_id, turn.thread_id) == ("agent-1", event["event_id"])


@pytest.mark.parametrize("text", ["hello", "!new"])
def test_a_room_with_another_agent_is_not_for_one_of_us_alone(text: str) -> None:
    assert turns_of(message(text, CROWDED)) == []
    assert turn_of(mention(GHOSTS[1], room_id=CROWDED)).agent_id == "agent-1"
    assert command_of(message("!letta new", CROWDED)) == ("", "new")


def test_alone_with_an_agent_commands_are_about_it() -> None:
    assert command_of(message("!new", DIRECT)) == ("agent-3", "new")


def test_alone_with_an_agent_nobody_need_mention_it() -> None:
    turn = turn_of(message("hello", DIRECT))
    assert (turn.agent_id, turn.thread_id) == ("agent-3", "")


@pytest.mark.parametrize("inviter", [PERSON, "@troll:test", "@ann:elsewhere"])
@pytest.mark.parametrize(
    ("user", "agent_id"), [(GHOSTS[1], "agent-1"), (BOT, "")], ids=["agent", "bot"]
)
def test_an_invite_is_taken_up(user: str, agent_id: str, inviter: str) -> None:
    """Whether it is accepted or rejected, something has to be done about it."""
    event = invite(user, "!new:test", sender=inviter)
    turn = turn_of(event)
    assert (turn.kind, turn.agent_id, turn.room_id, turn.prompt) == (
        TurnKind.INVITE,
        agent_id,
        "!new:test",
        user,
    )


@pytest.mark.parametrize(
    "event",
    [
        invite(PERSON, "!new:test"),
        invite(GHOSTS[0], "!new:test"),
        invite(GHOSTS[2], "!new:test"),
        invite("@agent_1:elsewhere", "!new:test"),
        invite("@letta_sms:test", "!new:test"),
        invite(GHOSTS[1], "!new:test", content={"membership": "join"}),
        invite(GHOSTS[1], "!new:test", content={"membership": ["invite"]}),
        invite(GHOSTS[1], "!new:test", content=None),
        message(type="m.room.member", state_key=None, content={"membership": "invite"}),
        message(type="m.room.member", state_key=7, content={"membership": "invite"}),
    ],
    ids=lambda event: f"{event['sender']} {event.get('state_key')} {event['content']}",
)
def test_invites_that_are_left_alone(event: dict[str, Any]) -> None:
    assert turns_of(event) == []


def prompting(
    target: object = "agent-1", hops: object = 1, room_id: str = "!1:test", **fields: Any
) -> dict[str, Any]:
    """What the tool `message_agent` of agent 3 sends."""
    event = message("do this", room_id, sender=GHOSTS[3]) | fields
    event["content"][MARKER] = {"prompts": target, "hops": hops}
    return event


@pytest.mark.parametrize("author", [GHOSTS[3], BOT])
def test_one_of_us_may_prompt_an_agent_in_its_room(author: str) -> None:
    event = prompting(hops=2, sender=author)
    assert not ROUTER.is_own(event)
    turn = turn_of(event)
    assert (turn.kind, turn.agent_id, turn.sender, turn.prompt, turn.hops, turn.thread_id) == (
        TurnKind.MESSAGE,
        "agent-1",
        author,
        "do this",
        2,
        event["event_id"],
    )


@pytest.mark.parametrize(
    "event",
    [
        prompting(hops=4),
        prompting(hops=0),
        prompting(hops=-1),
        prompting(hops="1"),
        prompting(hops=None),
        prompting(hops=1.0),
        prompting("agent-9"),
        prompting(["agent-1"]),
        prompting(None),
        prompting(room_id="!3:test"),
        prompting("agent-5", room_id="!5:test"),
        prompting(room_id=SHARED),
        prompting(sender=BOT, hops=4),
        prompting(sender=BOT, room_id="!3:test"),
        prompting("agent-5", room_id="!5:test", sender=BOT),
        prompting(sender=GHOSTS[0]),
        prompting(event_id=None),
        prompting(event_id="$\ud800"),
        prompting(content={"msgtype": "m.notice", "body": "x"}),
        prompting(content={"msgtype": "m.text", "body": " "}),
        prompting(
            content={"msgtype": "m.text", "body": "x", "m.relates_to": {"rel_type": "m.replace"}}
        ),
    ],
    ids=lambda event: f"{event['sender']} {event['event_id']} {event['content']}"[-90:],
)
def test_agents_words_that_prompt_nobody(event: dict[str, Any]) -> None:
    assert ROUTER.is_own(event)


@pytest.mark.parametrize(
    ("room_id", "agents"), [("!1:test", ["agent-1"]), ("!3:test", ["agent-3"]), (SHARED, [])]
)
def test_a_person_cannot_prompt_as_an_agent(room_id: str, agents: list[str]) -> None:
    turns = turns_of(prompting(room_id=room_id, sender=PERSON))
    assert [(turn.agent_id, turn.hops) for turn in turns] == [(one, 0) for one in agents]
    assert turns_of(prompting(sender="@troll:test")) == []


def test_a_marker_without_a_room_breaks_nothing() -> None:
    roomless = agent(7)
    roomless.room_id = None
    router = Router(
        config_for(Path()),
        Known(roomless, agent(3)),
        KnownRooms({}),
        KnownConversations(),
        NO_PORTALS,
    )
    event = prompting("agent-7")
    del event["room_id"]
    assert router.is_own(event)
    assert router.route(event) is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
words = st.sampled_from(["m.text", "m.emote", "m.image", "m.replace", "m.thread", "$1", "!new"])
events = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["m.room.message", "m.room.member", "m.room.encrypted"]) | anything,
        "event_id": st.just("$1") | anything,
        "room_id": st.sampled_from(["!1:test", SHARED, DIRECT, MANAGEMENT]) | anything,
        "sender": st.sampled_from([PERSON, GHOSTS[3]]) | anything,
        "state_key": st.just(GHOSTS[1]) | anything,
        "origin_server_ts": anything,
        "content": st.fixed_dictionaries(
            {},
            optional={
                "msgtype": words | anything,
                "body": words | anything,
                "membership": st.just("invite") | anything,
                "m.mentions": st.just({"user_ids": GHOSTS}) | anything,
                "formatted_body": anything,
                MARKER: st.fixed_dictionaries(
                    {}, optional={"prompts": st.just("agent-1") | anything, "hops": anything}
                ),
                "m.relates_to": st.dictionaries(
                    st.sampled_from(["key", "event_id", "rel_type", "m.in_reply_to"]),
                    words | anything,
                )
                | anything,
            },
        )
        | anything,
    },
)


@given(events)
@example({"type": ["m.room.message"], "content": {"msgtype": {}, "body": []}})
@settings(max_examples=100, deadline=None)
def test_no_event_breaks_the_router(event: dict[str, Any]) -> None:
    ROUTER.is_own(event)
    entry = ROUTER.route(event)
    if entry is not None:
        assert bool(entry.turns) is (entry.state is InboxState.ROUTED)
        f"{entry.event_id}{entry.room_id}".encode()
        for turn in entry.turns:
            f"{turn.turn_id}{turn.room_id}{turn.thread_id}{turn.reply_to}{turn.prompt}".encode()


def test_in_an_agents_room_a_mention_of_another_there_is_for_that_one() -> None:
    rooms = KnownRooms({"!1:test": {"@agent_3:test": False}})
    directory = Known(agent(1), agent(3))
    router = Router(config_for(Path()), directory, rooms, KnownConversations(), NO_PORTALS)

    def agents_of(text: str) -> list[str]:
        entry = router.route(message(text))
        assert entry is not None
        return [turn.agent_id for turn in entry.turns]

    assert agents_of("@agent_3 what do you think?") == ["agent-3"]
    assert agents_of("@agent_1 and @agent_3, hello") == ["agent-1"]
    assert agents_of("@agent_2 is not here") == ["agent-1"]
    assert agents_of("hello") == ["agent-1"]
