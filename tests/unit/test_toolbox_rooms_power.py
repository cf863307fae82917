"""Power levels are changed only so that the room can still be run."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.operations.toolbox.power import HIGHEST, Powers

ADA, BOB, EVE = "@ada:test", "@bob:test", "@eve:test"
USERS = [ADA, BOB, EVE]
OLD: dict[str, Any] = {"sender": ADA, "content": {"room_version": "11"}}
NEW: dict[str, Any] = {
    "sender": ADA,
    "content": {"room_version": "12", "additional_creators": [BOB, 7]},
}


def levels(**users: int) -> dict[str, Any]:
    named = {f"@{name}:test": level for name, level in users.items()}
    return {"users": named, "events": {"m.room.power_levels": 100}, "ban": 50}


def test_a_level_is_changed_and_nothing_else() -> None:
    before, content = Powers(levels(ada=100, eve=5), OLD).changed(ADA, BOB, 50)
    assert before == 0
    assert content == levels(ada=100, eve=5, bob=50)


def test_whoever_has_the_default_is_not_listed() -> None:
    before, content = Powers(levels(ada=100, bob=50), OLD).changed(ADA, BOB, 0)
    assert (before, content) == (50, levels(ada=100))


@pytest.mark.parametrize(
    ("content", "create", "actor", "user", "level", "why"),
    [
        ({}, OLD, ADA, BOB, 50, "missing or broken"),
        ({"users": {ADA: "100"}}, OLD, ADA, BOB, 50, "missing or broken"),
        ({"users": {ADA: True}}, OLD, ADA, BOB, 50, "missing or broken"),
        ({"users": [ADA]}, OLD, ADA, BOB, 50, "missing or broken"),
        ({"users": {ADA: 100}, "ban": None}, OLD, ADA, BOB, 50, "missing or broken"),
        (levels(ada=99), OLD, ADA, BOB, 50, "needs 100"),
        (levels(ada=100), OLD, ADA, BOB, 101, "than your own level, 100"),
        (levels(ada=100, bob=100), OLD, ADA, BOB, 0, "has as much power"),
        (levels(ada=100, bob=99), OLD, ADA, ADA, 99, "nobody could change"),
        (levels(), NEW, ADA, ADA, 50, "stands above all levels"),
        (levels(), NEW, ADA, BOB, 50, "stands above all levels"),
        (levels(eve=50), NEW, EVE, EVE, 0, "needs 100"),
    ],
)
def test_what_would_break_a_room_is_refused(
    content: Any, create: Any, actor: str, user: str, level: int, why: str
) -> None:
    with pytest.raises(ToolError, match=why) as caught:
        Powers(content, create).changed(actor, user, level)
    assert caught.value.fault in (Fault.CONFLICT, Fault.FORBIDDEN)


def test_a_creator_needs_no_level() -> None:
    assert Powers(levels(), NEW).changed(BOB, EVE, HIGHEST)[1]["users"] == {EVE: HIGHEST}
    hydra = {"sender": ADA, "content": {"room_version": "org.matrix.hydra.11"}}
    assert Powers(levels(), hydra).changed(ADA, EVE, 100)[0] == 0


INTEGERS = st.integers(-HIGHEST, HIGHEST) | st.sampled_from([0, 50, 100])
ODD = INTEGERS | st.none() | st.booleans() | st.text(max_size=3) | st.floats()
CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "users": st.dictionaries(st.sampled_from(USERS), INTEGERS | INTEGERS | ODD) | ODD,
        "events": st.dictionaries(st.just("m.room.power_levels"), INTEGERS | INTEGERS | ODD),
        "users_default": INTEGERS | INTEGERS | ODD,
        "state_default": INTEGERS | INTEGERS | ODD,
    },
)


@given(
    CONTENTS,
    st.sampled_from([OLD, NEW, {}]),
    st.sampled_from(USERS),
    st.sampled_from(USERS),
    INTEGERS,
)
def test_whatever_the_levels_are_the_outcome_is_sound(
    content: dict[str, Any], create: dict[str, Any], actor: str, user: str, level: int
) -> None:
    try:
        powers = Powers(content, create)
        before, changed = powers.changed(actor, user, level)
    except ToolError:
        return
    after = Powers(changed, create)
    assert (powers.of(user), after.of(user)) == (before, level)
    assert all(after.of(other) == powers.of(other) for other in USERS if other != user)
    rest = {key: value for key, value in changed.items() if key != "users"}
    assert rest == {key: value for key, value in content.items() if key != "users"}
    assert level <= powers.of(actor)
