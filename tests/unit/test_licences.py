"""What is locked may be used together with our licence (Apache-2.0), each in the way we use it."""

import hashlib
from pathlib import Path

import pytest
from tests.licences import (
    DOCUMENT,
    LINKED,
    PERMISSIVE,
    REQUIREMENTS,
    SEPARATE,
    VENDORED,
    WEAK,
    document,
    is_among,
    licence_of,
    locked,
)


@pytest.mark.parametrize("package", sorted(locked("base", "embedded", "postgres", "dev")))
def test_each_locked_package_has_a_licence_that_fits(package: str) -> None:
    expression = licence_of(package)
    if expression is None:
        pytest.skip("not for this system")
    allowed = PERMISSIVE | WEAK
    if package not in locked("base") and package in SEPARATE:
        allowed = allowed | {SEPARATE[package]}
    if package not in locked("base", "embedded") and package in LINKED:
        allowed = allowed | {LINKED[package]}
    assert is_among(expression, allowed), f"{package}: {expression or 'no licence that we know'}"


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("MIT", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("MIT AND Apache-2.0 OR GPL-3.0-only", True),
        ("", False),
    ],
)
def test_a_choice_of_licences(expression: str, fits: bool) -> None:
    assert is_among(expression, PERMISSIVE) is fits


@pytest.mark.parametrize(
    ("licence", "path", "locked"),
    [(one[1], one[3], one[4]) for one in VENDORED],
    ids=[Path(one[3]).name for one in VENDORED],
)
def test_what_browsers_get_is_what_was_published(licence: str, path: str, locked: str) -> None:
    assert licence in PERMISSIVE
    assert hashlib.sha256((REQUIREMENTS.parent / path).read_bytes()).hexdigest() == locked


def test_nothing_else_is_vendored() -> None:
    folders = (REQUIREMENTS.parent / "src").rglob("vendor/*")
    found = {path.relative_to(REQUIREMENTS.parent).as_posix() for path in folders}
    assert found == {one[3] for one in VENDORED}


def test_the_list_of_licences_is_whole() -> None:
    """Else: scripts/licences."""
    assert DOCUMENT.read_text(encoding="utf-8") == document()
    assert "|  |\n" not in document()
