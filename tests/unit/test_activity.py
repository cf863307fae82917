"""The tools in use, beside the reply: one line while they run, a folded trace afterwards."""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import agent, message
from tests.fake_homeserver import FakeHomeserver, Fault, Json, failing
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.common.clock import now
from letta_matrix.conversations.activity import Activity, ToolUse, status_line, trace
from letta_matrix.conversations.new_turns import new_turn
from letta_matrix.conversations.reply import Reply
from letta_matrix.matrix.content import MARKER, content_size, edit_content
from letta_matrix.matrix.formatting import render
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.splitting import CONTENT_LIMIT
from letta_matrix.matrix.unfolding import unfolded
from letta_matrix.runtimes.protocol import ToolReturned, ToolStarted
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database, StoreUnavailable
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.outbox import Outbox, OutboxEntry
from letta_matrix.store.turns import Turn

ROOM = "!1:test"
SEND = "PUT .*/send/"
BASH = ToolStarted("c1", "Bash", '{"command": "ls"}')
READ = ToolStarted("c2", "Read", '{"path": "/etc/hosts"}')
TAGS = {"details", "summary", "p", "pre", "code", "br"}


class Stage:
    """A turn's reply with its activity; `again` is the bridge after a crash."""

    def __init__(self, database: Database, homeserver: Homeserver, turn: Turn) -> None:
        self.homeserver, self.turn, self.outbox = homeserver, turn, Outbox(database)
        self.reply = Reply(turn, Intent(homeserver, "@agent_1:test"), self.outbox, 0.02)
        self.activity = Activity(self.reply, enabled=True)

    async def again(self) -> None:
        self.activity.close()
        entries = await self.outbox.of_turn(self.turn.turn_id)
        intent = Intent(self.homeserver, "@agent_1:test")
        self.reply = Reply(self.turn, intent, self.outbox, 0.02, entries)
        self.activity = Activity(self.reply, enabled=True, timed=False)

    @property
    def task(self) -> asyncio.Task[None]:
        """What shows the tools."""
        task = self.activity._task
        assert task is not None
        return task

    async def end(self, text: str = "done") -> None:
        await self.activity.finish()
        await self.reply.freeze(text)
        await self.reply.deliver()


@pytest.fixture
async def stage(
    database: Database, directory: AgentDirectory, homeserver: Homeserver
) -> AsyncGenerator[Stage]:
    await directory.reserve([agent(1)])
    event = message()
    new = new_turn(event, "agent-1", "hello")
    entry = InboxEntry(new.event_id, new.room_id, event, InboxState.ROUTED, [new])
    (turn,) = (await Inbox(database).admit("t1", [entry])).turns
    made = Stage(database, homeserver, turn)
    yield made
    made.activity.close()


def contents(fake: FakeHomeserver) -> list[Json]:
    return [event["content"] for event in fake.messages(ROOM)]


async def test_a_tool_that_takes_its_time_is_shown_and_leaves_a_trace(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    clock.stop()
    stage.activity.started(BASH)
    for seconds in (0.4, 0.2, 0.2):
        await settled(stage.task)
        clock.advance(seconds)
    await eventually(lambda: fake.messages(ROOM))
    (first,) = contents(fake)
    assert first["body"] == "🔧 `Bash` · 0.8 s"
    assert (first["msgtype"], first["m.mentions"]) == ("m.notice", {})
    assert first[MARKER]["agent_id"] == "agent-1"
    await clock.until(lambda: len(contents(fake)) > 1)
    stage.activity.returned(ToolReturned("c1", ok=True, output="a\nb"))
    stage.activity.started(READ)
    await clock.until(lambda: "Read" in fake.bodies(ROOM)[0])
    assert "1 done" in fake.bodies(ROOM)[0]
    stage.activity.returned(ToolReturned("c2", ok=False, output="no such file"))
    await clock.until(lambda: "2 tools" in fake.bodies(ROOM)[0])
    await stage.end()
    shown, reply = fake.bodies(ROOM)
    assert reply == "done"
    assert re.fullmatch(
        r"🔧 2 tools · .+ s\n"
        r"  ✓ `Bash` ok · .+ s\n"
        r'    \{"command": "ls"\}\n'
        r"    a\n"
        r"    b\n"
        r"  ✗ `Read` failed · .+ s\n"
        r'    \{"path": "/etc/hosts"\}\n'
        r"    no such file",
        shown,
    )
    html = contents(fake)[-1]["m.new_content"]["formatted_body"]
    assert html.startswith("<details><summary>🔧 2 tools · ")
    assert "<pre><code>a\nb\n</code></pre>" in html
    targets = {c["m.relates_to"]["event_id"] for c in contents(fake) if "m.new_content" in c}
    assert targets == {fake.messages(ROOM)[0]["event_id"]}


async def test_short_tools_show_only_in_the_trace_after_the_reply(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    clock.stop()
    stage.activity.started(BASH)
    await settled(stage.task)
    clock.advance(0.6)
    stage.activity.returned(ToolReturned("c1", ok=True, output="x"))
    await settled(stage.task)
    clock.advance(60)
    # What is on its way is waited for by the end.
    await settled(stage.task)
    await stage.end()
    reply, shown = contents(fake)
    assert reply["body"] == "done"
    assert shown["msgtype"] == "m.notice"
    assert "1 tool" in shown["body"]


async def test_the_trace_waits_for_no_edit_and_is_overwritten_by_none(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    # No edit goes out before it is held, and nothing times out.
    clock.stop()
    stage.activity.started(BASH)
    await clock.until(lambda: fake.messages(ROOM))
    edit = fake.hold(SEND)
    await clock.until(lambda: len(fake.matching(SEND)) > 1)
    await stage.activity.finish()
    assert stage.task.done()
    await stage.reply.freeze("done")
    edit.set()
    await eventually(lambda: len(fake.messages(ROOM)) == 2)
    await stage.reply.deliver()
    assert contents(fake)[2]["body"] == "done"
    assert fake.bodies(ROOM)[0].startswith("🔧 1 tool · ")


async def test_nothing_used_nothing_shown(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.end()
    assert fake.bodies(ROOM) == ["done"]


async def test_switched_off(stage: Stage, fake: FakeHomeserver, clock: Clock) -> None:
    stage.activity = Activity(stage.reply, enabled=False)
    stage.activity.started(BASH)
    await settled()
    clock.advance(60)
    await settled()
    stage.activity.returned(ToolReturned("c1", ok=True))
    await stage.end()
    assert fake.bodies(ROOM) == ["done"]


async def test_one_trace_through_a_crash(stage: Stage, fake: FakeHomeserver, clock: Clock) -> None:
    stage.activity.started(BASH)
    await clock.until(lambda: fake.messages(ROOM))
    await stage.again()
    stage.activity.started(BASH)
    stage.activity.returned(ToolReturned("c1", ok=True, output="once"))
    stage.activity.returned(ToolReturned("c1", ok=False, output="twice"))
    stage.activity.started(BASH)
    stage.activity.returned(ToolReturned("unheard of", ok=True))
    await stage.end()
    shown, reply = fake.bodies(ROOM)
    assert reply == "done"
    assert shown.startswith("🔧 1 tool\n  ✓ `Bash` ok\n")
    assert shown.count("once") == 1
    assert "`Bash` ok" in shown


async def test_a_turn_ends_while_the_line_is_on_its_way(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    sent = fake.hold(SEND)
    stage.activity.started(BASH)
    await clock.until(lambda: fake.matching(SEND))
    ending = asyncio.create_task(stage.end())
    await settled(ending)
    sent.set()
    await within(ending)
    shown, reply = fake.bodies(ROOM)
    assert (reply, "stopped" in shown) == ("done", True)


async def test_a_turn_ends_while_the_line_is_stored(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    freeze, frozen, go_on = stage.outbox.freeze, asyncio.Event(), asyncio.Event()

    async def slow(entries: list[OutboxEntry], **more: Any) -> None:
        await freeze(entries, **more)
        frozen.set()
        await go_on.wait()

    monkeypatch.setattr(stage.outbox, "freeze", slow)
    stage.activity.started(BASH)
    await clock.until(frozen.is_set)
    ending = asyncio.create_task(stage.end())
    await settled(ending)
    go_on.set()
    await within(ending)
    shown, reply = fake.bodies(ROOM)
    assert (reply, "stopped" in shown) == ("done", True)


@pytest.mark.parametrize(
    "fault", [Fault(403, {"errcode": "M_FORBIDDEN", "error": "no"}), failing(500)]
)
async def test_a_line_that_cannot_be_sent_harms_nothing(
    stage: Stage, fake: FakeHomeserver, clock: Clock, fault: Fault
) -> None:
    fake.fail(SEND, fault)
    stage.activity.started(BASH)
    await clock.until(lambda: fake.matching(SEND))
    stage.activity.returned(ToolReturned("c1", ok=True))
    ending = asyncio.create_task(stage.end())
    await clock.until(ending.done)
    await ending
    assert "done" in fake.bodies(ROOM)


async def test_a_broken_database_does_not_fail_the_turn(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    async def unavailable(*_: object, **__: object) -> None:
        raise StoreUnavailable("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(stage.outbox, "freeze", unavailable)
        stage.activity.started(BASH)
        await clock.until(stage.task.done)
    await stage.end()
    assert fake.bodies(ROOM)[0] == "done"


async def test_edits_are_few(stage: Stage, fake: FakeHomeserver, clock: Clock) -> None:
    clock.stop()
    for number in range(100):
        call = f"c{number}"
        stage.activity.started(ToolStarted(call, "Bash"))
        await settled()
        clock.advance(1)
        await settled()
        stage.activity.returned(ToolReturned(call, ok=True))
    await eventually(lambda: fake.messages(ROOM))
    assert len(fake.messages(ROOM)) < 30


async def test_close_without_an_end_leaves_no_task(stage: Stage) -> None:
    stage.activity.started(BASH)
    stage.activity.close()
    await asyncio.gather(stage.task, return_exceptions=True)
    assert stage.task.cancelled()


HOSTILE = st.text(max_size=400) | st.sampled_from(
    [
        "</code></pre></details><script>alert(1)</script>",
        "```\n</details>\n\n# big\n````\n<b>x</b>",
        "<img src=https://x onerror=y>\n\n\n@room [x](javascript:y)",
        "\u202e\x1b[2J\r\n",
    ]
)


@given(st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE, st.booleans()), max_size=4))
def test_nothing_that_tools_say_is_markup(calls: list[tuple[str, str, str, bool]]) -> None:
    uses = [
        ToolUse(name, arguments, ended=now(), ok=ok, output=output)
        for name, arguments, output, ok in calls
    ]
    shown = render(trace(uses, timed=True)).html
    assert set(re.findall(r"</?([a-zA-Z0-9]+)[^>]*>", shown)) <= TAGS
    assert shown.startswith("<details><summary>")
    assert shown.endswith("</details>")
    assert shown.count("</details>") == 1
    assert "\n" not in status_line(uses, timed=True)


@pytest.mark.parametrize("filler", ["x", '"', "<", "&", "\\", "\n", "`", "é", "\x1b", "\u202e"])
def test_a_trace_fits_into_an_event(filler: str) -> None:
    uses = [
        ToolUse("Bash", f"x{filler * 9_000}x", output=f"x{filler * 90_000}x") for _ in range(200)
    ]
    markdown = trace(uses, timed=True)
    marker = {"txn": "x" * 40, "turn_id": "x" * 40, "run_id": "x" * 60}
    content = edit_content(
        markdown, target_event_id="$" + "x" * 60, marker=marker, plain=unfolded(markdown)
    )
    assert content_size(content) <= CONTENT_LIMIT
    assert "200 tools" in markdown
    assert re.search(r"… and \d+ tools more", markdown)


def test_both_ends_of_a_long_output_are_kept() -> None:
    use = ToolUse("Bash", "", ended=now(), output=f"first{'x' * 5000}last")
    markdown = trace([use], timed=True)
    assert "first" in markdown
    assert "last" in markdown
    assert "characters" in markdown


def test_times_that_overlap_count_once() -> None:
    uses = [
        ToolUse("A", "", started=100.0, ended=110.0),
        ToolUse("B", "", started=105.0, ended=112.0),
        ToolUse("C", "", started=120.0, ended=122.0),
    ]
    assert "🔧 3 tools · 14 s" in trace(uses, timed=True)
    assert "🔧 3 tools</summary>" in trace(uses, timed=False)


async def test_a_line_names_what_runs(clock: Clock) -> None:
    clock.stop()
    running = [ToolUse(name, "", started=now() - 75) for name in ("A", "B", "A", "C", "D")]
    done = ToolUse("E", "", started=now() - 80, ended=now() - 78)
    assert status_line([done, *running], timed=True) == "🔧 `A`, `B`, `C` … · 1 min 15 s · 1 done"
    assert status_line(running[:1], timed=False) == "🔧 `A`"
