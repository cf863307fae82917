"""Many texts at once: routed in order, by memory alone."""

import itertools

from tests.fake_homeserver import FakeHomeserver
from tests.portal_kit import opened, out, said, with_bridge
from tests.stage import Stage
from tests.waiting import Clock

CONTACTS = [f"@irc_c{number}:test" for number in range(5)]


async def test_a_burst_is_routed_in_order_while_the_homeserver_answers_nothing(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    bridged = await with_bridge(stage)
    rooms = {ghost: f"!{ghost[5:7]}:test" for ghost in CONTACTS}
    for ghost, room_id in rooms.items():
        await opened(bridged, room_id=room_id, ghosts=(ghost,), channel={"id": ghost})
    texts = [(ghost, f"text {number}") for number, ghost in enumerate(CONTACTS * 20)]
    # Nothing that routing would ask for is answered, nor given up.
    mute = fake.hold(".")
    clock.stop()
    await bridged.admit(*(said(text, ghost, rooms[ghost]) for ghost, text in texts))
    stored = await bridged.stores.turns.unfinished()
    assert [(one.sender, one.prompt) for one in stored] == texts
    assert {one.agent_id for one in stored} == {"agent-1"}
    clock.go()
    mute.set()
    await bridged.idle()
    for ghost, theirs in itertools.groupby(sorted(texts), key=lambda one: one[0]):
        expected = [text for _, text in sorted(theirs, key=lambda one: int(one[1][5:]))]
        assert out(fake, rooms[ghost]) == [f"echo: {text}" for text in expected]
