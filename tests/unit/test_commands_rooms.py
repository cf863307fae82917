"""The way back into agents' rooms, and removed agents' rooms out of the space."""

from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from tests.builders import PERSON
from tests.command_stage import ADMIN, BOT_ROOM, ROOM, STRANGER, Stage, stage_on
from tests.fake_homeserver import FakeHomeserver, Fault, Json

from letta_matrix.doors.chat.command import Command, CommandContext
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.operations.typed import Where
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.database import Database

REFUSED = Fault(403, {"errcode": "M_FORBIDDEN", "error": "no"})
ADA = "[`Ada`](https://matrix.to/#/%23agent_1%3Atest)"


@pytest.fixture
async def stage(
    database: Database, directory: AgentDirectory, homeserver: Homeserver, fake: FakeHomeserver
) -> AsyncGenerator[Stage]:
    made = await stage_on(database, directory, homeserver, fake)
    yield made
    await made.close()


def member(
    fake: FakeHomeserver,
    membership: str,
    *,
    before: str = "",
    by: str = PERSON,
    who: str = PERSON,
    room_id: str = ROOM,
) -> None:
    """Somebody's membership in a room from now on, and before."""
    event = fake.set_state(room_id, "m.room.member", {"membership": membership}, who, by)
    event["unsigned"] = {"prev_content": {"membership": before}} if before else {}


def invited(fake: FakeHomeserver) -> list[tuple[str, Json]]:
    """Who invited whom."""
    return [(one.user_id, one.body) for one in fake.matching("POST .*/invite")]


async def test_who_left_comes_back(stage: Stage, fake: FakeHomeserver) -> None:
    member(fake, "leave", before="join")
    assert await stage.say("invite Ada", BOT_ROOM) == f"Invited `{PERSON}` to {ADA}."
    assert invited(fake) == [("@agent_1:test", {"user_id": PERSON})]


@pytest.mark.parametrize(
    ("membership", "before", "by"),
    [
        ("", "", PERSON),
        ("leave", "join", ADMIN),
        ("leave", "invite", ADMIN),
        ("leave", "knock", PERSON),
        ("leave", "", PERSON),
        ("knock", "", PERSON),
    ],
)
async def test_strangers_stay_outside(
    stage: Stage, fake: FakeHomeserver, membership: str, before: str, by: str
) -> None:
    if membership:
        member(fake, membership, before=before, by=by)
    answer = await stage.say("invite Ada", BOT_ROOM)
    assert answer == (
        f"Nobody has let `{PERSON}` into that room so far. An admin can: "
        f"`!invite agent-1 --person {PERSON}`"
    )
    assert invited(fake) == []


async def test_an_admin_comes_in_and_lets_others_in(stage: Stage, fake: FakeHomeserver) -> None:
    assert "Invited" in await stage.say("invite Ada", BOT_ROOM, sender=ADMIN)
    assert "Invited" in await stage.say("invite --person @bob:test", ROOM, sender=ADMIN)
    member(fake, "leave", before="join", by=ADMIN, who="@eve:test")
    assert "Invited" in await stage.say("invite Ada --person @eve:test", BOT_ROOM, sender=ADMIN)
    assert [body["user_id"] for _, body in invited(fake)] == [ADMIN, "@bob:test", "@eve:test"]


async def test_others_are_invited_by_admins_alone(stage: Stage, fake: FakeHomeserver) -> None:
    answer = await stage.say(f"invite Ada --person {STRANGER}", BOT_ROOM)
    assert answer == "Only an admin invites somebody else; `!invite` alone is for yourself."
    assert invited(fake) == []


async def test_who_is_no_admin_invites_themselves_alone(stage: Stage) -> None:
    async def invite_bob(context: CommandContext) -> str:
        await context.do("agents.invite", agent_id="agent-1", user_id=STRANGER)
        return "done"

    member(stage.fake, "leave", before="join", by=STRANGER, who=STRANGER)
    stage.runner = stage.runner_for(Command("let-in", invite_bob, "x.", scope=Where.BOTH))
    assert await stage.say("let-in", BOT_ROOM) == "Only an admin invites somebody else."
    assert invited(stage.fake) == []


@pytest.mark.parametrize("person", ["bob", "@bob", "#bob:test", "@agent_2:test", "@letta:test"])
async def test_only_people_are_invited(stage: Stage, fake: FakeHomeserver, person: str) -> None:
    await stage.say(f"invite Ada --person {person}", BOT_ROOM, sender=ADMIN)
    assert invited(fake) == []


@pytest.mark.parametrize(
    ("membership", "answer"),
    [
        ("join", f"`{PERSON}` is in the room of {ADA} already."),
        ("invite", f"`{PERSON}` has an invitation to {ADA} that waits to be accepted."),
        ("ban", f"`{PERSON}` is banned from {ADA}: somebody with power there can lift that."),
    ],
)
async def test_what_there_is_to_say_otherwise(
    stage: Stage, fake: FakeHomeserver, membership: str, answer: str
) -> None:
    member(fake, membership)
    assert await stage.say("invite Ada", BOT_ROOM) == answer
    assert invited(fake) == []


async def test_without_a_name_it_is_about_all(stage: Stage, fake: FakeHomeserver) -> None:
    member(fake, "leave", before="join")
    member(fake, "invite", room_id="!2:test")
    answer = await stage.say("invite", BOT_ROOM)
    assert answer == f"Invited `{PERSON}` to 1 room:\n\n- {ADA}"
    member(fake, "join")
    assert await stage.say("invite", BOT_ROOM) == (
        f"There is no further room for `{PERSON}` to come back to. 1 invitation can be accepted."
    )


async def test_what_the_homeserver_refuses_is_told(stage: Stage, fake: FakeHomeserver) -> None:
    member(fake, "leave", before="join")
    fake.fail("POST .*/invite", REFUSED)
    answer = await stage.say("invite Ada", BOT_ROOM)
    assert answer == "`Ada` cannot invite: `the homeserver refused: M_FORBIDDEN: no`"


async def gone(stage: Stage) -> Agent:
    """Agent 1 is removed, its room still in the space."""

    def removed(one: Agent) -> Agent:
        return replace(one, status=AgentStatus.REMOVED, applied={"space": "!space:test"})

    return (await stage.directory.change(["agent-1"], removed))[0]


async def test_a_removed_agents_room_leaves_the_space(stage: Stage) -> None:
    await gone(stage)
    answer = await stage.say("archive Ada", BOT_ROOM, sender=ADMIN)
    assert answer.startswith("Out of the space: `Ada`.")
    await stage.say("archive", BOT_ROOM, sender=ADMIN)
    assert stage.archived == ["agent-1", "agent-1"]


async def test_what_is_there_stays_in_the_space(stage: Stage) -> None:
    answer = await stage.say("archive Ada", BOT_ROOM, sender=ADMIN)
    assert answer == "`Ada` is not removed: `!remove` deletes an agent first."
    answer = await stage.say("archive", BOT_ROOM, sender=ADMIN)
    assert answer == "No removed agent's room stands in the space."
    assert "for admins only" in await stage.say("archive", BOT_ROOM)
    assert stage.archived == []
