"""Commands with which admins create, change and remove agents."""

import time
from collections.abc import AsyncGenerator

import pytest
from tests.builders import agent
from tests.command_stage import ADMIN, BOT_ROOM, HERE, ROOM, Stage, crashing_at, stage_on
from tests.fake_homeserver import FakeHomeserver
from tests.waiting import eventually

from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.runtimes.faults import RuntimeUnavailable
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo, Capabilities
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.audit import AuditEntry, fingerprint
from letta_matrix.store.database import Database


@pytest.fixture
async def stage(
    database: Database, directory: AgentDirectory, homeserver: Homeserver, fake: FakeHomeserver
) -> AsyncGenerator[Stage]:
    made = await stage_on(database, directory, homeserver, fake)
    yield made
    await made.close()


async def test_create(stage: Stage) -> None:
    answer = await stage.say('create Marie Curie --model "memory/small"', BOT_ROOM, sender=ADMIN)
    made = (await stage.runtime.list_agents())[-1]
    assert (made.name, made.model) == ("Marie Curie", "memory/small")
    assert answer.startswith("Created [`Marie Curie`](https://matrix.to/#/%23agent_")
    assert made.agent_id in answer
    assert stage.syncs == 1


async def test_create_asks_where_if_there_are_several_runtimes(stage: Stage) -> None:
    stage.runtimes["cloud"] = MemoryRuntime("cloud")
    stage.runtimes["fixed"] = MemoryRuntime("fixed", capabilities=Capabilities(manage=False))

    async def create(line: str) -> str:
        return await stage.say(f"create {line}", BOT_ROOM, sender=ADMIN)

    assert await create("Bob") == ("Say in which `runtime`: `memory` or `cloud`.")
    assert "does not let agents be created" in await create("Bob --runtime fixed")
    assert await create("Bob --runtime nope") == (
        "There is no runtime `nope`, only `memory`, `cloud`, `fixed`."
    )
    assert "Created" in await create("Bob --runtime cloud")
    assert [info.name for info in await stage.runtimes["cloud"].list_agents()] == ["Bob"]
    assert "at most" in await create("x" * 101)
    assert "at least 1 character" in await create('""')


async def test_after_a_crash_nothing_is_created_twice(stage: Stage) -> None:
    stage.runtime.add(AgentInfo("agent-7", "Bob"))
    turn = await stage.turn("create Bob", BOT_ROOM, sender=ADMIN)
    await crashing_at(stage, turn, "freeze")
    again = await stage.rerun(await stage.reload(turn))
    bobs = [one for one in await stage.runtime.list_agents() if one.name == "Bob"]
    assert len(bobs) == 2
    assert bobs[1].agent_id in again


async def test_a_create_cut_short_before_the_runtime_heard_of_it_is_done(stage: Stage) -> None:
    turn = await stage.turn("create Bob", BOT_ROOM, sender=ADMIN)
    wanted = {"name": "Bob", "runtime": "", "model": "", "description": ""}
    begun, _ = await stage.audit.begin(
        AuditEntry(
            principal=f"user:{ADMIN}",
            user_id="@letta:test",
            door="chat",
            tool="agents.create",
            fingerprint=fingerprint(wanted),
            at=time.time(),
            transaction_id=turn.turn_id,
        )
    )
    await stage.audit.note(begun.seq, {"notes": {"agents before": ["agent-1", "agent-2"]}})
    await stage.turns.run(turn, {})
    assert "Created" in await stage.rerun(await stage.reload(turn))
    assert [one.name for one in await stage.runtime.list_agents()][2:] == ["Bob"]


def ended(entries: list[AuditEntry]) -> bool:
    return any(entry.outcome for entry in entries)


def all_ended(entries: list[AuditEntry]) -> bool:
    return all(entry.outcome for entry in entries)


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
    expected = "Created [`Bob`]" if stays else "Whether `Bob` was created cannot be known now"
    assert answer.startswith(expected)


async def test_rename_by_id_user_id_or_name(stage: Stage) -> None:
    for who, name in (("agent-1", "One"), ("@agent_1:test", "Two B"), ("'two b'", "Three")):
        answer = await stage.say(f"rename {who} {name}", BOT_ROOM, sender=ADMIN)
        assert answer == f"The agent is called `{name}` now."
    assert [info.name for info in await stage.runtime.list_agents()] == ["Three", "Grace_*"]


async def test_after_a_crash_a_rename_means_the_same_agent(stage: Stage) -> None:
    turn = await stage.turn("rename Ada Bob", BOT_ROOM, sender=ADMIN)
    await crashing_at(stage, turn, "freeze")
    assert "`Bob`" in await stage.rerun(await stage.reload(turn))


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
        "Deleted `Ada` (`agent-1`) from `memory`."
    )
    assert [info.agent_id for info in await stage.runtime.list_agents()] == ["agent-2"]


@pytest.mark.parametrize(
    ("line", "action", "outcome"),
    [
        ("create Bob", "agents.create", "ok"),
        ("rename Ada Bob", "agents.rename", "ok"),
        ("remove Ada --yes", "agents.remove", "ok"),
        ("remove Nobody --yes", "agents.remove", "not-found"),
        ("archive Ada", "agents.archive", "conflict"),
        ("invite Ada --person @bob:test", "agents.invite", "ok"),
    ],
)
async def test_what_admins_do_is_noted_as_theirs(
    stage: Stage, line: str, action: str, outcome: str
) -> None:
    await stage.say(line, BOT_ROOM, sender=ADMIN)
    (entry,) = await eventually(lambda: stage.audit.newest(9), ended)
    assert (entry.tool, entry.outcome) == (action, outcome)
    assert (entry.principal, entry.user_id) == (f"user:{ADMIN}", "@letta:test")
    assert entry.door == "chat"


@pytest.mark.parametrize(("membership", "outcome"), [("ban", "conflict"), ("join", "ok")])
async def test_who_is_not_let_in_is_noted_as_refused(
    stage: Stage, fake: FakeHomeserver, membership: str, outcome: str
) -> None:
    fake.set_state("!1:test", "m.room.member", {"membership": membership}, "@bob:test")
    await stage.say("invite Ada --person @bob:test", BOT_ROOM, sender=ADMIN)
    (entry,) = await eventually(lambda: stage.audit.newest(9), ended)
    assert entry.outcome == outcome


@pytest.mark.parametrize(
    ("line", "action", "outcome"),
    [
        ("model memory/large", "agents.set_model", "ok"),
        ("model nonesuch", "agents.set_model", "not-found"),
        ("tools off", "rooms.set", "ok"),
        ("pause", "rooms.set", "ok"),
        ("resume", "rooms.set", "ok"),
    ],
)
async def test_what_admins_change_in_a_room_is_noted(
    stage: Stage, line: str, action: str, outcome: str
) -> None:
    await stage.say(line, sender=ADMIN)
    (entry,) = await eventually(lambda: stage.audit.newest(9), ended)
    assert (entry.tool, entry.outcome, entry.door) == (action, outcome, "chat")
    assert entry.room_id == (ROOM if action == "rooms.set" else None)


async def test_what_is_stopped_is_noted_and_that_nothing_is(stage: Stage) -> None:
    asked = await stage.working()
    await stage.say("react-cancel " + asked.event_id)
    (done,) = await eventually(lambda: stage.audit.newest(9), ended)
    assert (done.outcome, done.event_id) == ("ok", asked.event_id)
    await stage.working(sender="@bob:test")
    assert "asked by others" in await stage.say("cancel")
    (others, _) = await eventually(lambda: stage.audit.newest(9), all_ended)
    stage.running.clear()
    assert "Nothing is worked on" in await stage.say("cancel")
    (idle, *_) = await eventually(lambda: stage.audit.newest(9), all_ended)
    assert (others.outcome, idle.outcome) == ("forbidden", "conflict")


async def test_what_only_asks_or_looks_is_not_noted(stage: Stage) -> None:
    for line in ("remove Ada", "sync", "show Ada", "status"):
        await stage.say(line, BOT_ROOM, sender=ADMIN)
    assert await stage.audit.newest(9) == []


async def test_show_tells_all_about_an_agent(stage: Stage) -> None:
    await stage.conversations.begin(HERE, "c1", "Birds")
    await stage.asked("k1")
    assert (await stage.say("show", sender=ADMIN)).splitlines() == [
        "`Ada`",
        "",
        "- Id: `agent-1`",
        "- Runtime: `memory`",
        "- User: `@agent_1:test`",
        "- Room: [`Ada`](https://matrix.to/#/%23agent_1%3Atest)",
        "- Model: `memory/small`",
        "- Conversations: 1 in 1 room",
        "- Approvals that wait: 1",
    ]
    stage.runtime.available = False
    other = await stage.say("show agent-2", BOT_ROOM, sender=ADMIN)
    assert "- Model: unknown (`the in-memory runtime is switched off`)" in other
    assert "- Trouble: `its room is gone`" in other


async def test_sync_tells_of_each_runtime(stage: Stage) -> None:
    stage.runtimes["cloud"] = MemoryRuntime("cloud")
    stage.runtime.available = False
    assert await stage.say("sync", BOT_ROOM, sender=ADMIN) == (
        "Looked for agents:\n\n"
        "- `memory`: 2 agents, could not be listed: `the in-memory runtime is switched off`\n"
        "- `cloud`: 0 agents, listed"
    )


async def test_one_runtime_away_holds_up_no_other(stage: Stage) -> None:
    stage.runtimes["cloud"] = MemoryRuntime("cloud")
    stage.runtime.available = False
    answer = await stage.say("create Bob --runtime cloud", BOT_ROOM, sender=ADMIN)
    assert answer.startswith("Created [`Bob`]")
