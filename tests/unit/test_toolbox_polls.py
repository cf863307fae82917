"""Counting the votes of polls, as clients of either form (MSC3381) cast them."""

from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from tests.builders import agent, config_for
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.tool_results import assert_declared
from tests.toolbox_kit import toolbox_on

from letta_matrix.access.principal import Principal
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.operations.toolbox.registry import Toolbox
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database

Json = dict[str, Any]
UNSTABLE = "org.matrix.msc3381.poll"
TEXT = "org.matrix.msc1767.text"
START: Json = {
    f"{UNSTABLE}.start": {
        "question": {TEXT: "Lunch?"},
        "max_selections": 2,
        "answers": [{"id": "s", TEXT: "Soup"}, {"id": "c", TEXT: "Cake"}, {"id": "t", TEXT: "Tea"}],
    }
}
STABLE: Json = {
    "m.poll.start": {
        "question": {"m.text": [{"body": "Lunch?"}]},
        "max_selections": 2,
        "answers": [
            {"m.id": key, "m.text": [{"body": text}]}
            for key, text in (("s", "Soup"), ("c", "Cake"), ("t", "Tea"))
        ],
    }
}


@pytest.fixture
async def toolbox(
    tmp_path: Any, homeserver: Homeserver, database: Database, directory: AgentDirectory
) -> AsyncGenerator[Toolbox]:
    await directory.reserve([agent(1)])
    async with toolbox_on(config_for(tmp_path), homeserver, directory, database) as made:
        yield made


def poll(content: Json, kind: str = f"{UNSTABLE}.start") -> Fault:
    return Fault(200, {"event_id": "$p", "type": kind, "sender": "@ann:test", "content": content})


def vote(who: str, at: object, *chosen: str) -> Json:
    content = {f"{UNSTABLE}.response": {"answers": list(chosen)}}
    event = {"type": f"{UNSTABLE}.response", "sender": who, "origin_server_ts": at}
    return {"event_id": f"${who}{at}", "content": content, **event}


def end(at: int, sender: str = "@ann:test") -> Json:
    event: Json = {"type": f"{UNSTABLE}.end", "sender": sender, "origin_server_ts": at}
    return {"event_id": f"$end{at}", "content": {}, **event}


async def standing(
    toolbox: Toolbox,
    fake: FakeHomeserver,
    start: Fault,
    *events: Json,
    room: Mapping[str, Json] = MappingProxyType({}),
) -> Json:
    """How a poll stands; `room` is state of its room."""
    # What an earlier poll has not asked for.
    fake._faults.clear()
    fake.fail("GET .*/event/", start)
    fake.fail("GET .*/relations/", Fault(200, {"chunk": list(events)}))
    for kind, content in room.items():
        fake.fail(f"GET .*{kind}", Fault(200, content))
    arguments = {"room_id": "!1:test", "event_id": "$p"}
    principal = Principal("token:1", "agent-1")
    told = dict(await toolbox.call(principal, "matrix_read_poll", arguments, door="api"))
    assert_declared(toolbox.tools["matrix_read_poll"], told)
    return told


VOTES: list[tuple[list[Json], list[int], int, bool]] = [
    ([], [0, 0, 0], 0, False),
    ([vote("@b", 2, "c"), vote("@b", 1, "s")], [0, 1, 0], 1, False),
    ([vote("@b", 1, "s", "c"), vote("@c", 1, "s")], [2, 1, 0], 2, False),
    ([vote("@b", 1, "s", "s", "c", "t")], [1, 1, 0], 1, False),
    ([vote("@b", 1, "x")], [0, 0, 0], 0, False),
    ([vote("@b", 1, "s", "x")], [0, 0, 0], 0, False),
    ([vote("@b", 1, "s"), vote("@b", 2, "s", "c", "x")], [0, 0, 0], 0, False),
    ([vote("@b", 1, "s"), vote("@b", 2)], [0, 0, 0], 0, False),
    ([vote("@b", 3, "s"), end(2), vote("@c", 1, "c")], [0, 1, 0], 1, True),
    ([vote("@b", 3, "s"), end(5), end(2)], [0, 0, 0], 0, True),
    ([vote("@b", "odd", "s"), {"type": f"{UNSTABLE}.response"}, {}], [1, 0, 0], 1, False),
]


async def test_the_last_vote_of_each_before_the_end_counts(
    toolbox: Toolbox, fake: FakeHomeserver, subtests: pytest.Subtests
) -> None:
    for events, votes, voters, closed in VOTES:
        with subtests.test(events=events):
            told = await standing(toolbox, fake, poll(START), *events)
            assert [option["votes"] for option in told["options"]] == votes
            assert (told["voters"], told["closed"]) == (voters, closed)


POWERS: list[tuple[str, Json, bool]] = [
    ("11", {"users": {"@mod:test": 50}}, True),
    ("11", {"users": {"@mod:test": 50}, "redact": 51}, False),
    ("11", {"users_default": 50}, True),
    ("11", {"users": {"@mod:test": 49}}, False),
    ("11", {}, False),
    ("12", {}, True),
]


async def test_one_who_may_remove_messages_may_close_a_poll(
    toolbox: Toolbox, fake: FakeHomeserver, subtests: pytest.Subtests
) -> None:
    ends = [end(2, "@mod:test"), vote("@b", 3, "s")]
    for version, levels, closed in POWERS:
        content = {"room_version": version, "additional_creators": ["@mod:test"]}
        room = {
            "m.room.create": {"sender": "@ann:test", "content": content},
            "m.room.power_levels": levels,
        }
        with subtests.test(version=version, levels=levels):
            told = await standing(toolbox, fake, poll(START), *ends, room=room)
            assert (told["closed"], told["voters"]) == (closed, 0 if closed else 1)


async def test_polls_of_the_stable_form_count_too(toolbox: Toolbox, fake: FakeHomeserver) -> None:
    choice = vote("@b", 1) | {"type": "m.poll.response", "content": {"m.selections": ["t"]}}
    told = await standing(toolbox, fake, poll(STABLE, "m.poll.start"), choice)
    assert told["question"] == "Lunch?"
    assert told["options"] == [
        {"text": "Soup", "votes": 0},
        {"text": "Cake", "votes": 0},
        {"text": "Tea", "votes": 1},
    ]


ODD: list[Any] = [None, [], "x", [None, {"id": []}, {TEXT: 7}], {"body": {}}]


async def test_odd_polls_are_read_as_far_as_they_go(
    toolbox: Toolbox, fake: FakeHomeserver, subtests: pytest.Subtests
) -> None:
    for odd in ODD:
        with subtests.test(odd=odd):
            asked = {"question": odd, "answers": odd, "max_selections": "x"}
            start = poll({f"{UNSTABLE}.start": asked})
            assert (await standing(toolbox, fake, start))["voters"] == 0
