"""Whatever replica people and programs come to, they are served by the one that acts."""

from typing import Any

from tests.crash.checks import Words, asked, assert_goes_on
from tests.replicas.twins import One, Twins
from tests.waiting import within


async def called(twins: Twins, one: One, method: str, path: str, **body: Any) -> Any:
    """What the REST API of a replica answers to an admin."""
    headers = {"Authorization": f"Bearer {await twins.admin_token()}"}
    url = f"{one.url}/api/v1{path}"
    async with twins.http.request(method, url, json=body or None, headers=headers) as response:
        assert response.status < 300, await response.text()
        return await response.json()


async def test_every_replica_shows_the_same_agents(twins: Twins) -> None:
    room = await twins.new_room()
    shown = [await called(twins, one, "GET", "/agents") for one in twins.members]
    for answer in shown:
        assert room.agent_id in {agent["agent_id"] for agent in answer["agents"]}


async def test_health_tells_who_acts_and_who_stands_by(twins: Twins) -> None:
    active, other = await twins.active(), await twins.other()
    told = await active.health()
    assert told["replica"]["state"] == "active"
    # Those that were killed are told of for a while.
    heard = [one for one in told["replica"]["replicas"] if one["state"] != "silent"]
    known = {one["replica"]: one["state"] for one in heard}
    assert sorted(known.values()) == ["active", "standby"]
    assert known[(await other.health())["replica"]["replica"]] == "standby"
    assert "127.0.0.1" not in str(told)
    for one in (active, other):
        async with twins.http.get(f"{one.url}/ready") as response:
            assert response.status == 200
    whole = await called(twins, other, "GET", "/health")
    heard = [one for one in whole["replica"]["replicas"] if one["state"] != "silent"]
    places = {one["address"] for one in heard}
    assert places == {one.url.removeprefix("http://") for one in (active, other)}


async def test_an_event_stream_through_the_one_that_stands_by(twins: Twins) -> None:
    room, words, other = await twins.new_room(), Words.quick(), await twins.other()
    headers = {"Authorization": f"Bearer {await twins.admin_token()}"}
    async with twins.http.get(f"{other.url}/api/v1/overview/events", headers=headers) as stream:
        assert stream.status == 200
        assert await within(stream.content.readline())
        event_id = await twins.say(room, words.text)
        await assert_goes_on(twins, room, (event_id, words))
        assert await within(stream.content.readline())


async def test_a_tool_is_allowed_through_the_one_that_stands_by(twins: Twins) -> None:
    room, other = await twins.new_room(), await twins.other()
    event_id = await twins.say(room, "tool:Bash:echo hello")
    await asked(twins, room)
    waiting = await called(twins, other, "GET", "/approvals")
    (mine,) = [one for one in waiting["approvals"] if one["room_id"] == room.room_id]
    await called(twins, other, "POST", f"/approvals/{mine['key']}", decision="allow")
    await twins.settled(room, event_id)


async def test_a_stranger_learns_no_more_there(twins: Twins) -> None:
    other = await twins.other()
    async with twins.http.get(f"{other.url}/api/v1/agents") as response:
        assert response.status == 401
    assert "127.0.0.1" not in str(await other.health())
    for name in ("api", "mcp", "ws"):
        url = f"http://127.0.0.1:{other.ports[name]}/health"
        async with twins.http.get(url, headers={"Host": "evil.example"}) as response:
            told = await response.json()
        assert "replica" not in told
        assert "version" not in told
