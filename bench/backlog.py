"""Many turns that wait: how soon the first and all of them are answered, once and in order."""

from typing import Any

from bench.alone import Alone
from bench.figures import at_least, at_most, p50
from bench.instant_homeserver import GATES

AGENTS = 20


async def measure(alone: Alone) -> None:
    """In each room an agent is kept by messages, and behind each waits another, and behind all of
    them none, or a share of very many; then these again, with `kill -9` while they wait."""
    scene, turns, (suffix, where) = alone.scene, alone.scene.plan.waiting, alone.where
    try:
        await alone.start(AGENTS)
        await alone.do("load", turns=turns // 5)
        rate = turns / (await alone.do("load", turns=turns))["seconds"]
        await alone.do("queue", turns=2 * GATES * AGENTS)
        empty = await alone.do("release")
        taken = turns / (await alone.do("queue", turns=turns))["seconds"]
        rss = alone.bridge.rss_mb
        done = await alone.do("release")
        await alone.do("queue", turns=turns)
        alone.bridge.kill()
        start = await alone.bridge.start_ready()
        await alone.bridge.wait_quiet()
        again = await alone.do("release")
    finally:
        await alone.end()
    of = f"{turns:,} turns that wait in {AGENTS} rooms, {where}"

    def add(name: str, *row: Any) -> None:
        scene.figures.add(f"waiting_{name}{suffix}", *row)

    note = f"until the next are answered, of {of} / where none wait behind them"
    add("head_ratio", p50(done["heads"]) / p50(empty["heads"]), note, at_most(1.2))
    drained = done["rate"]
    note = f"answers a second, {of} / where none wait"
    add("drain_ratio", drained / rate, note, at_least(0.8))
    add("drained_per_s", drained, f"answers a second, {of}")
    add("taken_per_s", taken, f"messages a second stored, {of}")
    add("rss_mb", rss, f"MB resident, {of}")
    # A replica that was killed has left its lease behind.
    soon = at_most(5 if alone.server is None else 15)
    add("start_s", start, f"process start -> /ready after kill -9, {of}", soon)
    in_order = done["in_order"] and again["in_order"]
    add("once_in_order", in_order, "1: each answered once, in order, both times", at_least(1))
