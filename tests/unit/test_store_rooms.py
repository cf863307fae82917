"""Who of us is where, and how agents behave there, survives a restart."""

from letta_matrix.store.database import Database
from letta_matrix.store.rooms import Rooms, RoomSettings

ON_BOTH = True

GHOST, OTHER = "@agent_1:test", "@agent_2:test"
ANN, BOB = "@ann:test", "@bob:test"


async def reloaded(database: Database) -> Rooms:
    rooms = Rooms(database)
    await rooms.load()
    return rooms


async def test_who_joined_is_known(database: Database) -> None:
    rooms = Rooms(database)
    await rooms.joined("!a:test", GHOST, direct=True)
    await rooms.joined("!a:test", OTHER, direct=False)
    await rooms.joined("!b:test", GHOST, direct=False)
    for known in (rooms, await reloaded(database)):
        assert known.ours_in("!a:test") == {GHOST: True, OTHER: False}
        assert sorted(known.rooms_of(GHOST)) == ["!a:test", "!b:test"]
        assert known.rooms_of(OTHER) == ["!a:test"]
        assert known.ours_in("!c:test") == {}


async def test_joining_again_counts_once_with_the_newest_purpose(database: Database) -> None:
    rooms = Rooms(database)
    await rooms.joined("!a:test", GHOST, direct=True)
    await rooms.joined("!a:test", GHOST, direct=False)
    for known in (rooms, await reloaded(database)):
        assert known.ours_in("!a:test") == {GHOST: False}


async def test_who_left_is_forgotten(database: Database) -> None:
    rooms = Rooms(database)
    await rooms.joined("!a:test", GHOST, direct=False)
    await rooms.joined("!a:test", OTHER, direct=False)
    await rooms.left("!a:test", GHOST)
    await rooms.left("!a:test", GHOST)
    await rooms.left("!a:test", "@ann:test")
    await rooms.left("!unknown:test", OTHER)
    for known in (rooms, await reloaded(database)):
        assert known.ours_in("!a:test") == {OTHER: False}
        assert known.rooms_of(GHOST) == []


async def test_settings_are_each_agents_own_in_each_room(database: Database) -> None:
    rooms = Rooms(database)
    assert rooms.settings("agent-1", "!a:test") == RoomSettings(paused=False, tool_activity=None)
    await rooms.change_settings("agent-1", "!a:test", paused=True)
    await rooms.change_settings("agent-1", "!a:test", tool_activity=False)
    await rooms.change_settings("agent-2", "!a:test", tool_activity=True)
    for known in (rooms, await reloaded(database)):
        assert known.settings("agent-1", "!a:test") == RoomSettings(True, False)
        assert known.settings("agent-2", "!a:test") == RoomSettings(False, True)
        assert known.settings("agent-1", "!b:test") == RoomSettings()


async def test_settings_can_be_taken_back(database: Database) -> None:
    rooms = Rooms(database)
    await rooms.change_settings("agent-1", "!a:test", paused=True, tool_activity=False)
    await rooms.change_settings("agent-1", "!a:test", paused=False, tool_activity=None)
    for known in (rooms, await reloaded(database)):
        assert known.settings("agent-1", "!a:test") == RoomSettings()


async def test_an_old_leave_that_comes_again_counts_for_nothing(database: Database) -> None:
    rooms = Rooms(database)
    await rooms.joined("!a:test", GHOST, direct=True, since=100.0)
    await rooms.left("!a:test", GHOST, 99.0)
    assert rooms.ours_in("!a:test") == {GHOST: True}
    await rooms.left("!a:test", GHOST, 101.0)
    assert rooms.ours_in("!a:test") == {}


async def test_who_is_there_decides_whether_it_is_for_two(database: Database) -> None:
    rooms = Rooms(database)
    await rooms.joined("!a:test", GHOST, direct=True, since=100.0)
    assert rooms.people_in("!a:test") is None
    await rooms.seen("!a:test", {ANN})
    steps = [(BOB, True, False), (ANN, True, False), (BOB, False, True), ("@eve:test", False, True)]
    for user_id, is_here, direct in steps:
        await rooms.moved("!a:test", user_id, is_here=is_here)
        for one in (rooms, await reloaded(database)):
            assert one.ours_in("!a:test") == {GHOST: direct}
            assert one.since("!a:test", GHOST) == 100.0
    assert rooms.people_in("!a:test") == {ANN}
    await rooms.seen("!a:test", {ANN, BOB})
    await rooms.joined("!a:test", OTHER, direct=True)
    assert (await reloaded(database)).ours_in("!a:test") == {GHOST: False, OTHER: False}


async def test_what_is_not_known_is_not_changed(database: Database) -> None:
    rooms = Rooms(database)
    await rooms.joined("!a:test", GHOST, direct=True)
    await rooms.moved("!a:test", BOB, is_here=True)
    assert (rooms.ours_in("!a:test"), rooms.people_in("!a:test")) == ({GHOST: True}, None)
    assert (rooms.moves("!a:test"), rooms.moves("!b:test")) == (1, 0)


async def test_who_moves_while_it_is_looked_is_seen(database: Database) -> None:
    rooms = Rooms(database)
    await rooms.joined("!a:test", GHOST, direct=True)
    answers = [{ANN}, {ANN, BOB}]

    async def ask() -> set[str]:
        answer = answers.pop(0)
        if answers:
            await rooms.moved("!a:test", BOB, is_here=True)
        return answer

    await rooms.learn("!a:test", ask)
    assert rooms.people_in("!a:test") == {ANN, BOB}
    assert rooms.ours_in("!a:test") == {GHOST: False}


async def test_where_nobody_of_us_is_left_nothing_is_known(database: Database) -> None:
    rooms = Rooms(database)
    await rooms.joined("!a:test", GHOST, direct=True)
    await rooms.seen("!a:test", {ANN})
    assert rooms.all() == ["!a:test"]
    await rooms.left("!a:test", GHOST)
    assert (rooms.all(), rooms.people_in("!a:test")) == ([], None)
