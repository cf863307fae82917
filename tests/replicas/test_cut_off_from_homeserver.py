"""The replica that acts does not reach the homeserver: one that does takes its place, if any."""

from tests.crash.checks import Words, assert_goes_on, growth
from tests.replicas.twins import One, Twins
from tests.waiting import eventually


async def knows(one: One, other: One, *, reaches: bool) -> None:
    """Wait until one has heard of another whether that reaches the homeserver."""
    replica_id = (await other.told())["replica"]

    async def is_known() -> bool:
        return await one.reaches(replica_id) is reaches

    await eventually(is_known, what="the other one is known to reach it, or not to")


async def test_it_makes_way_and_does_not_come_back(twins: Twins) -> None:
    words, active, other = Words.quick(), await twins.active(), await twins.other()
    room = await twins.new_room()
    await knows(active, other, reaches=True)
    await active.home.down()
    event_id = await twins.say(room, words.text)
    await twins.acts(other)
    # What comes to the one that is cut off is served all the same.
    await twins.settled_states()
    await twins.settled(room, event_id)
    await knows(other, active, reaches=False)
    assert "does not reach the homeserver" in str((await active.health())["troubles"])
    assert "does not reach the homeserver" in str((await other.health())["warnings"])
    await active.home.up()
    await knows(other, active, reaches=True)
    await assert_goes_on(twins, room, (event_id, words))
    assert await twins.active() is other


async def test_in_mid_answer(twins: Twins) -> None:
    words, active, other = Words.held(), await twins.active(), await twins.other()
    room = await twins.new_room()
    await knows(active, other, reaches=True)
    event_id = await twins.say(room, words.text)
    await growth(twins, room, words)
    active.home.part()
    twins.steps.step(words.text)
    await twins.acts(other)
    await growth(twins, room, words, 3)
    await active.home.mend()
    twins.steps.finish(words.text)
    await assert_goes_on(twins, room, (event_id, words))


async def test_nobody_makes_way_where_nobody_reaches_it(twins: Twins) -> None:
    words, active, other = Words.quick(), await twins.active(), await twins.other()
    room, epoch = await twins.new_room(), (await active.told())["epoch"]
    await knows(active, other, reaches=True)
    for one in twins.members:
        await one.home.down()
    event_id = await twins.say(room, words.text)
    await knows(active, other, reaches=False)
    for one in twins.members:
        await one.home.up()
    await assert_goes_on(twins, room, (event_id, words))
    await knows(active, other, reaches=True)
    assert ((await active.told())["epoch"], await active.state()) == (epoch, "active")


async def test_it_makes_way_for_who_is_the_first_to_reach_it_again(twins: Twins) -> None:
    words, active, other = Words.quick(), await twins.active(), await twins.other()
    room = await twins.new_room()
    for one in twins.members:
        await one.home.down()
    event_id = await twins.say(room, words.text)
    await knows(active, other, reaches=False)
    assert (await active.state(), (await active.health())["ready"]) == ("active", False)
    await other.home.up()
    await twins.acts(other)
    await twins.settled(room, event_id)
    await active.home.up()
    await assert_goes_on(twins, room, (event_id, words))
