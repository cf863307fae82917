"""No test depends on how fast something is: what would is found here. CONTRIBUTING.md says what
to write instead."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = sorted(
    path for path in (ROOT / "tests").rglob("*.py") if path.name not in ("waiting.py", "stress.py")
)
STAND_INS = ("fake_", "stub_")
"""What begins so plays a server, whose pauses are what it is for."""

CLOCKS = {"time.monotonic", "time.perf_counter", "asyncio.get_running_loop().time"}
LIMITS = {"asyncio.timeout": 0, "asyncio.timeout_at": 0, "asyncio.wait_for": 1}


@cache
def durations() -> set[str]:
    """The constants of `src` that are seconds: fractions, or several of them."""
    return {
        node.targets[0].id
        for path in (ROOT / "src").rglob("*.py")
        for node in _tree(path.read_text()).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and _is_fraction(node.value)
    }


def races(text: str, seconds: set[str], *, stand_in: bool = False) -> Iterator[str]:
    """What in the text of a test file depends on speed, with its line."""
    for node in ast.walk(_tree(text)):
        if isinstance(node, ast.Call) and (why := _why(node, seconds, stand_in)):
            yield f"{node.lineno}: {why}"


def _tree(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SystemError:
        # Python 3.11 miscounts its depth when the collector runs in between (gh-106905).
        return ast.parse(text)


def _why(call: ast.Call, seconds: set[str], stand_in: bool) -> str | None:
    name = ast.unparse(call.func)
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    if name in ("asyncio.sleep", "time.sleep", "anyio.sleep"):
        return None if stand_in else "sleeps instead of waiting for what it wants"
    if name in CLOCKS and not stand_in:
        return "measures how long something takes"
    if name in LIMITS and len(arguments) > LIMITS[name] and _is_number(arguments[LIMITS[name]]):
        return "has a deadline of its own"
    if name == "asyncio.wait" and any(word.arg == "timeout" for word in call.keywords):
        return "has a deadline of its own"
    if name.endswith(".setattr") and call.args and _patched(call) in seconds:
        return f"patches {_patched(call)}; move the clock instead"
    return None


def _patched(call: ast.Call) -> str:
    names = [one.value for one in call.args if isinstance(one, ast.Constant)]
    return next((name.rpartition(".")[2] for name in names if isinstance(name, str)), "")


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _is_fraction(node: ast.expr) -> bool:
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    return all(isinstance(one, ast.Constant) and isinstance(one.value, float) for one in parts)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_depends_on_how_fast_it_is(path: Path) -> None:
    stand_in = path.name.startswith(STAND_INS)
    assert list(races(path.read_text(), durations(), stand_in=stand_in)) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("await asyncio.sleep(0.1)", "sleeps"),
        ("time.sleep(1)", "sleeps"),
        ("began = time.monotonic()", "measures"),
        ("await asyncio.wait_for(task, 5)", "deadline"),
        ("await asyncio.wait_for(task, timeout=5)", "deadline"),
        ("asyncio.timeout(0.5)", "deadline"),
        ("asyncio.wait([task], timeout=1)", "deadline"),
        ("patch.setattr('letta_matrix.x._PAUSE', 0)", "patches _PAUSE"),
        ("monkeypatch.setattr(module, '_PAUSE', 0.1)", "patches _PAUSE"),
        ("monkeypatch.setattr(module, '_PAGE', 2)", ""),
        ("await eventually(lambda: done)", ""),
        ("clock.advance(3)", ""),
    ],
)
def test_what_is_found(code: str, found: str) -> None:
    text = f"async def test():\n    {code}"
    assert [found in why for why in races(text, {"_PAUSE"})] == ([True] if found else [])


def test_a_server_that_is_played_may_be_slow() -> None:
    assert list(races("asyncio.sleep(3)", set(), stand_in=True)) == []
