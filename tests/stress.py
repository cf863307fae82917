"""Options of pytest that make a run hard on the tests, to provoke what a quiet machine hides.

`--busy N` lets N processes spin beside the tests, `--delays` lets the database and the fake
homeserver pause at random and dates no two events of a test alike, `--shuffle` takes the files of
each tier in a random order. `--stress` is all of it with two processes, and new examples of
hypothesis. The seed is printed; `--seed N` repeats a run's pauses and order.

Without `--stress` hypothesis takes the same examples in every run: what it might find anew
belongs into a run that searches, not into one that has to tell whether a change is sound.
"""

import os
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from tests import builders
from tests.fake_homeserver import FakeHomeserver
from tests.waiting import moment

from letta_matrix.store.database import Database

P = ParamSpec("P")
T = TypeVar("T")

_OFTEN, _LONGEST = 0.25, 0.04
_PATIENCE = 900
"""Seconds that a test may take on a machine made busy."""
_SEED = "TESTS_SEED"
_SPIN = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
Spinner = subprocess.Popen[bytes]
_SPINNING = pytest.StashKey[list[Spinner]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stress", "make the run hard on the tests")
    group.addoption("--busy", type=int, metavar="N", help="N processes spin beside")
    group.addoption("--delays", action="store_true", help="database and homeserver pause")
    group.addoption("--shuffle", action="store_true", help="files in random order in their tier")
    group.addoption("--stress", action="store_true", help="--busy 2 --delays --shuffle")
    group.addoption("--seed", type=int, help="repeats a run's pauses and its order")


def pytest_configure(config: pytest.Config) -> None:
    options = config.option
    if options.stress:
        options.delays = options.shuffle = True
    if options.stress:
        # What never comes is still found; what is slow alone is not.
        options.timeout = options.timeout or _PATIENCE
    if options.busy is None:
        options.busy = 2 if options.stress else 0
    if options.seed is None:
        # The processes of xdist inherit it: they have to agree on the order.
        options.seed = int(os.environ.setdefault(_SEED, str(random.randrange(10_000))))
    # How long an example takes, or the making of one, is the machine's affair.
    at_any_speed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("steady", at_any_speed, derandomize=True)
    settings.register_profile("searching", at_any_speed)
    settings.load_profile("searching" if options.stress else "steady")
    if options.delays:
        _delay(random.Random(options.seed))
        _date_apart()
    if not hasattr(config, "workerinput"):
        argv = [sys.executable, "-c", _SPIN]
        config.stash[_SPINNING] = [subprocess.Popen(argv) for _ in range(options.busy)]


def examples(each_run: int, searching: int) -> int:
    """How many a test takes that asks real servers with each: it finds something new only where
    it searches. To be called while tests are collected."""
    return searching if settings.get_current_profile_name() == "searching" else each_run


def pytest_unconfigure(config: pytest.Config) -> None:
    for process in config.stash.get(_SPINNING, list[Spinner]()):
        process.kill()
        process.wait()


def pytest_report_header(config: pytest.Config) -> str | None:
    options = config.option
    wanted = [name for name in ("busy", "delays", "shuffle") if getattr(options, name)]
    return f"stress: {', '.join(wanted)}; --seed {options.seed}" if wanted else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.shuffle:
        chance = random.Random(config.option.seed)
        places = {path: chance.random() for path in sorted({item.path for item in items})}
        tiers = {tier: at for at, tier in enumerate(dict.fromkeys(map(_tier, items)))}
        items.sort(key=lambda item: (tiers[_tier(item)], places[item.path]))


def _tier(item: pytest.Item) -> Path:
    return item.path.parent


def _delay(chance: random.Random) -> None:
    """Let what others wait for in the course of every turn take its time now and then."""

    def slowly(work: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        async def late(*args: P.args, **kwargs: P.kwargs) -> T:
            if chance.random() < _OFTEN:
                await moment(chance.random() * _LONGEST)
            return await work(*args, **kwargs)

        return late

    patched: list[tuple[Any, str]] = [
        (Database, "write"),
        (Database, "read"),
        (FakeHomeserver, "_handle"),
    ]
    for owner, name in patched:
        setattr(owner, name, slowly(getattr(owner, name)))


def _date_apart() -> None:
    """Let what is made one after the other be made at different times: a machine that is quick
    dates it all alike, and what depends on an order that is not meant stands by chance."""
    now, last = builders.stamp, 0

    def apart() -> int:
        nonlocal last
        while (later := now()) == last:
            pass
        last = later
        return last

    builders.stamp = apart
