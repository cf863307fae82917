"""Commands from their line to the answer in the room, on a real database."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.builders import PERSON, agent, config_for, message
from tests.fake_homeserver import FakeHomeserver

from letta_matrix.conversations.commands.command import Command, CommandContext, Scope
from letta_matrix.conversations.commands.runner import CommandRunner
from letta_matrix.conversations.commands.services import CommandServices
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo, Capabilities, RuntimeUnavailable
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.approvals import Approval, ApprovalStatus, ApprovalStore
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import Database
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.places import Place
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Turn, TurnKind, TurnStatus, TurnStore, turn_id_of

ADMIN = "@root:test"
STRANGER = "@bob:test"
ROOM = "!1:test"
BOT_ROOM = "!dm:test"
SHARED = "!shared:test"
HERE = Place("agent-1", ROOM)


class Approvals:
    """Settles approvals in the database; `told` is what the runtime would have heard."""

    def __init__(self, database: Database) -> None:
        self.store = ApprovalStore(database)
        self.told: list[tuple[str, ApprovalStatus, str]] = []

    def may_answer(self, approval: Approval, user_id: str) -> bool:
        return user_id in (approval.requester, ADMIN)

    def who_may(self, approval: Approval) -> str:
        return f"{approval.requester} alone"

    async def answer(
        self, approval: Approval, status: ApprovalStatus, *, by: str, reason: str = ""
    ) -> bool:
        if not await self.store.decide(approval, status, by=by, reason=reason):
            return False
        self.told.append((approval.key, status, reason))
        return True


class Stage:
    """A room of an agent, a room with the bot, a shared room; `say` gives commands."""

    def __init__(
        self,
        database: Database,
        directory: AgentDirectory,
        homeserver: Homeserver,
        fake: FakeHomeserver,
    ) -> None:
        self.database, self.directory, self.fake = database, directory, fake
        self.conversations = ConversationStore(database)
        self.turns = TurnStore(database, self.conversations)
        self.outbox, self.rooms = Outbox(database), Rooms(database)
        self.approvals = Approvals(database)
        self.runtime = MemoryRuntime()
        self.runtimes = {"memory": self.runtime}
        self.running: list[Turn] = []
        self.troubles: list[str] = []
        self.syncs = 0
        self.homeserver = homeserver
        self.runner = self.runner_for()

    def runner_for(self, *commands: Command, **conversations: Any) -> CommandRunner:
        config = config_for(
            Path(),
            permissions={"test": "user", ADMIN: "admin", "@troll:test": "block"},
            conversations=conversations,
        )
        services = CommandServices(
            config,
            self.directory,
            self.runtimes,
            self.turns,
            self.conversations,
            self.rooms,
            self.outbox,
            self.approvals,
            self.cancel,
            self.sync,
            lambda: self.troubles,
            lambda agent_id: "its room is gone" if agent_id == "agent-2" else "",
            lambda place: sum(turn.place == place for turn in self.running),
        )
        return CommandRunner(self.homeserver, services, *([commands] if commands else []))

    async def cancel(self, meant: Callable[[Turn], bool]) -> int:
        stopped = [turn for turn in self.running if meant(turn)]
        self.running = [turn for turn in self.running if turn not in stopped]
        return len(stopped)

    async def sync(self) -> None:
        self.syncs += 1
        for runtime in self.runtimes.values():
            for info in await runtime.list_agents():
                if (known := self.directory.get(info.agent_id)) is not None:
                    known.name = info.name

    async def turn(
        self, line: str, room_id: str = ROOM, kind: TurnKind = TurnKind.COMMAND, **fields: Any
    ) -> Turn:
        """A turn as it was admitted."""
        event = message(line, room_id)
        values: dict[str, Any] = {
            "agent_id": "agent-1" if room_id == ROOM else "",
            "sender": PERSON,
            "sent_at": time.time(),
            **fields,
        }
        values["turn_id"] = turn_id_of(event["event_id"], values["agent_id"])
        new = Turn(room_id=room_id, event_id=event["event_id"], prompt=line, kind=kind, **values)
        entry = InboxEntry(new.event_id, room_id, event, InboxState.ROUTED, [new])
        return (await Inbox(self.database).admit(new.event_id, [entry]))[0]

    async def working(self, room_id: str = ROOM, **fields: Any) -> Turn:
        """A message that an agent works on."""
        fields = {"agent_id": "agent-1", **fields}
        turn = await self.turn("hello", room_id, TurnKind.MESSAGE, **fields)
        await self.turns.run(turn, {})
        self.running.append(turn)
        return turn

    async def say(self, line: str, room_id: str = ROOM, **fields: Any) -> str:
        """Give a command; returns what it was answered, "" for nothing."""
        return await self.rerun(await self.turn(line, room_id, **fields), recovered=False)

    async def rerun(self, turn: Turn, *, recovered: bool = True) -> str:
        before = len(self.fake.messages(turn.room_id))
        await self.runner.run(turn, recovered=recovered)
        stored = await self.turns.get(turn.turn_id)
        assert stored is not None
        assert stored.status is TurnStatus.DONE
        said = self.fake.messages(turn.room_id)[before:]
        assert len(said) <= 1
        assert all(event["content"]["msgtype"] == "m.notice" for event in said)
        return said[0]["content"]["body"] if said else ""

    async def reload(self, turn: Turn) -> Turn:
        """The turn as a new process reads it."""
        (stored,) = [one for one in await self.turns.unfinished() if one.turn_id == turn.turn_id]
        return stored

    async def asked(self, key: str, turn: Turn | None = None, **fields: Any) -> Approval:
        """A tool call that waits for an answer."""
        turn = turn or await self.working()
        now = time.time()
        values: dict[str, Any] = {
            "approval_id": f"runtime-{key}",
            "requester": PERSON,
            "tool": "Bash",
            "arguments": {"command": "ls"},
            "always": True,
            "asked_at": now - 60,
            "expires_at": now + 1740,
            **fields,
        }
        approval = Approval(
            key=key,
            turn_id=turn.turn_id,
            agent_id=turn.agent_id,
            room_id=turn.room_id,
            thread_id=turn.thread_id,
            prompt_txn=f"txn-{key}",
            **values,
        )
        prompt = OutboxEntry(
            f"txn-{key}", turn.turn_id, 0, OutboxKind.APPROVAL, 0, turn.room_id, "@x:test", {}
        )
        await self.outbox.freeze([prompt], also=[self.approvals.store.insert(approval)])
        await self.outbox.confirm(prompt, f"$asks-{key}")
        return approval

    async def status_of(self, key: str) -> ApprovalStatus:
        approval = await self.approvals.store.get(key)
        assert approval is not None
        return approval.status


@pytest.fixture
async def stage(
    database: Database, directory: AgentDirectory, homeserver: Homeserver, fake: FakeHomeserver
) -> Stage:
    await directory.reserve([agent(1, name="Ada"), agent(2, name="Grace_*")])
    new = Stage(database, directory, homeserver, fake)
    new.runtime.add(AgentInfo("agent-1", "Ada", model="memory/small"))
    new.runtime.add(AgentInfo("agent-2", "Grace_*"))
    await new.rooms.joined(BOT_ROOM, "@letta:test", direct=True)
    return new


async def test_the_answer_is_a_notice_by_the_agent_in_the_thread(stage: Stage) -> None:
    assert await stage.say("whoami", thread_id="$root") == (
        "You are `@ann:test`, a user.\nThis is the room of **Ada**: `agent-1`, runtime `memory`."
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
    assert "Here is also **Ada**" in await stage.say("whoami", SHARED)
    assert "begins with `!letta`" in await stage.say("help", SHARED)
    assert {event["sender"] for event in stage.fake.messages(SHARED)} == {"@agent_1:test"}


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("stauts", "I do not know `!stauts`. Did you mean `!status`? `!help` lists what I do."),
        ("xyzzy", "I do not know `!xyzzy`. `!help` lists what I do."),
        ("conversations x", "`!conversations` takes a number, got `x`."),
        ("create Bob", "`!create` is for admins only."),
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
    assert "`!create`, `!rename`, `!remove`, `!show`, `!sync`" in for_admins
    with_bot = await stage.say("help", BOT_ROOM, sender=ADMIN)
    assert "- `!create NAME [--runtime RUNTIME] [--model MODEL]`: creates an agent." in with_bot
    assert "!new" not in with_bot


async def test_help_explains_one_command(stage: Stage) -> None:
    explained = await stage.say("help !STOP")
    assert explained.startswith("`!cancel`: stops what is worked on here")
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

    stage.runner = stage.runner_for(Command("once", handler, "runs.", scope=Scope.BOTH))
    turn = await stage.turn("once")
    await _crashing_at(stage, turn, "finish")
    stage.fake.forgetful = True
    await stage.rerun(await stage.reload(turn))
    assert len(ran) == 1
    assert stage.fake.bodies(ROOM) == ["done"]


async def test_a_handler_that_breaks_is_given_up_with_a_word(stage: Stage) -> None:
    async def handler(context: CommandContext) -> str:
        raise ZeroDivisionError

    commands = (
        Command("break", handler, "breaks.", scope=Scope.BOTH),
        Command("react-break", handler, "breaks.", scope=Scope.BOTH, hidden=True),
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


async def test_a_runtimes_fault_is_one_line(stage: Stage) -> None:
    stage.runtime.available = False
    answer = await stage.say("model")
    assert answer == "That did not work: the in-memory runtime is switched off"


async def test_new_leaves_the_conversation_of_its_place(stage: Stage) -> None:
    thread = HERE._replace(thread_id="$root")
    await stage.conversations.begin(HERE, "c1", "first")
    await stage.conversations.begin(thread, "c2", "second")
    assert "starts a new conversation" in await stage.say("new", thread_id="$root")
    assert stage.conversations.current(thread) is None
    assert stage.conversations.current(HERE) == "c1"
    assert "afresh anyway" in await stage.say("new", thread_id="$root")


async def test_conversations_are_listed_and_returned_to(stage: Stage) -> None:
    assert "no conversation here yet" in await stage.say("conversations")
    await stage.conversations.begin(HERE, "c1", "About *birds*")
    await stage.conversations.begin(HERE._replace(thread_id="$root"), "c2", "In a thread")
    await stage.conversations.begin(HERE, "c3", "Fish")
    listed = await stage.say("conversations")
    assert listed.splitlines()[2:] == [
        "1. “About \\*birds\\*” · just now",
        "2. “In a thread” · just now · in a thread",
        "3. “Fish” · just now · **current**",
    ]
    assert "go on with “About" in await stage.say("conversations 1")
    assert stage.conversations.current(HERE) == "c1"
    # The numbers stay, although another one was used last.
    assert "go on with “Fish”" in await stage.say("conversations 3")
    assert "already" in await stage.say("conversations 3")
    answer = await stage.say("conversations 3", thread_id="$other")
    assert answer.endswith("It goes on here now, and no longer there.")
    assert stage.conversations.current(HERE) is None
    assert stage.conversations.current(HERE._replace(thread_id="$other")) == "c3"
    assert await stage.say("conversations 4") == (
        "There is no conversation 4 here: 3 conversations."
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
    assert await stage.say("cancel") == "There is nothing to stop here."
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
    assert await stage.say("cancel", reply_to=target) == "That is not being worked on."
    assert await stage.say(f"react-cancel {first.event_id}") == ""
    assert stage.running == []


async def test_pause_and_resume(stage: Stage) -> None:
    await stage.say("pause")
    assert stage.rooms.settings("agent-1", ROOM).paused
    assert "Paused here" in await stage.say("status")
    await stage.say("resume")
    assert not stage.rooms.settings("agent-1", ROOM).paused


async def test_tool_activity_of_a_room(stage: Stage) -> None:
    assert "are shown here" in await stage.say("tools")
    assert "are not shown here" in await stage.say("tools off")
    assert stage.rooms.settings("agent-1", ROOM).tool_activity is False
    assert "are shown here" in await stage.say("tools ON")
    assert await stage.say("tools loud") == "`!tools` takes `on` or `off`, got `loud`."


async def test_models_are_shown_to_all_and_switched_by_admins(stage: Stage) -> None:
    shown = await stage.say("model")
    assert "**Ada** thinks with `memory/small`." in shown
    assert "- `memory/large`" in shown
    assert await stage.say("model memory/large") == "Only an admin may switch an agent's model."
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
    stage.troubles.append("the runtime `x_y` is away")
    told = await stage.say("status")
    assert "- Conversation: “Birds”, since just now" in told
    assert "- Now: working on the message of @ann:test, just now" in told
    assert "- Waiting: 1 message\n" in told
    assert re.search(r"- 1: `Bash` · (28|29) min left · key `k1`", told)
    assert "an admin's `!status` says what" in told
    assert "is away" in await stage.say("status", sender=ADMIN)


async def test_status_of_all(stage: Stage) -> None:
    assert "2 agents in 1 runtime:\n\n- `memory`: 2 agents" in await stage.say("status", BOT_ROOM)


async def test_agents_are_listed_with_their_rooms(stage: Stage) -> None:
    assert await stage.say("agents", BOT_ROOM) == (
        "2 agents:\n\n"
        "- [Ada](https://matrix.to/#/%23agent_1%3Atest) · `memory`\n"
        "- [Grace\\_\\*](https://matrix.to/#/%23agent_2%3Atest) · `memory`"
    )
    assert (await stage.say("agents grace")).startswith("1 agent:")
    assert "No agent is called" in await stage.say("agents bob")


async def test_many_agents_with_long_names_fit(stage: Stage) -> None:
    await stage.directory.reserve([agent(n, name="*ö" * 120) for n in range(100, 200)])
    listed = await stage.say("agents")
    assert listed.startswith("102 agents:")
    assert len(listed.encode()) < 17_000


async def test_the_only_approval_needs_no_name(stage: Stage) -> None:
    assert await stage.say("approve") == "No approval waits here."
    await stage.asked("k1")
    assert await stage.say("approve") == "`Bash`: allowed."
    assert stage.approvals.told == [("k1", ApprovalStatus.ALLOWED, "")]
    assert await stage.say("approve k1") == "`Bash` cannot be answered any more: allowed."


async def test_of_several_approvals_one_is_named(stage: Stage) -> None:
    turn = await stage.working()
    for number in (1, 2, 3):
        await stage.asked(f"k{number}", turn, asked_at=time.time() - 60 + number)
    which = await stage.say("approve")
    assert which.startswith("3 approvals wait here: say which, `!approve N`.")
    assert await stage.say("approve 1 always") == "`Bash`: allowed for good."
    # The numbers stay when one is answered, so that nobody allows what they did not see.
    assert "cannot be answered any more: allowed for good" in await stage.say("approve 1")
    assert await stage.say("deny 2 too dangerous, don't") == (
        "`Bash`: denied (too dangerous, don't)."
    )
    assert await stage.say("approve 9") == "No approval `9` waits here; `!status` numbers them."
    assert await stage.say("deny 9 x") == "No approval `9` waits here; `!status` numbers them."
    assert await stage.say("approve nope") == (
        "No approval `nope` waits here; `!status` numbers them."
    )
    assert await stage.say("deny not that") == "`Bash`: denied (not that)."
    assert stage.approvals.told == [
        ("k1", ApprovalStatus.ALWAYS, ""),
        ("k2", ApprovalStatus.DENIED, "too dangerous, don't"),
        ("k3", ApprovalStatus.DENIED, "not that"),
    ]


async def test_a_reply_to_the_question_means_that_one(stage: Stage) -> None:
    for key in ("k1", "k2", "k3"):
        await stage.asked(key)
    assert await stage.say("approve", reply_to="$asks-k2") == "`Bash`: allowed."
    assert await stage.say("deny k2 is no reason", reply_to="$asks-k3") == (
        "`Bash`: denied (k2 is no reason)."
    )
    assert [key for key, *_ in stage.approvals.told] == ["k2", "k3"]


async def test_nobody_allows_what_was_asked_after_they_wrote(stage: Stage) -> None:
    await stage.asked("k1", asked_at=time.time())
    answer = await stage.say("approve", sent_at=time.time() - 5)
    assert answer == "`Bash` was asked for after you wrote that; to allow it: `!approve k1`."
    assert await stage.status_of("k1") is ApprovalStatus.PENDING
    assert await stage.say("approve k1", sent_at=time.time() - 5) == "`Bash`: allowed."


async def test_what_nobody_answered_in_time_cannot_be_answered(stage: Stage) -> None:
    approval = await stage.asked("k1", status=ApprovalStatus.EXPIRED)
    assert "denied, as nobody answered in time" in await stage.say(f"approve {approval.key}")


async def test_strangers_are_told_who_may_answer(stage: Stage) -> None:
    await stage.asked("k1")
    for line in ("approve", "deny", "approve k1", "approve 1 always"):
        assert await stage.say(line, sender=STRANGER) == (
            "`Bash` is for @ann:test alone to allow or deny."
        )
    assert stage.approvals.told == []
    assert await stage.say("approve", sender=ADMIN) == "`Bash`: allowed."


async def test_always_only_where_it_is_offered(stage: Stage) -> None:
    await stage.asked("k1", always=False)
    assert "cannot be allowed for good" in await stage.say("approve always")
    await stage.say("react-always k1")
    assert await stage.status_of("k1") is ApprovalStatus.PENDING


@pytest.mark.parametrize(
    ("verb", "status"),
    [
        ("react-approve", ApprovalStatus.ALLOWED),
        ("react-always", ApprovalStatus.ALWAYS),
        ("react-deny", ApprovalStatus.DENIED),
    ],
)
async def test_reactions_are_silent(stage: Stage, verb: str, status: ApprovalStatus) -> None:
    await stage.asked("k1")
    assert await stage.say(f"{verb} k1", sender=STRANGER) == ""
    assert await stage.say(f"{verb} k1", "!2:test", agent_id="agent-2") == ""
    assert await stage.say(f"{verb} k1 k2") == ""
    assert await stage.say(verb) == ""
    assert await stage.say(f"{verb} k9") == ""
    assert await stage.status_of("k1") is ApprovalStatus.PENDING
    assert await stage.say(f"{verb} k1") == ""
    assert await stage.status_of("k1") is status
    assert stage.fake.messages(ROOM) == []


async def test_approvals_of_other_rooms_are_out_of_reach(stage: Stage) -> None:
    await stage.asked("k1")
    elsewhere = {"room_id": "!2:test", "agent_id": "agent-2", "sender": ADMIN}
    assert await stage.say("approve", **elsewhere) == "No approval waits here."
    assert "No approval `k1` waits here" in await stage.say("approve k1", **elsewhere)


async def test_with_the_bot_one_answers_what_one_may(stage: Stage) -> None:
    await stage.asked("k1")
    assert await stage.say("approve", BOT_ROOM, sender=STRANGER) == "No approval waits here."
    assert "No approval `k1`" in await stage.say("approve k1", BOT_ROOM, sender=STRANGER)
    assert await stage.say("approve 1", BOT_ROOM) == "`Bash`: allowed."


async def test_after_a_crash_a_number_means_the_same_approval(stage: Stage) -> None:
    await stage.asked("k1", asked_at=time.time() - 100)
    await stage.asked("k2")
    turn = await stage.turn("approve 1")
    await _crashing_at(stage, turn, "freeze")
    assert await stage.status_of("k1") is ApprovalStatus.ALLOWED
    assert await stage.rerun(await stage.reload(turn)) == "`Bash`: allowed."
    assert await stage.status_of("k2") is ApprovalStatus.PENDING


async def test_after_a_crash_a_denial_keeps_its_whole_reason(stage: Stage) -> None:
    await stage.asked("k1")
    turn = await stage.turn("deny because of that")
    await _crashing_at(stage, turn, "freeze")
    answer = await stage.rerun(await stage.reload(turn))
    assert answer == "`Bash`: denied (because of that)."
    assert stage.approvals.told == [("k1", ApprovalStatus.DENIED, "because of that")]


async def test_create(stage: Stage) -> None:
    answer = await stage.say('create Marie Curie --model "memory/small"', BOT_ROOM, sender=ADMIN)
    made = (await stage.runtime.list_agents())[-1]
    assert (made.name, made.model) == ("Marie Curie", "memory/small")
    assert answer.startswith("Created [Marie Curie](https://matrix.to/#/%23agent_")
    assert made.agent_id in answer
    assert stage.syncs == 1


async def test_create_asks_where_if_there_are_several_runtimes(stage: Stage) -> None:
    stage.runtimes["cloud"] = MemoryRuntime("cloud")
    stage.runtimes["fixed"] = MemoryRuntime("fixed", capabilities=Capabilities(manage=False))

    async def create(line: str) -> str:
        return await stage.say(f"create {line}", BOT_ROOM, sender=ADMIN)

    assert await create("Bob") == "Say where: `--runtime memory` or `--runtime cloud`."
    assert "does not let me create" in await create("Bob --runtime fixed")
    assert await create("Bob --runtime nope") == (
        "There is no runtime `nope`, only `memory`, `cloud`, `fixed`."
    )
    assert "Created" in await create("Bob --runtime cloud")
    assert [info.name for info in await stage.runtimes["cloud"].list_agents()] == ["Bob"]
    assert "at most" in await create("x" * 101)
    assert await create('""') == "An agent's name cannot be empty."


async def test_after_a_crash_nothing_is_created_twice(stage: Stage) -> None:
    stage.runtime.add(AgentInfo("agent-7", "Bob"))
    turn = await stage.turn("create Bob", BOT_ROOM, sender=ADMIN)
    await _crashing_at(stage, turn, "freeze")
    again = await stage.rerun(await stage.reload(turn))
    bobs = [one for one in await stage.runtime.list_agents() if one.name == "Bob"]
    assert len(bobs) == 2
    assert bobs[1].agent_id in again


async def test_a_create_cut_short_before_the_runtime_heard_of_it_is_done(stage: Stage) -> None:
    turn = await stage.turn("create Bob", BOT_ROOM, sender=ADMIN)
    await stage.turns.run(turn, {"runtime": "memory", "before": ["agent-1", "agent-2"]})
    assert "Created" in await stage.rerun(await stage.reload(turn))
    assert [one.name for one in await stage.runtime.list_agents()][2:] == ["Bob"]


class Losing(MemoryRuntime):
    """A runtime that creates an agent, and whose answer is lost; perhaps it goes away too."""

    def __init__(self, *, stays: bool) -> None:
        super().__init__()
        self.stays = stays

    async def create_agent(self, name: str, *, model: str = "", description: str = "") -> AgentInfo:
        await super().create_agent(name, model=model, description=description)
        self.available = self.stays
        raise RuntimeUnavailable("no answer")


@pytest.mark.parametrize("stays", [True, False])
async def test_a_lost_answer_is_no_failure(stage: Stage, stays: bool) -> None:
    stage.runtimes["memory"] = Losing(stays=stays)
    answer = await stage.say("create Bob", BOT_ROOM, sender=ADMIN)
    expected = "Created [Bob]" if stays else "Whether **Bob** was created cannot be known now"
    assert answer.startswith(expected)


async def test_rename_by_id_user_id_or_name(stage: Stage) -> None:
    for who, name in (("agent-1", "One"), ("@agent_1:test", "Two B"), ("'two b'", "Three")):
        answer = await stage.say(f"rename {who} {name}", BOT_ROOM, sender=ADMIN)
        assert answer == f"`agent-1` is called **{name}** now."
    assert [info.name for info in await stage.runtime.list_agents()] == ["Three", "Grace_*"]


async def test_after_a_crash_a_rename_means_the_same_agent(stage: Stage) -> None:
    turn = await stage.turn("rename Ada Bob", BOT_ROOM, sender=ADMIN)
    await _crashing_at(stage, turn, "freeze")
    assert "**Bob**" in await stage.rerun(await stage.reload(turn))


async def test_an_agent_that_is_not_clear_is_asked_for(stage: Stage) -> None:
    await stage.directory.reserve([agent(3, name="Ada")])
    answer = await stage.say("show ada", sender=ADMIN)
    assert answer.splitlines()[2:] == ["- `agent-1` · `memory`", "- `agent-3` · `memory`"]
    unknown = await stage.say("show grace", sender=ADMIN)
    assert unknown.startswith("There is no agent `grace`. Did you mean `Grace_*`?")


async def test_remove_asks_first(stage: Stage) -> None:
    asked = await stage.say("remove Ada", sender=ADMIN)
    assert asked.endswith("To do it: `!remove agent-1 --yes`")
    assert len(await stage.runtime.list_agents()) == 2
    assert await stage.say("remove agent-1 --yes", sender=ADMIN) == (
        "Deleted **Ada** (`agent-1`) from `memory`."
    )
    assert [info.agent_id for info in await stage.runtime.list_agents()] == ["agent-2"]


async def test_show_tells_all_about_an_agent(stage: Stage) -> None:
    await stage.conversations.begin(HERE, "c1", "Birds")
    await stage.asked("k1")
    assert (await stage.say("show", sender=ADMIN)).splitlines() == [
        "**Ada**",
        "",
        "- Id: `agent-1`",
        "- Runtime: `memory`",
        "- User: `@agent_1:test`",
        "- Room: [Ada](https://matrix.to/#/%23agent_1%3Atest)",
        "- Model: `memory/small`",
        "- Conversations: 1 in 1 room",
        "- Approvals that wait: 1",
    ]
    stage.runtime.available = False
    other = await stage.say("show agent-2", BOT_ROOM, sender=ADMIN)
    assert "- Model: unknown (the in-memory runtime is switched off)" in other
    assert "- Trouble: its room is gone" in other


async def test_sync(stage: Stage) -> None:
    assert await stage.say("sync", BOT_ROOM, sender=ADMIN) == "Looked: 2 agents in 1 runtime."
    stage.troubles.append("runtime x is away")
    assert "- runtime x is away" in await stage.say("sync", BOT_ROOM, sender=ADMIN)


class _Crash(BaseException):
    """The process is gone."""


async def _crashing_at(stage: Stage, turn: Turn, step: str) -> None:
    owner = stage.outbox if step == "freeze" else stage.turns

    async def crash(*_args: object, **_named: object) -> None:
        raise _Crash

    setattr(owner, step, crash)
    with pytest.raises(_Crash):
        await stage.runner.run(turn, recovered=False)
    delattr(owner, step)
