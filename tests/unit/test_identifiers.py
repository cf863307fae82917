"""User ids and aliases: the contract, the escapes, injectivity, length."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from letta_matrix.common.identifiers import ghost_localpart, room_alias, user_id


@pytest.mark.parametrize(
    ("agent_id", "localpart"),
    [
        (
            "agent-e54fc601-4773-4116-9c8e-000000000001",
            "agent_e54fc601_4773_4116_9c8e_000000000001",
        ),
        ("agent-local-1f", "agent_local_1f"),
        ("agent-a_b", "agent_a=5fb"),
        ("agent-AbC", "agent_=41b=43"),
        ("agent-a=b#c", "agent_a=3db=23c"),
        ("agent-á", "agent_=c3=a1"),
        ("gpt-4.1", "agent_gpt_4.1"),
        ("agent_x", "agent_agent=5fx"),
    ],
)
def test_localpart(agent_id: str, localpart: str) -> None:
    assert ghost_localpart(agent_id) == localpart


def test_full_identifiers() -> None:
    assert user_id("agent-1", "example.org") == "@agent_1:example.org"
    assert room_alias("agent-1", "example.org:8448") == "#agent_1:example.org:8448"


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        ghost_localpart("")


def test_a_domain_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="255"):
        user_id("agent-" + "x" * 100, "d" * 200)


def test_long_ids_stay_distinct() -> None:
    one, two = ghost_localpart("agent-" + "x" * 300), ghost_localpart("agent-" + "x" * 301)
    assert one != two
    assert len(one) == len(two) == 128


_IDS = st.text(min_size=1, max_size=60) | st.text("-_=a5fAF.", min_size=1, max_size=3)


@given(_IDS)
def test_only_allowed_characters(agent_id: str) -> None:
    localpart = ghost_localpart(agent_id)
    assert re.fullmatch(r"agent_[a-z0-9._=/+-]*", localpart)
    assert len(user_id(agent_id, "d" * 120)) <= 255


@given(st.lists(_IDS, min_size=2, max_size=30, unique=True))
def test_injective(agent_ids: list[str]) -> None:
    # `x` and `agent-x` share a localpart by contract.
    prefixed = {one if one.startswith("agent-") else f"agent-{one}" for one in agent_ids}
    assume(len(prefixed) == len(agent_ids))
    assert len({ghost_localpart(one) for one in agent_ids}) == len(agent_ids)
