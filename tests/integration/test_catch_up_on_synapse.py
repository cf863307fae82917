"""What a real homeserver accepted and never pushed is found, among all that it did."""

import time
from typing import Any

import pytest
from tests.integration.bridge_world import Person, World
from tests.waiting import eventually

from letta_matrix.conversations import catch_up
from letta_matrix.conversations.dispatcher import Dispatcher


async def test_every_message_is_found_among_edits_and_other_events(
    world: World, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await world.meet()
    await world.idle()
    since, lost = str(time.time()), list[Any]()
    admit = Dispatcher.admit

    async def lose(self: Dispatcher, txn_id: str, events: list[dict[str, Any]]) -> None:
        lost.extend(events)
        await admit(self, txn_id, [one for one in events if one["room_id"] != room.room_id])

    ghost = world.as_user(room.ghost)
    # With their edits more than the first page that is read.
    monkeypatch.setattr(catch_up, "_FIRST_PAGE", 10)
    told = [f"message {number}" for number in range(8)]
    with monkeypatch.context() as patched:
        patched.setattr(Dispatcher, "admit", lose)
        for text in told:
            said = await ann.send(room.room_id, text)
            edit: Any = {"m.relates_to": {"rel_type": "m.replace", "event_id": said}}
            await ann.send(room.room_id, f"* {text}", **edit)
            await ghost.send(room.room_id, "grows", msgtype="m.notice")
        await ann.send(room.room_id, "the last", msgtype="m.notice")
        await eventually(lambda: any(one["content"].get("body") == "the last" for one in lost))
    parts = world.bridge.app
    for _ in range(2):
        await parts.stores.meta.set("alive_older", since)
        await parts.catch_up.run()
        await world.idle()
        assert [asked.text for asked in world.asked(room)] == told
