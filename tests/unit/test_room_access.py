"""Power levels that are changed as far as the one who changes them may."""

from typing import Any

import pytest

from letta_matrix.agents.room_access import _levels

GHOST, BOSS, ANN = "@agent_1:test", "@root:test", "@ann:test"


@pytest.mark.parametrize(
    ("users", "before", "people", "after"),
    [
        ({}, {}, {BOSS: 100, ANN: 10}, {BOSS: 100, ANN: 10}),
        # What people of the room gave is theirs.
        ({ANN: 50}, {}, {ANN: 10}, {ANN: 50}),
        ({ANN: 50}, {ANN: 10}, {ANN: 10}, {ANN: 50}),
        # Whom we gave more than they are to have now.
        ({BOSS: 100}, {BOSS: 100}, {BOSS: 10}, {BOSS: 10}),
        ({BOSS: 100, ANN: 10}, {BOSS: 100, ANN: 10}, {BOSS: 100}, {BOSS: 100}),
        # Nobody takes power from their equals: the rest is changed all the same.
        (
            {GHOST: 100, BOSS: 100},
            {BOSS: 100},
            {ANN: 10},
            {GHOST: 100, BOSS: 100, ANN: 10},
        ),
        ({GHOST: 100, BOSS: 100}, {BOSS: 100}, {BOSS: 10}, {GHOST: 100, BOSS: 100}),
    ],
)
def test_levels(
    users: dict[str, int],
    before: dict[str, int],
    people: dict[str, int],
    after: dict[str, int],
) -> None:
    levels: dict[str, Any] = {"users": users, "kick": 50}
    assert _levels(levels, people, before, GHOST) == {"users": after, "kick": 50, "invite": 10}


def test_who_may_invite_is_not_widened() -> None:
    assert _levels({"invite": 60}, {}, {}, GHOST)["invite"] == 60
