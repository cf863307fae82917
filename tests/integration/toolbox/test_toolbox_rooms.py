"""Tools about rooms on a real homeserver: made once, joined as members, changed with care."""

import dataclasses
import secrets
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.bridge_world import Json, Person
from tests.integration.toolbox.toolbox_bench import Bench
from tests.stress import examples
from tests.tool_arguments import arguments as tool_arguments

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.matrix.api import Request
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.operations.toolbox.power import Powers
from letta_matrix.store.agents import Agent
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.database import StoreUnavailable

BOT = "@letta:localhost"


async def refused(bench: Bench, who: Agent | None, name: str, /, **arguments: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        await bench.call_as(who, name, **arguments)
    return caught.value


async def create(bench: Bench, who: Agent | None, **arguments: Any) -> str:
    """A room of an agent's or the bot's own, made by tool."""
    return str(
        (await bench.call_as(who, "matrix_create_room", name="Plans", **arguments))["room_id"]
    )


async def joined(bench: Bench, agent: Agent) -> set[str]:
    return set(await Intent(bench.client, agent.user_id).joined_rooms())


async def replace(bench: Bench, room_id: str) -> str:
    """Upgrade a room of the person's; the id of its successor."""
    path = f"/rooms/{quote(room_id)}/upgrade"
    _, answer = await bench.ann.call("POST", path, {"new_version": "11"})
    return str(answer["replacement_room"])


@pytest.mark.parametrize("as_bot", [False, True])
async def test_a_room_is_created_with_all_that_was_asked_for(
    bench: Bench, ada: Agent, bea: Agent, as_bot: bool
) -> None:
    who = None if as_bot else ada
    ghost = Intent(bench.client, BOT if as_bot else ada.user_id)
    space = await ghost.create_room({"name": "Work", "creation_content": {"type": "m.space"}})
    told = await bench.call_as(
        who,
        "matrix_create_room",
        name="Plans",
        topic="for\nall",
        invite=[bench.ann.user_id, bea.user_id, "@agent_nobody:localhost"],
        in_space=space,
    )
    room_id = told["room_id"]
    assert told["invited"] == [bench.ann.user_id, bea.user_id]
    (nobody,) = told["not_invited"]
    assert nobody["user_id"] == "@agent_nobody:localhost"
    assert told["space_id"] == space
    assert (await ghost.state(room_id, "m.room.topic"))["topic"] == "for\nall"
    assert (await ghost.state(room_id, "m.room.join_rules"))["join_rule"] == "invite"
    assert (await ghost.state(space, "m.space.child", room_id))["via"] == ["localhost"]
    assert (await ghost.state(room_id, "m.space.parent", space))["via"] == ["localhost"]
    assert set(bench.rooms.ours_in(room_id)) == {ghost.user_id, bea.user_id}
    assert set(await ghost.joined_members(room_id)) >= {ghost.user_id, bea.user_id}


async def test_anybody_may_join_a_public_room(bench: Bench, ada: Agent, bob: Person) -> None:
    room_id = await create(bench, ada, is_public=True)
    assert (await bob.call("POST", f"/rooms/{quote(room_id)}/join"))[0] == 200


async def test_a_call_that_was_killed_when_the_room_was_made_makes_no_second_one(
    bench: Bench, ada: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, make = await joined(bench, ada), Intent.create_room

    async def killed(self: Intent, *args: Any, **more: Any) -> str:
        await make(self, *args, **more)
        raise HomeserverUnavailable("killed")

    once = secrets.token_hex(8)
    arguments: Json = {"transaction_id": once, "invite": [bench.ann.user_id]}
    with monkeypatch.context() as patch:
        patch.setattr(Intent, "create_room", killed)
        error = await refused(bench, ada, "matrix_create_room", name="Plans", **arguments)
        assert error.fault is Fault.UNAVAILABLE
    made = await joined(bench, ada) - before
    bench.restart()
    told = await bench.call_as(ada, "matrix_create_room", name="Plans", **arguments)
    assert {told["room_id"]} == made == await joined(bench, ada) - before
    assert await bench.call_as(ada, "matrix_create_room", name="Plans", **arguments) == told
    assert await create(bench, ada, transaction_id=f"{once}-2") not in made
    error = await refused(bench, ada, "matrix_create_room", name="Other", transaction_id=once)
    assert error.fault is Fault.CONFLICT


async def test_a_room_whose_answer_was_lost_is_not_made_twice(
    bench: Bench, ada: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, once = await joined(bench, ada), bench.client._once
    lost: list[str] = []

    async def lose(asked: Request) -> Json:
        answer = await once(asked)
        if asked.path.endswith("/createRoom") and not lost:
            lost.append(str(answer["room_id"]))
            raise TimeoutError
        return answer

    monkeypatch.setattr(bench.client, "_once", lose)
    assert [await create(bench, ada)] == lost
    assert await joined(bench, ada) == {*before, *lost}


async def test_rooms_that_cannot_be_made_leave_nothing_behind(bench: Bench, ada: Agent) -> None:
    room_id = await bench.room(ada)
    before = await joined(bench, ada)
    cases: list[tuple[Json, Fault, str]] = [
        ({"in_space": room_id}, Fault.CONFLICT, "is no space"),
        ({"in_space": "Nowhere"}, Fault.NOT_FOUND, "is called 'Nowhere'"),
        ({"invite": ["bob"]}, Fault.INVALID, "invite.0"),
        ({"name": ""}, Fault.INVALID, "name"),
        ({"rooms": {ada.room_id, room_id}}, Fault.FORBIDDEN, "limited to its rooms"),
    ]
    for arguments, fault, why in cases:
        error = await refused(bench, ada, "matrix_create_room", **{"name": "Plans", **arguments})
        assert (error.fault, why in str(error)) == (fault, True), (arguments, str(error))
    assert await joined(bench, ada) == before


async def test_an_agent_that_joins_is_a_member(
    bench: Bench, ada: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    alias = f"open{secrets.token_hex(4)}"
    room_id = await bench.room(preset="public_chat", room_alias_name=alias, name="Open")
    before = len(await bench.ann.timeline(room_id))
    known: list[str] = []

    async def note(_intent: Intent, room_id: str, event_id: str) -> None:
        known.append(room_id)
        known.append(event_id)

    monkeypatch.setattr(bench.toolbox.membership, "on_entered", note)
    for ref in (room_id, f"#{alias}:localhost"):
        told = await bench.call_as(ada, "matrix_join_room", room_id_or_alias=ref)
        assert (told["room_id"], told["name"]) == (room_id, "Open")
    came = (await bench.ann.timeline(room_id))[before:]
    (event,) = [e for e in came if e["type"] == "m.room.member"]
    assert known == [room_id, event["event_id"]]
    assert bench.rooms.ours_in(room_id) == {ada.user_id: True}
    assert bench.rooms.since(room_id, ada.user_id) == event["origin_server_ts"] / 1000
    told = await bench.call_as(ada, "matrix_leave", room_id=room_id)
    assert told["membership"] == "leave"
    assert bench.rooms.ours_in(room_id) == {}


async def test_rooms_that_cannot_be_joined(bench: Bench, ada: Agent, bea: Agent) -> None:
    closed = await bench.room()
    await bench.visit(ada, bea)
    cases: list[tuple[Json, Fault, str]] = [
        ({"room_id_or_alias": closed}, Fault.FORBIDDEN, f"invite {ada.user_id}"),
        ({"room_id_or_alias": bea.room_id}, Fault.FORBIDDEN, "You are not in"),
        ({"room_id_or_alias": "!nowhere:localhost"}, Fault.NOT_FOUND, "no room"),
        ({"room_id_or_alias": "#nowhere:localhost"}, Fault.NOT_FOUND, "no room"),
        ({"room_id_or_alias": "Plans"}, Fault.INVALID, "no room id"),
        ({"room_id_or_alias": closed, "rooms": {ada.room_id}}, Fault.FORBIDDEN, "Your token"),
    ]
    for arguments, fault, why in cases:
        error = await refused(bench, ada, "matrix_join_room", **arguments)
        assert (error.fault, why in str(error)) == (fault, True), str(error)
    assert bench.rooms.ours_in(str(bea.room_id)) == {}


@pytest.mark.parametrize("as_bot", [False, True])
async def test_nobody_leaves_where_the_bridge_needs_them(
    bench: Bench, ada: Agent, as_bot: bool
) -> None:
    who = None if as_bot else ada
    error = await refused(bench, who, "matrix_leave", room_id=ada.room_id)
    assert (error.fault, "has to stay" in str(error)) == (Fault.FORBIDDEN, True)
    for tool in ("matrix_kick", "matrix_ban"):
        other = ada.user_id if as_bot else BOT
        error = await refused(bench, who, tool, room_id=ada.room_id, user_id=other)
        assert (error.fault, "has to stay" in str(error)) == (Fault.FORBIDDEN, True)
    error = await refused(
        bench, who, "matrix_set_power_level", room_id=ada.room_id, user_id=BOT, level=0
    )
    assert "needs its power" in str(error)


async def test_the_bot_stays_in_the_bridges_own_rooms(bench: Bench) -> None:
    bot = Intent(bench.client, BOT)
    alias = f"letta_x{secrets.token_hex(4)}"
    room_id = await bot.create_room({"room_alias_name": alias})
    error = await refused(bench, None, "matrix_leave", room_id=room_id)
    assert "has to stay" in str(error)
    assert "the bridge works with it" in str(error)
    about: Json = {"room_id": room_id, "user_id": BOT, "level": 0}
    error = await refused(bench, None, "matrix_set_power_level", **about)
    assert (error.fault, "needs its power" in str(error)) == (Fault.FORBIDDEN, True)


async def test_the_bot_declines_an_invitation(bench: Bench) -> None:
    room_id = await bench.room(invite=[BOT])
    told = await bench.call_as(None, "matrix_leave", room_id=room_id)
    assert told["membership"] == "leave"
    path = f"/rooms/{quote(room_id)}/state/m.room.member/{quote(BOT)}"
    assert (await bench.ann.call("GET", path))[1]["membership"] == "leave"


async def test_people_are_invited_removed_and_banned(bench: Bench, ada: Agent, bob: Person) -> None:
    room_id = await create(bench, ada)
    ghost = Intent(bench.client, ada.user_id)
    about: Json = {"room_id": room_id, "user_id": bob.user_id}
    for _ in range(2):
        told = await bench.call_as(ada, "matrix_invite", **about, reason="come")
        assert told["membership"] in ("invite", "join"), "the homeserver may take it for them"
    said = await ghost.messages(room_id, filters={"types": ["m.room.member"]})
    invites = [e["content"] for e in said.events if e["content"]["membership"] == "invite"]
    assert [invite["reason"] for invite in invites] == ["come"]
    await bob.call("POST", f"/rooms/{quote(room_id)}/join")
    assert (await bench.call_as(ada, "matrix_invite", **about))["membership"] == "join"
    assert (await bench.call_as(ada, "matrix_kick", **about))["membership"] == "leave"
    assert (await refused(bench, ada, "matrix_kick", **about)).fault is Fault.NOT_FOUND
    for _ in range(2):
        assert (await bench.call_as(ada, "matrix_ban", **about))["membership"] == "ban"
    assert (await ghost.state(room_id, "m.room.member", bob.user_id))["membership"] == "ban"
    assert (await bench.call_as(ada, "matrix_unban", **about))["membership"] == "leave"
    assert (await refused(bench, ada, "matrix_unban", **about)).fault is Fault.NOT_FOUND
    error = await refused(bench, ada, "matrix_kick", room_id=room_id, user_id=ada.user_id)
    assert "matrix_leave" in str(error)


async def test_an_agents_own_room_is_opened_by_admins(
    bench: Bench, ada: Agent, bob: Person
) -> None:
    about: Json = {"room_id": ada.room_id, "user_id": bob.user_id}
    for tool, more in (
        ("matrix_invite", {}),
        ("matrix_unban", {}),
        ("matrix_set_power_level", {"level": 1}),
    ):
        error = await refused(bench, ada, tool, **about, **more)
        assert (error.fault, "an agent's own room" in str(error)) == (Fault.FORBIDDEN, True)
        assert (await refused(bench, None, tool, **about, **more)).fault is Fault.FORBIDDEN
    assert bob.user_id not in await Intent(bench.client, ada.user_id).members(str(ada.room_id))


async def test_agents_come_when_they_are_invited_but_not_into_anothers_own_room(
    bench: Bench, ada: Agent
) -> None:
    carl, room_id = await bench.agent(), await create(bench, ada)
    about: Json = {"room_id": room_id, "user_id": carl.user_id}
    assert (await bench.call_as(ada, "matrix_invite", **about))["membership"] == "join"
    assert carl.user_id in bench.rooms.ours_in(room_id)
    own: Json = {"room_id": ada.room_id, "user_id": carl.user_id}
    error = await refused(bench, ada, "matrix_invite", **own)
    assert "Only people invite agents" in str(error)
    assert carl.user_id not in await Intent(bench.client, ada.user_id).members(str(ada.room_id))
    assert (await bench.call_as(None, "matrix_invite", **own))["membership"] == "join"
    ok, _ = await bench.call(carl, "matrix_read_room", room_id=ada.room_id)
    assert ok, "whom an operator brings is a member"
    unknown: Json = {"room_id": room_id, "user_id": "@agent_nobody:localhost"}
    assert (await refused(bench, ada, "matrix_invite", **unknown)).fault is Fault.NOT_FOUND


async def test_only_what_is_given_changes(bench: Bench, ada: Agent) -> None:
    room_id, ghost = await create(bench, ada, topic="old"), Intent(bench.client, ada.user_id)
    avatar = "mxc://localhost/abc"
    told = await bench.call_as(ada, "matrix_set_room", room_id=room_id, name="New", avatar=avatar)
    assert told["changed"] == ["name", "avatar"]
    assert await ghost.room_name(room_id) == "New"
    assert (await ghost.state(room_id, "m.room.topic"))["topic"] == "old"
    told = await bench.call_as(ada, "matrix_set_room", room_id="New", name="New", topic="")
    assert told["changed"] == ["topic"]
    told = await bench.call_as(ada, "matrix_set_room", room_id=room_id, avatar="")
    assert (told["changed"], await ghost.state(room_id, "m.room.avatar")) == (["avatar"], {})
    for arguments in ({}, {"avatar": "http://x/y"}, {"name": "a\nb"}, {"topic": "x" * 1001}):
        error = await refused(bench, ada, "matrix_set_room", room_id=room_id, **arguments)
        assert error.fault is Fault.INVALID


@pytest.mark.parametrize("version", ["11", "12"])
async def test_power_is_given_and_taken(
    bench: Bench, ada: Agent, bob: Person, version: str
) -> None:
    ghost = Intent(bench.client, ada.user_id)
    room_id = await ghost.create_room({"room_version": version, "preset": "public_chat"})
    about: Json = {"room_id": room_id, "user_id": bob.user_id}
    told = await bench.call_as(ada, "matrix_set_power_level", **about, level=50)
    assert (told["before"], told["level"]) == (0, 50)
    levels = await ghost.state(room_id, "m.room.power_levels")
    assert levels["users"][bob.user_id] == 50
    await bench.call_as(ada, "matrix_set_power_level", **about, level=0)
    changed = await ghost.state(room_id, "m.room.power_levels")
    assert changed == {**levels, "users": {k: v for k, v in levels["users"].items() if v != 50}}
    own: Json = {"room_id": room_id, "user_id": ada.user_id}
    error = await refused(bench, ada, "matrix_set_power_level", **own, level=0)
    why = "stands above all levels" if version == "12" else "nobody could change"
    assert (error.fault, why in str(error)) == (Fault.CONFLICT, True)
    plain = await bench.room(ada)
    error = await refused(
        bench, ada, "matrix_set_power_level", room_id=plain, user_id=bob.user_id, level=50
    )
    assert (error.fault, "Your power level here is 0" in str(error)) == (Fault.FORBIDDEN, True)


async def test_a_room_is_put_into_a_space(bench: Bench, ada: Agent) -> None:
    ghost = Intent(bench.client, ada.user_id)
    space = await ghost.create_room({"name": "Work", "creation_content": {"type": "m.space"}})
    theirs = await bench.room(ada)
    arguments: Json = {"space_id": space, "room_id": theirs}
    told = await bench.call_as(ada, "matrix_add_to_space", **arguments)
    assert "does not name the space" in told["note"], "nobody asked the room"
    assert (await ghost.state(space, "m.space.child", theirs))["via"] == ["localhost"]
    for space_id, why in ((theirs, "is no space"), (space, "in itself")):
        wrong: Json = {"space_id": space_id, "room_id": space}
        assert why in str(await refused(bench, ada, "matrix_add_to_space", **wrong))


async def test_who_acts_in_a_room_that_was_replaced_hears_of_its_successor(
    bench: Bench, ada: Agent, bea: Agent, bob: Person
) -> None:
    old = await bench.room(ada, preset="public_chat")
    new = await replace(bench, old)
    cases: list[tuple[str, Json]] = [
        ("matrix_invite", {"user_id": bob.user_id}),
        ("matrix_kick", {"user_id": bob.user_id}),
        ("matrix_unban", {"user_id": bob.user_id}),
        ("matrix_set_room", {"name": "x"}),
        ("matrix_set_power_level", {"user_id": bob.user_id, "level": 50}),
        ("matrix_send_message", {"message": "hi"}),
        ("ask_human", {"question": "hm?"}),
    ]
    for tool, arguments in cases:
        error = await refused(bench, ada, tool, room_id=old, **arguments)
        assert (error.fault, f"replaced by {new}" in str(error)) == (Fault.CONFLICT, True), tool
    told = await bench.call_as(bea, "matrix_join_room", room_id_or_alias=old)
    assert (told["successor"], new in told["note"]) == (new, True)
    assert (await bench.call_as(ada, "matrix_leave", room_id=old))["membership"] == "leave"


async def test_a_token_stays_in_its_rooms(bench: Bench, ada: Agent, bob: Person) -> None:
    inside, outside = await create(bench, ada), await create(bench, ada)
    about: Json = {"user_id": bob.user_id}
    cases: list[tuple[str, Json]] = [
        ("matrix_invite", {"room_id": outside, **about}),
        ("matrix_kick", {"room_id": outside, **about}),
        ("matrix_ban", {"room_id": outside, **about}),
        ("matrix_unban", {"room_id": outside, **about}),
        ("matrix_leave", {"room_id": outside}),
        ("matrix_set_room", {"room_id": outside, "name": "x"}),
        ("matrix_set_power_level", {"room_id": outside, "level": 1, **about}),
        ("matrix_add_to_space", {"room_id": inside, "space_id": outside}),
        ("matrix_add_to_space", {"room_id": outside, "space_id": inside}),
        ("matrix_join_room", {"room_id_or_alias": outside}),
        ("ask_human", {"room_id": outside, "question": "hm?"}),
        ("ask_human", {"question": "in my own room?"}),
        ("wait_for_message", {"room_id": outside}),
    ]
    for tool, arguments in cases:
        error = await refused(bench, ada, tool, rooms={inside}, **arguments)
        assert (error.fault, "Your token is not for" in str(error)) == (Fault.FORBIDDEN, True)
    told = await bench.call_as(ada, "matrix_invite", rooms={inside}, room_id=inside, **about)
    assert told["room_id"] == inside


async def test_a_token_for_some_rooms_invites_only_agents_it_knows(
    bench: Bench, ada: Agent, bea: Agent
) -> None:
    room_id = await create(bench, ada)
    about: Json = {"room_id": room_id, "user_id": bea.user_id}
    error = await refused(bench, ada, "matrix_invite", rooms={room_id}, **about)
    assert (error.fault, "There is no agent" in str(error)) == (Fault.NOT_FOUND, True)
    assert bea.user_id not in await Intent(bench.client, ada.user_id).members(room_id)
    known = {room_id, str(bea.room_id)}
    told = await bench.call_as(ada, "matrix_invite", rooms=known, **about)
    assert told["membership"] == "join"


async def test_a_token_for_some_rooms_brings_in_no_media_as_an_avatar(
    bench: Bench, ada: Agent
) -> None:
    room_id, ghost = await create(bench, ada), Intent(bench.client, ada.user_id)
    wanted: Json = {"rooms": {room_id}, "room_id": room_id, "name": "New"}
    error = await refused(bench, ada, "matrix_set_room", **wanted, avatar="mxc://localhost/abc")
    assert (error.fault, "cannot set an `avatar`" in str(error)) == (Fault.FORBIDDEN, True)
    assert await ghost.room_name(room_id) == "Plans", "nothing is half done"
    assert await ghost.state(room_id, "m.room.avatar") == {}
    told = await bench.call_as(ada, "matrix_set_room", **wanted, avatar="")
    assert told["changed"] == ["name"]


@pytest.fixture(scope="module")
async def fuzzed(bench: Bench, bea: Agent, bob: Person) -> tuple[Agent, Json]:
    """An agent, and what exists for it to be named."""
    ada = await bench.agent()
    ghost = Intent(bench.client, ada.user_id)
    space = await ghost.create_room({"creation_content": {"type": "m.space"}})
    room_id = await ghost.create_room({"name": "Fuzzed", "invite": [bob.user_id, BOT]})
    rooms = [str(ada.room_id), str(bea.room_id), room_id, space, "Fuzzed"]
    users = [ada.user_id, bea.user_id, bob.user_id, bench.ann.user_id, BOT]
    known: Json = {"room_id": rooms, "room_id_or_alias": rooms, "space_id": [space, room_id]}
    return ada, {**known, "user_id": users, "from_user": users, "agent": [bea.name, *users]}


@given(st.data())
@settings(max_examples=examples(30, searching=80))
async def test_nothing_that_is_said_to_a_tool_breaks_it(
    bench: Bench, fuzzed: tuple[Agent, Json], data: st.DataObject
) -> None:
    ada, known = fuzzed
    mine = [t for t in bench.toolbox.tools.values() if t.scope in (Scope.ROOMS, Scope.AGENTS)]
    tool = data.draw(st.sampled_from(sorted(mine, key=lambda one: one.name)))
    who = data.draw(st.sampled_from([ada, None]))
    arguments = data.draw(tool_arguments(tool.parameters, **known))
    for waits in ("timeout_seconds", "wait_seconds"):
        if waits in tool.parameters["properties"]:
            arguments[waits] = data.draw(st.sampled_from([0.1, 1, 0, "x"]))
    faults: list[ToolError] = []
    try:
        await bench.call_as(who, tool.name, **arguments)
    except ToolError as error:
        faults.append(error)
    broken = (Fault.FAILED, Fault.TIMEOUT, Fault.UNAVAILABLE)
    assert [str(fault) for fault in faults if fault.fault in broken] == []
    ghost = Intent(bench.client, ada.user_id)
    assert {ada.user_id, BOT} <= set(await ghost.joined_members(str(ada.room_id)))
    for room_id in await ghost.joined_rooms():
        Powers(await ghost.state(room_id, "m.room.power_levels"), await ghost.creation(room_id))


@pytest.mark.parametrize("is_killed", [True, False])
async def test_a_room_is_still_found_by_its_name_when_its_renaming_comes_again(
    bench: Bench, ada: Agent, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    room_id = await create(bench, ada)
    name = secrets.token_hex(6)
    await bench.call_as(ada, "matrix_set_room", room_id=room_id, name=name)
    tool = bench.toolbox.tools["matrix_set_room"]

    async def lose(*arguments: Any) -> Any:
        await tool.run(*arguments)
        raise ToolError("lost", Fault.TIMEOUT)

    async def end(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("killed")

    given: Json = {"room_id": name, "name": f"new {name}", "transaction_id": secrets.token_hex(6)}
    with monkeypatch.context() as patch:
        patch.setattr(bench.toolbox, "tools", {tool.name: dataclasses.replace(tool, run=lose)})
        if is_killed:
            patch.setattr(AuditStore, "end", end)
        with pytest.raises(ToolError, match="lost"):
            await bench.call_as(ada, "matrix_set_room", **given)
        await bench.toolbox.close()
    bench.restart()
    # By now another room has the name.
    await bench.call_as(ada, "matrix_create_room", name=name)
    told = await bench.call_as(ada, "matrix_set_room", **given)
    assert told["room_id"] == room_id
