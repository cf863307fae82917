"""What an import would do, by what the file says and what was found."""

from dataclasses import replace
from typing import Any

import pytest

from letta_matrix.agents.migration.found import (
    GONE,
    Account,
    Found,
    Living,
    OldUser,
    Room,
    Sight,
    Way,
    room_of,
)
from letta_matrix.agents.migration.mappings_file import OldMapping
from letta_matrix.agents.migration.plan import Adoption, Plan, Rules, Step, ghosts_of, plan_of
from letta_matrix.common.identifiers import room_alias, user_id
from letta_matrix.runtimes.protocol import AgentInfo
from letta_matrix.store.agents import LOGINS_ENDED, Agent

BOT, ANN, BOSS, OLD = "@letta:test", "@ann:test", "@boss:test", "@newton:test"
ROOM, OTHER = "!old:test", "!other:test"
RULES = Rules("test", BOT, frozenset({ANN}))
A, B = user_id("agent-a", "test"), user_id("agent-b", "test")
ALL = (Step.ALIAS, Step.ROW)


def room(*joined: str, made_by: str = BOSS, version: str = "10", **levels: int) -> Room:
    """A room with these people, in which some, by their names, have power."""
    users = {f"@{name}:test": power for name, power in levels.items()} or {made_by: 100}
    return Room(
        Sight.SEEN,
        frozenset(joined),
        {"sender": made_by, "content": {"room_version": version}},
        {"invite": 50, "users": users if version == "10" else {}},
    )


def found(*rooms: tuple[str, Room], **changes: Any) -> Found:
    living = {name: Living("memory", AgentInfo(name, name[-1:].upper())) for name in ("agent-a",)}
    living |= changes.pop("living", {})
    known = {one.agent_id: one for one in changes.pop("rows", [])}
    values: dict[str, Any] = {
        "accounts": {A: Account(exists=True)},
        "old_users": {},
        "aliases": {},
        **changes,
    }
    ghosts = ghosts_of([*living, *known], known, "test")
    return Found(living=living, known=known, ghosts=ghosts, rooms=dict(rooms), **values)


def mapping(agent: str = "a", place: int = 1, **fields: str) -> OldMapping:
    agent_id = f"agent-{agent}"
    usual = {"user_id": user_id(agent_id, "test"), "room_id": ROOM, "name": agent}
    return OldMapping(place, agent_id, **{**usual, **fields})


def the_only(plan: Plan) -> Adoption:
    (one,) = plan.adoptions
    return one


def notes(one: Adoption) -> str:
    return "; ".join(note.what for note in one.notes)


def row(
    agent: str = "a", room_id: str | None = ROOM, applied: dict[str, object] | None = None
) -> Agent:
    agent_id = f"agent-{agent}"
    its = user_id(agent_id, "test")
    return Agent(
        agent_id,
        "memory",
        agent,
        its,
        room_id=room_id,
        applied={"registered": True, **(applied or {})},
    )


TWO = {"agent-b": Living("memory", AgentInfo("agent-b", "B"))}


def test_a_user_with_the_agents_own_id_is_taken_over() -> None:
    seen = found((ROOM, room(A, BOT, ANN, agent_a=100)), has_admin=True)
    one = the_only(plan_of([mapping()], seen, RULES))
    assert one.steps == (Step.ALIAS, Step.LOGINS, Step.ROW)
    assert (one.room_id, one.user_id, one.old, one.notes) == (ROOM, A, None, ())


def test_a_second_import_has_nothing_to_do() -> None:
    seen = found(
        (ROOM, room(A, BOT, ANN, agent_a=100)),
        rows=[row(applied={LOGINS_ENDED: True})],
        aliases={room_alias("agent-a", "test"): ROOM},
        has_admin=True,
    )
    plan = plan_of([mapping()], seen, RULES)
    assert plan.is_done
    assert the_only(plan).notes == ()


def test_without_power_an_admin_gives_it() -> None:
    seen = found((ROOM, room(A, BOT, ANN, BOSS)), has_admin=True)
    one = the_only(plan_of([mapping()], seen, RULES))
    assert one.steps == (Step.POWER, Step.ALIAS, Step.LOGINS, Step.ROW)
    assert one.helper == ""


def test_the_bot_with_power_is_asked_before_an_admin() -> None:
    seen = found((ROOM, room(BOT, ANN, letta=100)), has_admin=True)
    one = the_only(plan_of([mapping()], seen, RULES))
    assert one.steps[:2] == (Step.JOIN, Step.POWER)
    assert one.helper == BOT


def test_with_the_bot_there_an_agent_without_power_talks_all_the_same() -> None:
    one = the_only(plan_of([mapping()], found((ROOM, room(A, BOT, ANN, BOSS))), RULES))
    assert one.steps == ALL
    assert "no power" in notes(one)
    assert "still good" in notes(one)


@pytest.mark.parametrize("has_admin", [True, False])
def test_where_nobody_has_power_any_more_no_admin_helps(*, has_admin: bool) -> None:
    seen = found((ROOM, room(A, ANN)), has_admin=has_admin)
    one = the_only(plan_of([mapping()], seen, RULES))
    assert one.room_id == ""
    assert "nobody can bring it" in notes(one)
    assert ("that no admin can" in one.notes[-1].remedy) is has_admin
    # Its account is its own, so that the bridge takes it for one that is wanted.
    assert Step.ROW in one.steps


@pytest.mark.parametrize("version", ["10", "12"])
@pytest.mark.parametrize("way", [Way.OURS, Way.ADMIN, Way.PASSWORD])
def test_a_user_with_another_id_lets_its_agent_in_and_leaves(way: Way, version: str) -> None:
    seen = found(
        (ROOM, room(OLD, ANN, made_by=OLD, version=version)),
        accounts={},
        old_users={OLD: OldUser(OLD, way)},
    )
    one = the_only(plan_of([mapping(user_id=OLD)], seen, RULES))
    assert one.steps == (
        Step.ACCOUNT,
        Step.JOIN,
        Step.POWER,
        Step.ALIAS,
        Step.GOODBYE,
        Step.ROW,
    )
    assert (one.helper, one.user_id) == (OLD, A)


def test_a_wrong_password_is_told_of_where_the_room_is_seen_by_the_bot() -> None:
    seen = found(
        (ROOM, room(OLD, BOT, ANN, letta=50)),
        accounts={},
        old_users={OLD: OldUser(OLD, Way.NONE, "its password does not let us in")},
    )
    one = the_only(plan_of([mapping(user_id=OLD)], seen, RULES))
    assert Step.GOODBYE not in one.steps
    assert f"{OLD}, its user until now, stays in the room: its password" in notes(one)


@pytest.mark.parametrize("who", [BOT, ANN, B], ids=["the bot", "a person", "another agent"])
def test_users_that_are_somebody_elses_never_leave(who: str) -> None:
    seen = found(
        (ROOM, room(who, BOT, ANN, letta=100)),
        old_users={who: OldUser(who, Way.OURS)},
        living=TWO,
    )
    one = the_only(plan_of([mapping(user_id=who)], seen, RULES))
    assert (one.helper, one.old, one.room_id) == (BOT, None, ROOM)
    assert Step.GOODBYE not in one.steps
    assert Step.LOGINS not in one.steps


def test_an_agent_that_is_gone_is_left_alone() -> None:
    plan = plan_of([mapping("x")], found(), RULES)
    assert plan.adoptions == []
    ((_, note),) = plan.left
    assert note.what == f"no runtime has this agent any more; its room {ROOM} stays as it is"


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_mappings_of_an_agent_the_one_with_people_counts(order: int) -> None:
    seen = found((ROOM, room(A, BOT, agent_a=100)), (OTHER, room(A, ANN, agent_a=100)))
    both = [mapping(), mapping(place=2, room_id=OTHER)][::order]
    plan = plan_of(both, seen, RULES)
    assert the_only(plan).room_id == OTHER
    assert [one.room_id for one, _ in plan.left] == [ROOM]


def test_of_two_that_are_alike_the_later_one_counts_and_the_same_twice_is_nothing() -> None:
    seen = found((ROOM, room(A, ANN, agent_a=100)), (OTHER, room(A, ANN, agent_a=100)))
    plan = plan_of([mapping(), mapping(place=2, room_id=OTHER)], seen, RULES)
    assert the_only(plan).room_id == OTHER
    plan = plan_of([mapping(), mapping(place=2)], seen, RULES)
    assert (the_only(plan).room_id, plan.left) == (ROOM, [])


def test_a_room_of_two_agents_is_that_of_the_one_that_is_in_it() -> None:
    seen = found((ROOM, room(B, BOT, ANN, agent_b=100)), living=TWO, has_admin=True)
    plan = plan_of([mapping(), mapping("b", 2)], seen, RULES)
    assert [one.room_id for one in plan.adoptions] == ["", ROOM]
    assert "that of the agent agent-b, too, who keeps it" in notes(plan.adoptions[0])


def test_a_room_that_an_agent_of_the_bridge_has_is_not_given_to_another() -> None:
    rows = [row("b")]
    seen = found((ROOM, room(A, BOT, ANN, agent_a=100)), living=TWO, rows=rows)
    one = the_only(plan_of([mapping()], seen, RULES))
    assert one.room_id == ""
    assert "agent-b" in notes(one)


def test_an_agent_keeps_the_room_it_has_by_now_unless_told_otherwise() -> None:
    seen = found((ROOM, room(A, BOT, ANN, agent_a=100)), rows=[row(room_id=OTHER)])
    one = the_only(plan_of([mapping()], seen, RULES))
    assert (one.room_id, one.steps) == ("", ())
    assert "--replace-rooms" in one.notes[0].remedy
    one = the_only(plan_of([mapping()], seen, replace(RULES, replaces_rooms=True)))
    assert (one.room_id, one.steps) == (ROOM, (Step.ALIAS, Step.ROW))


@pytest.mark.parametrize(
    ("seen", "what"),
    [
        (GONE, "is gone"),
        (replace(room(A, ANN, agent_a=100), is_encrypted=True), "is encrypted"),
        (replace(room(A, ANN, agent_a=100), replaced_by=OTHER), f"was replaced by {OTHER}"),
        (replace(room(A), creation={"content": {"type": "m.space"}}), "is a space"),
    ],
)
def test_rooms_in_which_no_agent_can_live(seen: Room, what: str) -> None:
    one = the_only(plan_of([mapping()], found((ROOM, seen), has_admin=True), RULES))
    assert what in notes(one)
    assert (one.room_id, one.steps) == ("", (Step.LOGINS, Step.ROW))


def test_a_room_that_nobody_sees_is_not_taken_for_gone() -> None:
    old = {OLD: OldUser(OLD, Way.NONE, "the file has no password of it")}
    seen = found(accounts={}, old_users=old)
    one = the_only(plan_of([mapping(user_id=OLD)], seen, RULES))
    assert one.steps == ()
    assert f"if that is still there ({OLD}: the file has no password of it)" in notes(one)
    assert "homeserver.admin_username" in one.notes[0].remedy


def test_an_account_that_the_bridge_has_not_taken_is_taken() -> None:
    accounts = {A: Account(exists=True, sessions=2)}
    rows = [replace(row(room_id=None), applied={})]
    one = the_only(plan_of([mapping(room_id="")], found(accounts=accounts, rows=rows), RULES))
    assert one.steps == (Step.LOGINS, Step.ROW)
    rules = replace(RULES, keeps_logins=True)
    one = the_only(plan_of([mapping(room_id="")], found(accounts=accounts, rows=rows), rules))
    assert one.steps == (Step.ROW,)


def test_logins_stay_where_they_are_to() -> None:
    accounts = {A: Account(exists=True, sessions=2)}
    bot = Account(exists=True, sessions=1)
    seen = found((ROOM, room(A, BOT, agent_a=100)), accounts=accounts, bot=bot, has_admin=True)
    plan = plan_of([mapping()], seen, RULES)
    assert (the_only(plan).sessions, plan.bot_sessions) == (2, 1)
    assert Step.LOGINS in the_only(plan).steps
    plan = plan_of([mapping()], seen, replace(RULES, keeps_logins=True))
    assert (the_only(plan).steps, plan.bot_sessions) == (ALL, 0)


def test_the_admins_own_account_keeps_its_password() -> None:
    seen = found(bot=Account(exists=True, sessions=3), has_admin=True)
    assert plan_of([], seen, replace(RULES, admin=BOT)).is_done


def test_power_levels_that_are_texts_count() -> None:
    levels = {"invite": "50", "state_default": "50", "users": {A: "100", ANN: "0"}}
    seen = room_of({"sender": BOSS}, {"m.room.power_levels": levels}, [A, ANN])
    assert seen.is_powerful(A)
    assert seen.may_empower(A)
    assert not seen.is_powerful(ANN)


@pytest.mark.parametrize("joined", [True, False])
def test_who_answered_until_now_is_told_also_where_they_take_no_leave(joined: bool) -> None:
    """Without a way to act as them, or when they have left already."""
    people = (A, BOT, ANN, *([OLD] if joined else ()))
    seen = found((ROOM, room(*people, agent_a=100)), old_users={OLD: OldUser(OLD, Way.NONE)})
    one = the_only(plan_of([mapping(user_id=OLD)], seen, RULES))
    assert (one.old, one.before) == (None, OLD)
    # A person of the configuration answers for nobody.
    assert the_only(plan_of([mapping(user_id=ANN)], seen, RULES)).before == ""
