"""Programs are told from people by what they do, and left unanswered after a while."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import PERSON, config_for, message
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage

from letta_matrix.conversations import notices
from letta_matrix.conversations.loops import Loops
from letta_matrix.conversations.new_turns import new_turn
from letta_matrix.matrix.content import BESIDE, MARKER
from letta_matrix.store.turns import Turn, TurnKind

BOT, ROOM, GHOST = "@echo:test", "!1:test", "@agent_1:test"
ADMIN = "@root:test"
START = 1_790_000_000.0


class Talk:
    """A room in which an agent says what it is to, at once, whenever it is asked."""

    def __init__(self, **conversations: Any) -> None:
        permissions = {"test": "user", ADMIN: "admin"}
        config = config_for(Path(), permissions=permissions, conversations=conversations)
        self.loops, self.now, self.numbers = Loops(config), START, itertools.count()
        self.event: dict[str, Any] = {}

    def ask(self, text: str, sender: str = BOT, *, after: float = 0.1, **fields: Any) -> str:
        """Somebody's words, seconds after the last thing that happened; what comes of them."""
        self.now += after
        self.event = message(text, sender=sender, origin_server_ts=int(self.now * 1000))
        turn = new_turn(self.event, "agent-1", text, **fields)
        return self.outcome([turn])

    def again(self) -> str:
        """The same event, once more."""
        return self.outcome([new_turn(self.event, "agent-1", str(self.event["content"]["body"]))])

    def outcome(self, turns: list[Turn]) -> str:
        return "".join(str(turn.kind) for turn in self.loops.allowed(turns))

    def answer(self, text: str, *, after: float = 0.1, beside: str = "") -> None:
        self.now += after
        told = {"in_reply_to": self.event["event_id"]} | ({BESIDE: beside} if beside else {})
        content = {"msgtype": "m.text", "body": text, MARKER: told}
        stamp = int(self.now * 1000)
        event = message(content=content, sender=GHOST, origin_server_ts=stamp)
        self.loops.heard(event, "agent-1")

    def exchange(self, text: str, reply: str, *, most: int = 100, **how: Any) -> int:
        """How often the agent answers the same thing said again and again."""
        for number in range(most):
            if self.ask(text, **how) != "message":
                return number
            self.answer(reply)
        return most


def test_an_echo_is_left_unanswered_and_told_once() -> None:
    talk = Talk(bot_replies=8)
    talk.ask("hello there, agent", after=60)
    for number in range(8):
        talk.answer(f"reply number {number}")
        assert talk.ask(f"reply number {number}") == "message"
    talk.answer("the last reply of all")
    assert talk.ask("they said: the last reply of all!") == "looped"
    assert talk.again() == "looped", "an event may come twice"
    talk.answer(notices.LOOP)
    assert talk.ask(notices.LOOP) == ""
    assert talk.ask("the last reply of all") == ""


def test_an_echo_that_takes_its_time_is_one() -> None:
    talk = Talk(bot_replies=3)
    talk.ask("begin")
    for _ in range(3):
        talk.answer("I am a long reply")
        assert talk.ask("I am a long reply", after=30) == "message"
    talk.answer("I am a long reply")
    assert talk.ask("I am a long reply", after=30) == "looped"


def test_who_says_the_same_again_and_again_at_once_is_none() -> None:
    assert Talk(bot_replies=8).exchange("ping", "what is it?") == 9


def test_who_is_quick_is_borne_longer() -> None:
    talk = Talk(bot_replies=8)
    for number in range(24):
        assert talk.ask(f"question {number}") == "message"
        talk.answer(f"answer {number}")
    assert talk.ask("question 24") == "message", "the first was nobody's answer"
    talk.answer("answer 24")
    assert talk.ask("question 25") == "looped"


@pytest.mark.parametrize("pause", [2.5, 20.0])
def test_a_person_is_always_answered(pause: float) -> None:
    assert Talk(bot_replies=2).exchange("yes", "and now?", after=pause) == 100


def test_one_who_is_quick_now_and_then_is_a_person() -> None:
    talk = Talk(bot_replies=4)
    for number in range(60):
        assert talk.ask("next", after=0.5 if number % 5 else 4.0) == "message"
        talk.answer(f"page {number}")


def test_a_burst_is_no_answer_to_anything() -> None:
    talk = Talk(bot_replies=1)
    talk.ask("one")
    talk.answer("first answer")
    for number in range(40):
        assert talk.ask(f"thought {number}") == "message"


def test_an_admins_script_may_be_quick_but_no_echo() -> None:
    assert Talk(bot_replies=2).exchange("ping", "pong", sender=ADMIN) == 100
    assert Talk(bot_replies=2).exchange("I am an echo", "I am an echo", sender=ADMIN) < 5


def silenced(**conversations: Any) -> Talk:
    talk = Talk(bot_replies=2, **conversations)
    assert talk.exchange("the same words", "the same words") < 5
    return talk


def test_a_word_of_somebody_else_ends_it() -> None:
    talk = silenced()
    assert talk.ask("the same words") == ""
    assert talk.ask("are you two well?", PERSON, after=5) == "message"
    talk.answer("we are")
    assert talk.ask("something new") == "message"


def test_another_program_ends_nothing() -> None:
    talk = silenced()
    talk.ask("the same words", "@echo2:test")
    assert talk.ask("the same words") == ""


def test_a_slower_word_of_the_same_ends_it() -> None:
    talk = silenced()
    talk.answer(notices.LOOP)
    assert talk.ask("sorry, that was my script", after=9) == "message"
    assert talk.exchange("the same words", "the same words") > 1


def test_it_ends_by_itself() -> None:
    talk = silenced()
    assert talk.ask("the same words", after=700) == "message"


def test_what_others_are_is_nobody_elses_affair() -> None:
    talk = silenced()
    assert talk.ask("the same words", PERSON) == "message"
    turn = new_turn(message("the same words", sender=BOT), "agent-2", "the same words")
    assert talk.outcome([turn]) == "message"


def test_threads_are_one_room() -> None:
    talk = Talk(bot_replies=2)
    said = [talk.ask("same words here", thread_id=f"$root{n}") for n in range(9)]
    assert said.count("message") == 9, "nothing was answered"
    for number in range(9):
        talk.answer("same words here")
        if talk.ask("same words here", thread_id=f"$new{number}") != "message":
            break
    else:
        pytest.fail("it never ended")


def test_commands_and_agents_have_limits_of_their_own() -> None:
    talk = silenced()
    command = new_turn(message("!status", sender=BOT), "agent-1", "status")
    command.kind = TurnKind.COMMAND
    agents = new_turn(message("the same words", sender=BOT), "agent-1", "the same words")
    agents.hops = 1
    assert talk.loops.allowed([command, agents]) == [command, agents]


def test_without_a_limit_there_is_none() -> None:
    assert Talk(bot_replies=0).exchange("same same same", "same same same") == 100


def test_traces_are_nothing_that_was_said() -> None:
    talk = Talk(bot_replies=2)
    talk.ask("go")
    for _ in range(2):
        talk.answer("a whole answer")
        talk.answer("Bash: ls", beside="trace")
        assert talk.ask("a whole answer") == "message"
    talk.answer("a whole answer")
    assert talk.ask("a whole answer") == "looped"


@given(st.lists(st.tuples(st.sampled_from([BOT, PERSON]), st.floats(2.1, 500)), max_size=60))
def test_slow_words_that_repeat_nothing_are_answered(words: list[tuple[str, float]]) -> None:
    talk = Talk(bot_replies=1)
    for number, (sender, pause) in enumerate(words):
        assert talk.ask(f"word {number}", sender, after=pause) == "message"
        talk.answer(f"reply {number}")


async def test_the_bridge_stops_and_goes_on(stage: Stage, fake: FakeHomeserver) -> None:
    ends = list[str]()
    words = "hello, whoever you are"
    for _ in range(30):
        said = [one["content"]["body"] for one in fake.messages(ROOM)]
        await stage.tell(message(said[-1] if said else words, sender=BOT))
        new = fake.messages(ROOM)[len(said) :]
        if not new:
            break
        await stage.admit(*new)
        ends.append(new[-1]["content"]["body"])
    assert ends[-1] == notices.LOOP
    assert ends.count(notices.LOOP) == 1
    assert len(ends) <= 12
    assert fake.messages(ROOM)[-1]["content"]["msgtype"] == "m.notice"
    in_a_minute = fake.messages(ROOM)[-1]["origin_server_ts"] + 60_000
    await stage.tell(message("and now?", origin_server_ts=in_a_minute))
    assert fake.bodies(ROOM)[-1] == "echo: and now?"
    await stage.tell(message("me?", sender=BOT, origin_server_ts=in_a_minute + 60_000))
    assert fake.bodies(ROOM)[-1] == "echo: me?"
