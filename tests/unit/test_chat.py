"""`letta-matrix chat`: what an agent's events show, and what the person is asked meanwhile."""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import pytest
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.cli.conversation import Conversation
from letta_matrix.cli.decisions import Decision, asking, decided, said_plainly
from letta_matrix.cli.exchange import Exchange, Left, Session
from letta_matrix.cli.faults import Failure, Unreachable
from letta_matrix.cli.transcript import Transcript, Update, open_questions
from letta_matrix.cli.views import PlainView
from letta_matrix.common.waiting import is_set
from letta_matrix.conversations import notices
from letta_matrix.matrix.content import MORE, edit_content, text_content
from letta_matrix.matrix.reactions import ALLOW, ALWAYS, DENY

AGENT = "@agent_1:localhost"
BOT = "@letta:localhost"
MARK = {"agent_id": "agent-1", "in_reply_to": "$q"}
ASKS = f"May I run `Bash`? {ALLOW} {DENY}"
ASKS_ALWAYS = f"{ASKS} {ALWAYS}"


def _event(event_id: str, content: dict[str, Any], sender: str = AGENT) -> dict[str, Any]:
    return {
        "type": "m.room.message",
        "event_id": event_id,
        "sender": sender,
        "content": content,
    }


def _text(event_id: str, text: str, *, live: bool = False, prompt: str = "$q") -> dict[str, Any]:
    return _event(event_id, text_content(text, marker=MARK | {"in_reply_to": prompt}, live=live))


def _edit(event_id: str, target: str, text: str, *, live: bool = False) -> dict[str, Any]:
    content = edit_content(text, target_event_id=target, marker=MARK, live=live)
    return _event(event_id, content)


def _notice(event_id: str, text: str, *, beside: str = "", prompt: str = "$q") -> dict[str, Any]:
    marker = MARK | {"in_reply_to": prompt} | ({"beside": beside} if beside else {})
    return _event(event_id, text_content(text, marker=marker, msgtype="m.notice"))


def _asked(event_id: str = "$a", text: str = ASKS) -> dict[str, Any]:
    return _notice(event_id, text, beside="approval")


def _outcome(target: str = "$a", text: str = "✅ `Bash` allowed") -> dict[str, Any]:
    marker = MARK | {"beside": "approval"}
    content = edit_content(text, target_event_id=target, marker=marker, msgtype="m.notice")
    return _event(f"{target}-outcome", content)


def _texts(updates: list[Update]) -> list[str]:
    return [update.text for update in updates]


def test_an_answer_grows() -> None:
    transcript = Transcript(AGENT, "$q")
    other = _event("$0", text_content("said by another", marker=MARK), "@other:localhost")
    assert transcript.take(other) == []
    assert transcript.take(_text("$1", "One", live=True)) == [Update("$1", "One", live=True)]
    assert transcript.take(_edit("$2", "$1", "One two", live=True)) == [
        Update("$1", "One two", live=True)
    ]
    assert transcript.patience is None
    assert transcript.take(_edit("$3", "$1", "One two three.")) == [Update("$1", "One two three.")]
    assert transcript.patience == pytest.approx(0.5)


def test_the_next_part_of_a_long_answer_is_waited_for() -> None:
    transcript = Transcript(AGENT, "$q")
    transcript.take(_text("$1", "Part one."))
    assert transcript.patience == pytest.approx(0.5)
    transcript.take(_text("$2", "Part", live=True))
    assert transcript.patience is None


def test_what_was_said_before_a_question_ends_nothing() -> None:
    transcript = Transcript(AGENT, "$q")
    transcript.take(_event("$1", text_content("I call Bash.", marker=MARK | {MORE: True})))
    assert transcript.patience is None
    transcript.take(_asked())
    transcript.take(_outcome())
    transcript.take(_text("$2", "Done."))
    assert transcript.patience == pytest.approx(0.5)


def test_a_part_that_says_that_more_is_to_come_ends_nothing() -> None:
    transcript = Transcript(AGENT, "$q")
    transcript.take(_text("$1", "Part", live=True))
    content = edit_content("Part one.", target_event_id="$1", marker=MARK | {MORE: True})
    transcript.take(_event("$2", content))
    assert transcript.patience is None
    transcript.take(_text("$3", "Part two."))
    assert transcript.patience == pytest.approx(0.5)


def test_the_last_notice_waits_for_the_end_of_a_growing_answer() -> None:
    transcript = Transcript(AGENT, "$q")
    transcript.take(_text("$1", "I", live=True))
    assert transcript.take(_notice("$2", notices.STOPPED)) == []
    assert transcript.patience is None
    shown = transcript.take(_edit("$3", "$1", "I call Bash."))
    assert _texts(shown) == ["I call Bash.", notices.STOPPED]
    assert transcript.patience == pytest.approx(0.5)


def test_notices_after_which_the_turn_goes_on() -> None:
    transcript = Transcript(AGENT, "$q")
    shown = transcript.take(_notice("$1", notices.UNAVAILABLE, beside="notice"))
    assert _texts(shown) == [notices.UNAVAILABLE]
    assert transcript.patience is None


def test_a_notice_beside_a_whole_answer_keeps_nobody_waiting() -> None:
    transcript = Transcript(AGENT, "$q")
    transcript.take(_text("$1", "All of it."))
    transcript.take(_notice("$2", "🔧 1 tool", beside="notice"))
    assert transcript.patience == pytest.approx(0.5)


@pytest.mark.parametrize("notice", [notices.NO_WORDS, notices.refused("it is too long")])
def test_notices_that_are_the_answer(notice: str) -> None:
    transcript = Transcript(AGENT, "$q")
    assert _texts(transcript.take(_notice("$1", notice))) == [notice]
    assert transcript.patience == pytest.approx(2)


def test_an_agent_that_is_away_in_mid_answer_says_so_at_once() -> None:
    transcript = Transcript(AGENT, "$q")
    transcript.take(_text("$1", "I", live=True))
    away = transcript.take(_notice("$2", notices.UNAVAILABLE, beside="notice"))
    assert _texts(away) == [notices.UNAVAILABLE]
    assert transcript.patience is None


def test_answers_to_others_are_not_shown() -> None:
    transcript = Transcript(AGENT, "$q")
    assert transcript.take(_text("$1", "No", prompt="$other")) == []
    assert transcript.take(_event("$2", {"msgtype": 5, "m.relates_to": "x"})) == []
    assert transcript.patience is None


@pytest.mark.parametrize("msgtype", ["m.notice", "m.text"])
def test_a_question_is_open_until_it_is_answered(msgtype: str) -> None:
    transcript = Transcript(AGENT, "$q")
    transcript.take(_text("$1", "Let me see."))
    asked = _asked()
    asked["content"]["msgtype"] = msgtype
    assert _texts(transcript.take(asked)) == [ASKS]
    assert list(transcript.questions) == ["$a"]
    assert transcript.patience is None
    assert _texts(transcript.take(_outcome())) == ["✅ `Bash` allowed"]
    assert not transcript.questions
    assert transcript.patience is None, "the turn goes on"


@pytest.mark.parametrize("live", [True, False])
def test_what_is_answered_here_does_not_interrupt_what_comes_of_it(live: bool) -> None:
    for sign, shown in ((ALLOW, []), (DENY, ["✅ `Bash` allowed"])):
        transcript = Transcript(AGENT, "$q")
        transcript.take(_asked())
        transcript.answered("$a", sign)
        transcript.take(_text("$1", "Done", live=live))
        now = transcript.take(_outcome())
        assert transcript.patience == (None if live else pytest.approx(0.5))
        later = transcript.take(_edit("$2", "$1", "Done."))
        # What was answered elsewhere is told below what grows.
        assert _texts([*now, *later]) == ([*shown, "Done."] if not live else ["Done.", *shown])


def test_tools_are_not_shown_and_their_trace_ends_a_turn_without_more_words() -> None:
    transcript = Transcript(AGENT, "$q")
    transcript.take(_asked())
    transcript.take(_outcome())
    assert transcript.take(_notice("$t", "🔧 `Bash` · 2 s", beside="trace")) == []
    assert transcript.patience is None
    trace = "<details><summary>🔧 1 tool</summary>\n\n✓ `Bash` ok\n\n</details>"
    assert transcript.take(_notice("$u", trace, beside="trace")) == []
    assert transcript.patience == pytest.approx(0.5)


def test_what_waits_already_is_found() -> None:
    past = [_asked("$a"), _text("$1", "Hm."), _outcome("$a"), _asked("$b", ASKS_ALWAYS)]
    thread = {"rel_type": "m.thread", "event_id": "$root"}
    in_thread = _asked("$c")
    in_thread["content"]["m.relates_to"] = thread
    found = open_questions([*past, in_thread], AGENT)
    assert [(one.event_id, one.prompt, one.thread, one.offers_always) for one in found] == [
        ("$b", "$q", "", True),
        ("$c", "$q", "$root", False),
    ]


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("y", Decision(ALLOW)),
        ("Yes.", Decision(ALLOW)),
        ("", Decision(DENY)),
        ("N", Decision(DENY)),
        ("no", Decision(DENY)),
        ("not on this machine", Decision(DENY, "not on this machine")),
        ("no, not here", Decision(DENY, "not here")),
        ("no idea what it does", Decision(DENY, "no idea what it does")),
        ("yes, but only once", Decision(DENY, "yes, but only once")),
    ],
)
def test_what_is_typed_when_a_tool_asks(line: str, meant: Decision) -> None:
    assert decided(line, always=False) == decided(line, always=True) == meant


def test_always_counts_only_where_it_is_offered() -> None:
    assert decided("Always", always=True) == Decision(ALWAYS)
    assert decided("always", always=False) is None
    assert asking(always=True) == "Allow? [y/N/always/reason] "
    assert asking(always=False) == "Allow? [y/N/reason] "


def test_a_script_is_taken_at_its_word() -> None:
    assert said_plainly("yes", always=False) == Decision(ALLOW)
    assert said_plainly("n", always=False) == Decision(DENY)
    assert said_plainly("", always=False) is said_plainly("and then?", always=True) is None


def _show(*updates: Update) -> None:
    view = PlainView()
    for update in updates:
        view.show(update)
    view.settle()


def test_plain_text_only_grows(capsys: pytest.CaptureFixture[str]) -> None:
    _show(Update("$1", "One", live=True), Update("$1", "One two"), Update("$2", "Three"))
    assert capsys.readouterr().out == "One two\nThree\n"
    _show(Update("$1", "Wrong", live=True), Update("$1", "Right"))
    assert capsys.readouterr().out == "Wrong\nRight\n"


class Client:
    """A homeserver's answers in order: events, or a fault; then silence. `said` is what it was
    sent: reactions as key and event, texts with what they reply to."""

    def __init__(self, *answers: list[dict[str, Any]] | Exception, past: Any = ()) -> None:
        self._answers = list(answers)
        self._past = list(past)
        self._more = asyncio.Event()
        self.said: list[tuple[str, str]] = []
        self.read_up_to: list[str] = []
        self.joined = [AGENT, BOT, "@you:test"]

    def add(self, *events: dict[str, Any]) -> None:
        self._answers.append(list(events))
        self._more.set()

    async def catch_up(self, room_id: str) -> list[dict[str, Any]]:
        return self._past

    async def send(self, room_id: str, text: str, relation: Mapping[str, Any] | None = None) -> str:
        replied = (relation or {}).get("m.in_reply_to", {}).get("event_id", "")
        self.said.append((text, replied))
        return "$q" if len(self.said) == 1 else f"$q{len(self.said)}"

    async def react(self, room_id: str, event_id: str, key: str) -> str:
        self.said.append((key, event_id))
        return "$reaction"

    async def read(self, room_id: str, event_id: str) -> None:
        self.read_up_to.append(event_id)

    async def members(self, room_id: str) -> list[str]:
        return self.joined

    async def news(self, room_id: str, timeout: float) -> list[dict[str, Any]]:
        if not self._answers:
            self._more.clear()
            await is_set(self._more, timeout)
        if not self._answers:
            return []
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Keys:
    """A keyboard: `type` gives it lines."""

    def __init__(self, *lines: str | None, is_terminal: bool) -> None:
        self.is_terminal = is_terminal
        self.ended = False
        self.aside: list[str] = []
        self.resumptions = 0
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self.type(*lines)

    def type(self, *lines: str | None) -> None:
        for line in lines:
            self._lines.put_nowait(line)

    @property
    def has_line(self) -> bool:
        return bool(self.aside)

    async def line(self) -> str | None:
        return self.aside.pop(0) if self.aside else await self.new_line()

    async def new_line(self) -> str | None:
        line = await self._lines.get()
        self.ended = line is None
        return line

    def put_back(self, line: str) -> None:
        self.aside.insert(0, line)

    @property
    def begun(self) -> str:
        return ""

    def held(self) -> nullcontext[None]:
        return nullcontext()

    def listen(self) -> None:
        pass

    def resumed(self) -> None:
        self.resumptions += 1

    def set_aside(self) -> None:
        while self.is_terminal and not self._lines.empty():
            self.aside.append(str(self._lines.get_nowait()))


def _session(client: Client, keys: Keys | None = None, timeout: float = 300.0) -> Session:
    return Session(client, "!room", "Ada", PlainView(), keys, timeout, bot=BOT)  # pyright: ignore[reportArgumentType]


async def _chat(clock: Clock, client: Client, timeout: float = 5.0) -> float:
    """Ask and see it to its end; how many seconds that took."""
    clock.stop()
    began = clock.now()
    chatting = asyncio.create_task(_say(client, timeout))
    while not chatting.done():
        await settled()
        clock.advance(0.1)
    await chatting
    return clock.now() - began


async def _say(client: Client, timeout: float) -> None:
    await Conversation(_session(client, timeout=timeout), AGENT).run("use Bash: touch x")


async def test_a_question_that_nobody_here_answers_ends_it_at_once(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.stop()
    asked = _asked(text="May I run `Bash`?\n`!approve 3fa2b1`, `!deny 3fa2b1`")
    with pytest.raises(Failure, match=r"chat Ada '!approve 3fa2b1'` and .* chat Ada` asks for it"):
        await _say(Client([asked]), 300)
    assert capsys.readouterr().out.startswith("May I run `Bash`?\n")


async def test_chat_ends_after_a_notice_alone(clock: Clock) -> None:
    took = await _chat(clock, Client([_notice("$1", notices.NO_WORDS)]), 100)
    assert 2 <= took < 3


async def test_chat_gives_up_after_silence(clock: Clock) -> None:
    with pytest.raises(Failure, match=r"no answer for 0\.2 s"):
        await _chat(clock, Client(), 0.2)


async def test_chat_outlives_a_restart_of_the_homeserver(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    away, answer = Unreachable("away"), _text("$1", "Here.")
    await _chat(clock, Client(away, away, [answer]))
    said = capsys.readouterr()
    assert said.out == "Here.\n"
    assert said.err.count("trying again") == 1
    assert "is back" in said.err


async def test_chat_does_not_try_for_ever(clock: Clock) -> None:
    began = clock.now()
    with pytest.raises(Unreachable):
        await _chat(clock, Client(*[Unreachable("away")] * 1000), 3)
    assert 60 < clock.now() - began < 80


async def _over(clock: Clock, chatting: asyncio.Task[None]) -> None:
    await clock.until(chatting.done)
    await chatting


async def test_a_person_is_asked_and_takes_all_the_time_they_need(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.stop()
    client, keys = Client([_asked(text=ASKS_ALWAYS)]), Keys(is_terminal=True)
    exchange = Exchange(_session(client, keys), Transcript(AGENT, "$q"))
    chatting = asyncio.create_task(exchange.run())
    await settled(chatting)
    clock.advance(10_000)
    await settled(chatting)
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"{ASKS_ALWAYS}\n", "Allow? [y/N/always/reason] ")
    keys.type("always")
    await eventually(lambda: client.said == [(ALWAYS, "$a")])
    client.add(_outcome(), _text("$2", "Done."))
    await _over(clock, chatting)
    assert capsys.readouterr().out == "✅ `Bash` allowed\nDone.\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [("y", (ALLOW, "$a")), ("", (DENY, "$a")), ("not here", ("no: not here", "$a"))],
)
async def test_an_answer_goes_to_the_question(
    clock: Clock, line: str, said: tuple[str, str]
) -> None:
    client, keys = Client([_asked()]), Keys(is_terminal=True)
    exchange = Exchange(_session(client, keys), Transcript(AGENT, "$q"))
    chatting = asyncio.create_task(exchange.run())
    await settled(chatting)
    keys.type(line)
    await eventually(lambda: client.said == [said])
    client.add(_outcome(), _text("$2", "So be it."))
    await _over(clock, chatting)


async def test_what_was_typed_before_the_question_is_no_answer_to_it(clock: Clock) -> None:
    client, keys = Client([_asked()]), Keys("y", is_terminal=True)
    exchange = Exchange(_session(client, keys), Transcript(AGENT, "$q"))
    chatting = asyncio.create_task(exchange.run())
    await settled(chatting)
    assert (client.said, keys.aside) == ([], ["y"])
    client.add(_outcome(), _text("$2", "Denied from elsewhere."))
    await _over(clock, chatting)
    assert client.said == []


async def test_what_was_shown_to_a_person_counts_as_read_and_nothing_else(clock: Clock) -> None:
    client, keys = Client([_asked()]), Keys(is_terminal=True)
    exchange = Exchange(_session(client, keys), Transcript(AGENT, "$q"))
    chatting = asyncio.create_task(exchange.run())
    await eventually(lambda: client.read_up_to == ["$a"])
    client.add(_outcome(), _text("$2", "Said no elsewhere."), _text("$3", "No", prompt="$other"))
    await _over(clock, chatting)
    assert client.read_up_to == ["$a", "$2"]
    script = Client([_text("$1", "Done.")])
    await clock.through(_say(script, 5))
    assert script.read_up_to == []


async def test_what_others_said_meanwhile_does_not_count_as_read(clock: Clock) -> None:
    client, keys = Client([_text("$1", "Done.")]), Keys(is_terminal=True)
    client.joined.append("@bob:test")
    exchange = Exchange(_session(client, keys), Transcript(AGENT, "$q"))
    await clock.through(exchange.run())
    assert client.read_up_to == []
    client.joined.remove("@bob:test")
    client.add(_text("$1", "Done."))
    await clock.through(Exchange(_session(client, keys), Transcript(AGENT, "$q")).run())
    assert client.read_up_to == ["$1"]


async def test_a_half_meant_always_is_asked_again(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    client, keys = Client([_asked()]), Keys(is_terminal=True)
    exchange = Exchange(_session(client, keys), Transcript(AGENT, "$q"))
    chatting = asyncio.create_task(exchange.run())
    await settled(chatting)
    keys.type("always")
    await settled(chatting)
    assert client.said == []
    assert capsys.readouterr().err.count("Allow?") == 2
    client.add(_outcome(), _text("$2", "Done."))
    await _over(clock, chatting)


async def test_commands_go_out_while_a_question_is_open(clock: Clock) -> None:
    for is_terminal in (True, False):
        client, keys = Client([_asked()]), Keys(is_terminal=is_terminal)
        exchange = Exchange(_session(client, keys), Transcript(AGENT, "$q"))
        chatting = asyncio.create_task(exchange.run())
        await settled(chatting)
        keys.type("!approve 3fa2b1")
        await eventually(lambda client=client: client.said == [("!approve 3fa2b1", "")])
        client.add(_notice("$n", "`Bash`: allowed.", prompt="$q"), _outcome(), _text("$2", "Done."))
        await _over(clock, chatting)


@pytest.mark.parametrize("answer", ["yes", "!approve 3fa2b1"])
async def test_lines_of_a_script_answer_or_wait(clock: Clock, answer: str) -> None:
    client, keys = Client([_asked("$a")]), Keys(is_terminal=False)
    keys.type("use Bash: touch x", answer, "and then?", None)
    chatting = asyncio.create_task(Conversation(_session(client, keys), AGENT).run(None))
    await eventually(lambda: len(client.said) == 2)
    await settled(chatting)
    assert client.said[1] == ((ALLOW, "$a") if answer == "yes" else (answer, ""))
    client.add(_notice("$n", "`Bash`: allowed.", prompt="$q2"))
    client.add(_outcome("$a"), _text("$2", "Done."))
    await clock.until(lambda: len(client.said) == 3)
    assert client.said[2:] == [("and then?", "")]
    client.add(_text("$3", "Nothing.", prompt="$q3"))
    await _over(clock, chatting)


@pytest.mark.parametrize("line", ["and then?", None])
async def test_a_script_does_not_wait_for_a_question(clock: Clock, line: str | None) -> None:
    client, keys = Client([_asked()]), Keys("use Bash: touch x", is_terminal=False)
    keys.type(line)
    clock.stop()
    said = r"Ada waits .*, and was not told 'and then\?': " if line else "Ada waits .* question: "
    with pytest.raises(Failure, match=said):
        await Conversation(_session(client, keys), AGENT).run(None)
    assert client.said == [("use Bash: touch x", "")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_whatever_ends_it_ends_it_in_order(number: signal.Signals) -> None:
    """So that the terminal is left as it was."""
    client, keys = Client(), Keys(is_terminal=True)
    unmet = list[int]()
    before = signal.signal(number, lambda met, _: unmet.append(met))
    try:
        chatting = asyncio.create_task(Conversation(_session(client, keys), AGENT).run("hello"))
        await eventually(lambda: client.said)
        signal.raise_signal(signal.SIGCONT)
        await eventually(lambda: keys.resumptions)
        signal.raise_signal(number)
        assert unmet == []
        with pytest.raises(asyncio.CancelledError):
            await within(chatting)
    finally:
        signal.signal(number, before)


async def test_ctrl_c_offers_to_stop_and_the_second_leaves(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    client, keys = Client([_text("$1", "I", live=True)]), Keys(is_terminal=True)
    exchange = Exchange(_session(client, keys), Transcript(AGENT, "$q"))
    chatting = asyncio.create_task(exchange.run())
    await settled(chatting)
    exchange.interrupt()
    await settled(chatting)
    assert "Stop Ada? [Y/n]" in capsys.readouterr().err
    keys.type("n")
    await settled(chatting)
    assert client.said == []
    exchange.interrupt()
    await settled(chatting)
    keys.type("")
    await eventually(lambda: client.said == [("🛑", "$q")])
    exchange.interrupt()
    await settled(chatting)
    exchange.interrupt()
    with pytest.raises(Left):
        await chatting


async def test_what_waits_already_is_told_and_asked_first(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client(past=[_asked()])
    keys = Keys(is_terminal=True)
    chatting = asyncio.create_task(Conversation(_session(client, keys), AGENT).run("hello"))
    await settled(chatting)
    assert capsys.readouterr().out == f"{ASKS}\n"
    assert client.said == []
    keys.type("y")
    await eventually(lambda: client.said == [(ALLOW, "$a")])
    client.add(_outcome(), _text("$1", "Done."))
    await clock.until(lambda: len(client.said) == 2)
    client.add(_text("$2", "Hello.", prompt="$q2"))
    await _over(clock, chatting)
    assert capsys.readouterr().out == "✅ `Bash` allowed\nDone.\nHello.\n"


@pytest.mark.parametrize("keys", [None, Keys("hello", is_terminal=False)])
async def test_a_script_is_told_what_waits_and_says_nothing(
    clock: Clock, capsys: pytest.CaptureFixture[str], keys: Keys | None
) -> None:
    clock.stop()
    client = Client(past=[_asked()])
    with pytest.raises(Failure, match=r"Ada waits .*, and was not told 'hello'"):
        await Conversation(_session(client, keys), AGENT).run(None if keys else "hello")
    assert client.said == []
    assert "Ada waits for an answer to this:\nMay I run `Bash`?" in capsys.readouterr().err


async def test_a_script_answers_what_waits_already(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    client, keys = Client(past=[_asked()]), Keys("yes", None, is_terminal=False)
    chatting = asyncio.create_task(Conversation(_session(client, keys), AGENT).run(None))
    await eventually(lambda: client.said == [(ALLOW, "$a")])
    client.add(_outcome(), _text("$1", "Done."))
    await _over(clock, chatting)
    assert capsys.readouterr().out == "✅ `Bash` allowed\nDone.\n"


async def test_a_script_waits_for_no_thread(clock: Clock) -> None:
    asked = _asked()
    asked["content"]["m.relates_to"] = {"rel_type": "m.thread", "event_id": "$root"}
    client = Client([_text("$1", "Hello.")], past=[asked])
    await _over(clock, asyncio.create_task(Conversation(_session(client), AGENT).run("hello")))
    assert client.said == [("hello", "")]
