"""A replica that is not configured as the others says so, and does no harm."""

import signal
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.crash.checks import Words, assert_goes_on
from tests.replicas.twins import One, Twins
from tests.waiting import eventually


@pytest.fixture
async def unlike(twins: Twins, tmp_path: Path) -> AsyncGenerator[Callable[..., One]]:
    """Starts one more replica, with other settings."""
    made: list[One] = []

    def start(**sections: dict[str, Any]) -> One:
        like, database = twins.members[0], twins.database
        assert database is not None
        made.append(One(tmp_path, twins.http, like.way, like.home))
        common = twins.common()
        changed = {name: {**common.get(name, {}), **part} for name, part in sections.items()}
        made[-1].write_config({**common, **changed}, str(database.database), "bridge")
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        await one.end()
    await twins.settled_states()


async def says(one: One, words: str) -> None:
    async def is_said() -> bool:
        return words in str((await one.health()).get("troubles"))

    await eventually(is_said, what=f"its health says: {words}")


async def test_one_of_another_homeserver(twins: Twins, unlike: Callable[..., One]) -> None:
    """It would move all agents there, and forget their rooms."""
    room, words = await twins.new_room(), Words.quick()
    stranger = unlike(homeserver={"domain": "elsewhere.example"}, agents={"room_members": []})
    await says(stranger, "this replica cannot take over; its log says why")
    assert "homeserver.domain of this replica is elsewhere.example" in stranger.log()
    await twins.stop()

    async def is_alone() -> bool:
        known = (await stranger.told()).get("replicas", [])
        # Those that were killed are told of for a while.
        return [one["state"] for one in known if one["state"] != "silent"] == ["standby"]

    await eventually(is_alone, what="it knows of no other any more")
    event_id = await twins.say(room, words.text)
    await twins.start_all()
    assert await stranger.state() == "standby"
    await assert_goes_on(twins, room, (event_id, words))


async def test_one_with_other_settings(twins: Twins, unlike: Callable[..., One]) -> None:
    other = unlike(conversations={"edit_interval": 0.7}, appservice={"hs_token": "another"})
    await says(other, "is not that of the one that acts, in appservice, conversations:")
    assert (await other.health())["ready"] is True
    assert "another" not in other.log().replace("another letta", "")


async def test_one_that_acts_at_an_address_where_nobody_reaches_it(
    twins: Twins, unlike: Callable[..., One]
) -> None:
    await twins.stop()
    lost = unlike(replica={"address": "no-such-host.invalid"})
    await twins.acts(lost)
    one, _ = twins.members
    one.start()
    await says(one, "the replica that acts is not reached from here")
    async with twins.http.get(f"{one.url}/ready") as response:
        assert response.status == 503
    await lost.end(signal.SIGKILL)
    await twins.start_all()
