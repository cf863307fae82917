"""A burst of texts from another network: how soon it is routed, and in what order."""

import contextlib
import sqlite3
import time
from collections import defaultdict
from typing import Any

from bench.bridge import Bridge
from bench.figures import at_least, at_most, ms, p50
from bench.scene import Scene

TEXTS, CONTACTS = 100, 10
"""As many as Synapse puts into one transaction."""


async def bursts(scene: Scene, bridge: Bridge, talks: list[tuple[str, str]]) -> None:
    """Play the homeserver that pushes texts of contacts in their rooms (`talks`). The answers lead
    nowhere: those rooms are seeded, and nobody is in them."""
    took, sent = list[float](), defaultdict[str, list[str]](list)
    for burst in range(scene.plan.bursts):
        events = [_text(f"${burst}.{place}", *talks[place % CONTACTS]) for place in range(TEXTS)]
        for one in events:
            sent[one["room_id"]].append(one["event_id"])
        took.append(await _push(scene, f"burst{burst}", events))
    of = f"{TEXTS} texts of {CONTACTS} contacts in one transaction"
    note = f"ms until {of} are routed and stored, with {len(talks):,} portals"
    scene.figures.add("burst_routed_ms", ms(p50(took)), note, at_most(1000))
    in_order = _stored(bridge) == sent
    scene.figures.add("burst_in_order", in_order, "1: each contact's in order", at_least(1))


def _text(event_id: str, room_id: str, ghost: str) -> dict[str, Any]:
    return {
        "type": "m.room.message",
        "event_id": event_id,
        "room_id": room_id,
        "sender": ghost,
        "origin_server_ts": int(time.time() * 1000),
        "content": {"msgtype": "m.text", "body": f"text {event_id}"},
    }


async def _push(scene: Scene, txn: str, events: list[dict[str, Any]]) -> float:
    service = scene.homeserver.letta_settings()["appservice"]
    headers = {"Authorization": f"Bearer {service['hs_token']}"}
    url = f"{service['url']}/_matrix/app/v1/transactions/{txn}"
    began = time.monotonic()
    async with scene.http.put(url, json={"events": events}, headers=headers) as response:
        response.raise_for_status()
    return time.monotonic() - began


def _stored(bridge: Bridge) -> dict[str, list[str]]:
    """The events whose turns each room has, in the order in which they are run."""
    found = defaultdict[str, list[str]](list)
    with contextlib.closing(sqlite3.connect(bridge.database)) as connection:
        query = "SELECT room_id, event_id FROM turns WHERE room_id LIKE '!portal%' ORDER BY seq"
        for room_id, event_id in connection.execute(query):
            found[room_id].append(event_id)
    return found
