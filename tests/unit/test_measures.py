"""What is counted, and how few words there are for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mautrix.api import ClientPath, Method
from structlog.testing import capture_logs
from tests.builders import message
from tests.waiting import Clock

from letta_matrix.common.measures import Calls, Spans
from letta_matrix.conversations.journeys import Journeys
from letta_matrix.conversations.journeys import Stage as Reached
from letta_matrix.conversations.new_turns import new_turn
from letta_matrix.matrix.request_kinds import KINDS, kind_of
from letta_matrix.runtimes.faults import ConversationGone, fault_of


def test_spans_are_counted_up_to_their_bounds() -> None:
    spans = Spans(0.1, 1.0)
    for seconds in (0.0, 0.1, 0.5, 3.0):
        spans.add(seconds, "a")
    assert spans.counts == {("a",): [2, 1, 1]}
    assert spans.sums["a",] == pytest.approx(3.6)


def test_a_call_that_fails_is_counted_and_raised() -> None:
    calls = Calls(fault_of, 1.0)
    with pytest.raises(ConversationGone), calls.timed("local"):
        raise ConversationGone("gone")
    with pytest.raises(ZeroDivisionError), calls.timed("local"):
        raise ZeroDivisionError
    assert calls.faults == {("local", "conversation_gone"): 1}
    assert calls.spans.counts == {("local",): [2, 0]}


async def test_a_stage_counts_once_and_only_forward(clock: Clock) -> None:
    clock.stop()
    journeys = Journeys()
    journeys.reached("unknown", Reached.ASKED)
    turn = new_turn(message(), "agent-1", "hello")
    with capture_logs():
        journeys.admitted(turn, clock.now())
        clock.advance(2)
        journeys.reached(turn.turn_id, Reached.FIRST_TEXT)
        journeys.reached(turn.turn_id, Reached.ASKED)
        clock.advance(3)
        journeys.reached(turn.turn_id, Reached.FIRST_TEXT)
        journeys.ended(turn.turn_id)
        journeys.ended(turn.turn_id)
    counted = {labels[0]: total for labels, total in journeys.stages.sums.items()}
    assert counted == pytest.approx({"admitted": 0, "first_text": 2, "final": 3})
    assert journeys.whole.sums == pytest.approx({(): 5})


_WORDS = st.sampled_from(
    ["_matrix", "client", "v3", "rooms", "!a", "send", "state", "m.x", "", "_synapse", "upload"]
)


@given(
    st.sampled_from(list(Method)),
    st.lists(_WORDS | st.text(max_size=5), max_size=9),
    st.booleans(),
)
def test_whatever_is_asked_is_of_few_kinds(method: Method, words: list[str], interim: bool) -> None:
    assert kind_of(method, "/".join(words), interim=interim) in KINDS


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        (Method.PUT, ClientPath.v3.rooms["!a"].send["m.room.message"]["t"], "send"),
        (Method.PUT, ClientPath.v3.rooms["!a"].state["m.room.name"], "state"),
        (Method.PUT, ClientPath.v3.rooms["!a"].typing["@a:b"], "hint"),
        (Method.POST, ClientPath.v3.rooms["!send"].join, "membership"),
        (Method.POST, ClientPath.v3.createRoom, "room"),
        (Method.PUT, ClientPath.v3.profile["@a:b"].displayname, "profile"),
        (Method.GET, ClientPath.v3.rooms["!a"].messages, "read"),
        (Method.POST, "_matrix/media/v3/upload", "media"),
        (Method.POST, "_synapse/admin/v1/join/!a", "admin"),
    ],
)
def test_the_kinds_of_requests(method: Method, path: object, kind: str) -> None:
    assert kind_of(method, str(path)) == kind
    assert kind_of(method, str(path), interim=True) == ("edit" if kind == "send" else kind)
