"""Commands from their line to the answer in the room."""

import re
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from mautrix.errors import MForbidden
from tests.builders import agent
from tests.command_stage import (
    ADMIN,
    BOT_ROOM,
    HERE,
    ROOM,
    SHARED,
    Stage,
    crashing_at,
    stage_on,
)
from tests.fake_homeserver import FakeHomeserver

from letta_matrix.common.vitals import Trouble
from letta_matrix.doors.chat.command import Command, CommandContext
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.operations.typed import Where
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import Capabilities
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.database import Database
from letta_matrix.store.leases import Replica
from letta_matrix.store.outbox import OutboxEntry, OutboxKind
from letta_matrix.store.turns import Outcome, TurnStatus


@pytest.fixture
async def stage(
    database: Database, directory: AgentDirectory, homeserver: Homeserver, fake: FakeHomeserver
) -> AsyncGenerator[Stage]:
    made = await stage_on(database, directory, homeserver, fake)
    yield made
    await made.close()


async def test_the_answer_is_a_notice_by_the_agent_in_the_thread(stage: Stage) -> None:
    assert await stage.say("whoami", thread_id="$root") == (
        "You are `@ann:test`, a user.\nThis is the room of `Ada`: `agent-1`, runtime `memory`."
    )
    (event,) = stage.fake.messages(ROOM)
    assert event["sender"] == "@agent_1:test"
    assert event["content"]["m.relates_to"]["event_id"] == "$root"
    assert event["content"]["m.mentions"] == {}


async def test_the_bot_answers_where_no_agent_is_meant(stage: Stage) -> None:
    assert "looks after the agents" in await stage.say("WhoAmI", BOT_ROOM)
    assert stage.fake.messages(BOT_ROOM)[0]["sender"] == "@letta:test"


async def test_an_agent_answers_where_the_bot_is_not(stage: Stage) -> None:
    await stage.rooms.joined(SHARED, "@agent_1:test", direct=False)
    assert "Here is also `Ada`" in await stage.say("whoami", SHARED)
    assert "begins with `!letta`" in await stage.say("help", SHARED)
    assert {event["sender"] for event in stage.fake.messages(SHARED)} == {"@agent_1:test"}


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("stauts", "I do not know `!stauts`. Did you mean `!status`? `!help` lists what I do."),
        ("xyzzy", "I do not know `!xyzzy`. `!help` lists what I do."),
        ("conversations x", "`!conversations` takes a number, got `x`."),
        ("create Bob", "`!create` is for admins only; `!help` lists what you may use."),
        ("creat Bob", "I do not know `!creat`. `!help` lists what I do."),
        ("help create", "I do not know `!create`. `!help` lists what I do."),
        ("hel`p", "I do not know ``!hel`p``. Did you mean `!help`? `!help` lists what I do."),
    ],
)
async def test_what_is_wrong_with_a_command_is_said(stage: Stage, line: str, answer: str) -> None:
    assert await stage.say(line) == answer


async def test_nothing_at_all_is_answered_with_the_help(stage: Stage) -> None:
    assert (await stage.say("", BOT_ROOM)).startswith("What you can tell me")


async def test_commands_about_an_agent_need_one(stage: Stage) -> None:
    answer = "`!new` is about an agent: say it in that agent's room."
    assert await stage.say("new", BOT_ROOM) == answer


async def test_help_shows_what_the_asker_may_use_there(stage: Stage) -> None:
    for_users, for_admins = await stage.say("help"), await stage.say("help", sender=ADMIN)
    assert "- `!new`: starts a new conversation" in for_users
    assert "- `!conversations [N]`:" in for_users
    assert not re.search("react|create", for_users)
    assert "`!create`, `!rename`, `!remove`, `!sync`, `!show`, `!archive`" in for_admins
    with_bot = await stage.say("help", BOT_ROOM, sender=ADMIN)
    assert "- `!create NAME [--runtime RUNTIME] [--model MODEL]`: creates an agent." in with_bot
    assert "!new" not in with_bot


async def test_help_explains_one_command(stage: Stage) -> None:
    explained = await stage.say("help !STOP")
    assert explained.startswith("`!cancel`: stops what you asked here")
    assert "Also `!stop`." in explained
    assert "For admins only." in await stage.say("help sync", sender=ADMIN)


async def test_the_blocked_hear_nothing(stage: Stage) -> None:
    assert await stage.say("status", sender="@troll:test") == ""
    assert stage.fake.requests == []


async def test_a_command_that_waited_too_long_is_not_done(stage: Stage) -> None:
    answer = await stage.say("pause", sent_at=time.time() - 100_000)
    assert "more than 24 hours ago" in answer
    assert not stage.rooms.settings("agent-1", ROOM).paused


async def test_a_removed_agents_commands_are_dropped(stage: Stage) -> None:
    assert await stage.say("status", agent_id="agent-99") == ""


async def test_a_crash_after_the_freeze_sends_the_frozen_answer_alone(stage: Stage) -> None:
    ran: list[str] = []

    async def handler(context: CommandContext) -> str:
        ran.append(context.turn.turn_id)
        return "done"

    stage.runner = stage.runner_for(Command("once", handler, "runs.", scope=Where.BOTH))
    turn = await stage.turn("once")
    await crashing_at(stage, turn, "finish")
    stage.fake.forgetful = True
    await stage.rerun(await stage.reload(turn))
    assert len(ran) == 1
    assert stage.fake.bodies(ROOM) == ["done"]


async def test_a_handler_that_breaks_is_given_up_with_a_word(stage: Stage) -> None:
    async def handler(context: CommandContext) -> str:
        raise ZeroDivisionError

    commands = (
        Command("break", handler, "breaks.", scope=Where.BOTH),
        Command("react-break", handler, "breaks.", scope=Where.BOTH, hidden=True),
    )
    stage.runner = stage.runner_for(*commands)
    for line in ("break", "react-break"):
        turn = await stage.turn(line)
        with pytest.raises(ZeroDivisionError):
            await stage.runner.run(turn, recovered=False)
        await stage.runner.give_up(turn)
        assert turn.status is TurnStatus.DONE
    assert len(stage.fake.bodies(ROOM)) == 1
    assert "Something went wrong" in stage.fake.bodies(ROOM)[0]


@pytest.mark.parametrize("line", ["cancel", "react-cancel"])
@pytest.mark.parametrize("fault", [TimeoutError, ZeroDivisionError])
async def test_an_operation_that_breaks_is_tried_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, line: str, fault: type[Exception]
) -> None:
    async def breaks(_meant: object) -> int:
        raise fault

    monkeypatch.setattr(stage, "cancel", breaks)
    stage.runner = stage.runner_for()
    asked = await stage.working()
    turn = await stage.turn(f"{line} {asked.event_id}" if line != "cancel" else line)
    with pytest.raises(fault):
        await stage.runner.run(turn, recovered=False)
    monkeypatch.undo()
    stage.runner = stage.runner_for()
    again = await stage.reload(turn)
    assert await stage.rerun(again) == ""
    assert stage.running == []


async def test_what_is_done_is_said_however_late(stage: Stage) -> None:
    turn = await stage.turn("rename Ada Bob", BOT_ROOM, sender=ADMIN)
    await crashing_at(stage, turn, "freeze")
    again = await stage.reload(turn)
    again.sent_at -= 100_000
    assert await stage.rerun(again) == "The agent is called `Bob` now."


async def test_a_homeservers_words_are_no_markdown(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_agent: object) -> None:
        raise MForbidden(403, "[here](https://evil.test)")

    def removed(one: Agent) -> Agent:
        return replace(one, status=AgentStatus.REMOVED)

    monkeypatch.setattr(stage, "archive", refused)
    stage.runner = stage.runner_for()
    await stage.directory.change(["agent-1"], removed)
    assert await stage.say("archive Ada", BOT_ROOM, sender=ADMIN) == (
        "That did not work: `The homeserver refused: M_FORBIDDEN: [here](https://evil.test).`"
    )


async def test_a_runtimes_fault_is_one_line(stage: Stage) -> None:
    stage.runtime.available = False
    answer = await stage.say("model")
    assert answer == "That did not work: `the in-memory runtime is switched off`"


async def test_new_leaves_the_conversation_of_its_place(stage: Stage) -> None:
    thread = HERE._replace(thread_id="$root")
    await stage.conversations.begin(HERE, "c1", "first")
    await stage.conversations.begin(thread, "c2", "second")
    assert "starts a new conversation" in await stage.say("new", thread_id="$root")
    assert stage.conversations.current(thread) is None
    assert stage.conversations.current(HERE) == "c1"
    assert "afresh anyway" in await stage.say("new", thread_id="$root")


async def test_new_after_a_crash_leaves_what_began_since(stage: Stage) -> None:
    await stage.conversations.begin(HERE, "c1", "first")
    turn = await stage.turn("new")
    await crashing_at(stage, turn, "freeze")
    assert stage.conversations.current(HERE) is None
    await stage.conversations.begin(HERE, "c2", "in between")
    assert "starts a new conversation" in await stage.rerun(await stage.reload(turn))
    assert stage.conversations.current(HERE) == "c2"


async def test_new_cut_short_before_it_was_done_is_done(stage: Stage) -> None:
    await stage.conversations.begin(HERE, "c1", "first")
    turn = await stage.turn("new")
    await crashing_at(stage, turn, "leave")
    assert stage.conversations.current(HERE) == "c1"
    assert "starts a new conversation" in await stage.rerun(await stage.reload(turn))
    assert stage.conversations.current(HERE) is None


async def test_conversations_are_listed_and_returned_to(stage: Stage) -> None:
    assert "no conversation here yet" in await stage.say("conversations")
    await stage.conversations.begin(HERE, "c1", "About *birds*")
    await stage.conversations.begin(HERE._replace(thread_id="$root"), "c2", "In a thread")
    await stage.conversations.begin(HERE, "c3", "Fish")
    listed = await stage.say("conversations")
    assert listed.splitlines()[2:] == [
        "1. `About *birds*` · just now",
        "2. `In a thread` · just now · in a thread",
        "3. `Fish` · just now · **current**",
    ]
    assert "go on with `About" in await stage.say("conversations 1")
    assert stage.conversations.current(HERE) == "c1"
    # The numbers stay, although another one was used last.
    assert "go on with `Fish`" in await stage.say("conversations 3")
    assert "already" in await stage.say("conversations 3")
    answer = await stage.say("conversations 3", thread_id="$other")
    assert answer.endswith("It goes on here now, and no longer there.")
    assert stage.conversations.current(HERE) is None
    assert stage.conversations.current(HERE._replace(thread_id="$other")) == "c3"
    assert await stage.say("conversations 4") == (
        "There is no conversation 4 here: 3 conversations. `!conversations` lists them."
    )


async def test_where_a_runtime_has_no_conversations_that_is_said(stage: Stage) -> None:
    stage.runtimes["memory"] = MemoryRuntime(capabilities=Capabilities(conversations=False))
    for line in ("new", "conversations", "conversations 1"):
        assert "keeps one single history" in await stage.say(line)


async def test_cancel_stops_what_runs_at_its_place(stage: Stage) -> None:
    thread = await stage.working(thread_id="$root")
    await stage.working()
    other = await stage.working("!2:test", agent_id="agent-2")
    assert await stage.say("cancel") == ""
    assert stage.running == [thread, other]
    assert (await stage.say("cancel")).startswith("Nothing is worked on here; elsewhere, `!cancel`")
    assert await stage.say("stop", thread_id="$root") == ""
    assert stage.running == [other]


async def test_cancel_in_a_shared_room_stops_its_threads_too(stage: Stage) -> None:
    await stage.rooms.joined(SHARED, "@agent_1:test", direct=False)
    await stage.working(SHARED, thread_id="$one")
    assert await stage.say("cancel", SHARED) == ""
    assert stage.running == []


@pytest.mark.parametrize("by_reply", [True, False])
async def test_cancel_stops_the_message_or_the_one_whose_reply_is_meant(
    stage: Stage, by_reply: bool
) -> None:
    first, second = await stage.working(), await stage.working()
    target = second.event_id
    if by_reply:
        entry = OutboxEntry("t", second.turn_id, 0, OutboxKind.MESSAGE, 0, ROOM, "@x:test", {})
        await stage.outbox.freeze([entry])
        await stage.outbox.confirm(entry, "$reply")
        target = "$reply"
    # A target in another room is none.
    assert await stage.say(f"react-cancel {target}", "!2:test", agent_id="agent-2") == ""
    assert stage.running == [first, second]
    assert await stage.say("cancel", reply_to=target) == ""
    assert stage.running == [first]
    assert await stage.say("cancel", reply_to=target) == (
        "That is not being worked on; `!cancel` that is no reply stops all that is."
    )
    assert await stage.say(f"react-cancel {first.event_id}") == ""
    assert stage.running == []


@pytest.mark.parametrize("by_reply", [True, False])
async def test_what_others_asked_is_stopped_by_admins_alone(stage: Stage, by_reply: bool) -> None:
    turn = await stage.working()
    target = turn.event_id if by_reply else None
    said = await stage.say("cancel", sender="@bob:test", reply_to=target)
    assert said == "What is worked on here was asked by others: they can stop it, or an admin."
    assert await stage.say(f"react-cancel {turn.event_id}", sender="@bob:test") == ""
    assert stage.running == [turn]
    assert await stage.say("cancel", sender=ADMIN, reply_to=target) == ""
    assert stage.running == []


async def test_pause_and_resume(stage: Stage) -> None:
    assert "for admins only" in await stage.say("pause")
    assert not stage.rooms.settings("agent-1", ROOM).paused
    await stage.say("pause", sender=ADMIN)
    assert stage.rooms.settings("agent-1", ROOM).paused
    assert "Paused here" in await stage.say("status")
    assert "for admins only" in await stage.say("resume")
    await stage.say("resume", sender=ADMIN)
    assert not stage.rooms.settings("agent-1", ROOM).paused


async def test_tool_activity_of_a_room(stage: Stage) -> None:
    assert "are shown here" in await stage.say("tools")
    assert "Only an admin may" in await stage.say("tools off")
    assert "are not shown here" in await stage.say("tools off", sender=ADMIN)
    assert stage.rooms.settings("agent-1", ROOM).tool_activity is False
    assert "are shown here" in await stage.say("tools ON", sender=ADMIN)
    assert await stage.say("tools loud") == "`!tools` takes `on` or `off`, got `loud`."


async def test_models_are_shown_to_all_and_switched_by_admins(stage: Stage) -> None:
    shown = await stage.say("model")
    assert "`Ada` thinks with `memory/small`." in shown
    assert "- `memory/large`" in shown
    assert await stage.say("model memory/large") == (
        "Only an admin may switch an agent's model; `!model` tells which it is."
    )
    assert "`memory/large` from now on" in await stage.say("model MEMORY/large", sender=ADMIN)
    assert [info.model for info in await stage.runtime.list_agents()] == ["memory/large", ""]
    wrong = await stage.say("model memory/larg", sender=ADMIN)
    assert wrong.startswith("There is no model `memory/larg`. Did you mean `memory/large`?")


async def test_a_runtime_that_cannot_switch_models_says_so(stage: Stage) -> None:
    stage.runtimes["memory"] = MemoryRuntime(capabilities=Capabilities(models=False))
    assert "neither tells nor switches" in await stage.say("model")


async def test_status_in_an_agents_room(stage: Stage) -> None:
    idle = await stage.say("status")
    assert "- Now: idle" in idle
    assert "a new one begins" in idle
    await stage.conversations.begin(HERE, "c1", "Birds")
    await stage.asked("k1", await stage.working())
    await stage.working()
    stage.vitals.watch("runtime", lambda: Trouble("the runtime `x_y` is away", "start it", "Bo"))
    told = await stage.say("status")
    assert "- Conversation: `Birds`, since just now" in told
    assert "- Now: working on the message of `@ann:test`, just now" in told
    assert "- Waiting: 1 message\n" in told
    assert "- `k1`: `Bash` (`ls`) · 2 d left" in told
    assert "an admin's `!status` says what" in told
    told = await stage.say("status", sender=ADMIN)
    assert told.endswith(
        "- `runtime`: ``the runtime `x_y` is away`` (`Bo`); what to do: `start it`"
    )
    stage.vitals.watch("runtime", lambda: Trouble("no pictures", warns=True))
    assert "pictures" not in await stage.say("status")
    told = await stage.say("status", sender=ADMIN)
    assert told.endswith("Warnings:\n\n- `runtime`: `no pictures`")


async def test_admins_are_told_of_replicas(stage: Stage) -> None:
    here = Replica("one", "bridge-1", {}, "0.1.0", "active")
    there = Replica("two", "bridge-2", {}, "0.1.0", "standby", 90.0, reaches=False)
    stage.replicas = [here, there]
    told = await stage.say("status", sender=ADMIN)
    assert "- `one` at `bridge-1`: active, `0.1.0`\n" in told
    cut = "- `two` at `bridge-2`: standby, does not reach the homeserver, `0.1.0`, last heard of"
    assert cut in told
    assert "bridge-1" not in await stage.say("status")


async def test_an_agent_that_is_done_is_idle(stage: Stage) -> None:
    turn = await stage.working()
    assert "- Now: working" in await stage.say("status")
    await stage.turns.finish(turn, Outcome.ANSWERED)
    assert "- Now: idle" in await stage.say("status")


async def test_status_of_all(stage: Stage) -> None:
    assert "2 agents in 1 runtime:\n\n- `memory`: 2 agents" in await stage.say("status", BOT_ROOM)


async def test_agents_are_listed_with_their_rooms(stage: Stage) -> None:
    assert await stage.say("agents", BOT_ROOM) == (
        "2 agents:\n\n"
        "- [`Ada`](https://matrix.to/#/%23agent_1%3Atest) · `memory`\n"
        "- [`Grace_*`](https://matrix.to/#/%23agent_2%3Atest) · `memory`"
    )
    assert (await stage.say("agents grace")).startswith("1 agent:")
    assert "No agent is called" in await stage.say("agents bob")


async def test_many_agents_with_long_names_fit(stage: Stage) -> None:
    await stage.directory.reserve([agent(n, name="*ö" * 120) for n in range(100, 200)])
    listed = await stage.say("agents")
    assert listed.startswith("102 agents:")
    assert len(listed.encode()) < 17_000
