"""Commands among messages, rooms and people, in a bridge that is wired as the real one is."""

from pathlib import Path

from tests.builders import PERSON, asked_approval, invite, message, said_in
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage
from tests.waiting import eventually

from letta_matrix.app.assembly import App
from letta_matrix.runtimes.memory import MemoryRuntime

BOB, ROOT = "@bob:test", "@root:test"
SHARED, DIRECT = "!shared:test", "!dm:test"


async def test_an_agent_that_has_answered_is_idle(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.tell(message("one"))
    await stage.tell(message("!status"))
    assert "- Now: idle" in fake.bodies("!1:test")[-1]


async def test_a_thread_that_is_returned_to_is_listened_to(
    stage: Stage, fake: FakeHomeserver
) -> None:
    fake.members[SHARED] = {PERSON, BOB}
    await stage.tell(invite("@agent_1:test", SHARED))
    await stage.tell(message("@agent_1 one", SHARED))
    await stage.tell(said_in("$other", "!letta conversations 1", SHARED))
    assert "goes on here now" in fake.bodies(SHARED)[-1]
    await stage.tell(said_in("$other", "go on", SHARED))
    first, second = stage.runtime.asked
    assert second.conversation_id == first.conversation_id


async def test_who_is_not_in_the_room_neither_sees_nor_approves(
    fake: FakeHomeserver, database_file: Path
) -> None:
    permissions = {"test": "user", ROOT: "admin"}
    stage = Stage(fake, database_file, permissions=permissions)
    await stage.open(approvers="users")
    await stage.add(1)
    for person in (BOB, ROOT):
        room_id = f"!of-{person[1:]}"
        fake.members[room_id] = {person}
        await stage.tell(invite("@letta:test", room_id, sender=person))
    approval = await asked(stage)

    async def told(person: str, line: str) -> str:
        await stage.tell(message(line, f"!of-{person[1:]}", sender=person))
        return fake.bodies(f"!of-{person[1:]}")[-1]

    assert "approval" not in (await told(BOB, "status")).lower()
    assert "1 approval in [`!1:test`]" in await told(ROOT, "status")
    for person, verb in ((BOB, "approve"), (BOB, "deny"), (ROOT, "approve")):
        await told(person, f"{verb} {approval}")
        assert await stage.stores.approvals.pending()
    assert await told(ROOT, f"deny {approval}") == "`Bash`: denied."
    await stage.close()


async def asked(stage: Stage) -> str:
    """The key of an approval that waits in the room of agent 1."""
    turn = await stage.turn("x")
    approval = asked_approval(turn, "aaaa1111", arguments={"command": "cat secret"})
    await stage.stores.database.execute(stage.stores.approvals.insert(approval))
    return approval.key


async def test_one_runtime_away_hides_no_other(fake: FakeHomeserver, database_file: Path) -> None:
    stage = Stage(fake, database_file, permissions={ROOT: "admin"})
    await stage.open()
    away, there = MemoryRuntime("away"), MemoryRuntime("there")
    await there.create_agent("New")
    away.available = False
    runtimes = {"away": away, "there": there}
    await stage.close()
    parts = App(stage.config, runtimes)
    await parts.stores.open()
    fake.members[DIRECT] = {ROOT}
    for event in (
        invite("@letta:test", DIRECT, sender=ROOT),
        message("sync", DIRECT, sender=ROOT),
    ):
        await parts.dispatcher.admit(event["event_id"], [event])
        await eventually(lambda: parts.dispatcher.queues.waiting == 0)
    assert fake.bodies(DIRECT)[-1].splitlines()[2:] == [
        "- `away`: 0 agents, could not be listed: `the in-memory runtime is switched off`",
        "- `there`: 1 agent, listed",
    ]
    await parts.close()
    await parts.homeserver.close()
    await parts.stores.close()
