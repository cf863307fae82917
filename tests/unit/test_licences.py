"""What is locked may be used together with our licence (Apache-2.0), each in the way we use it."""

import hashlib
import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"

PERMISSIVE = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MIT-CMU"),
    *("PSF-2.0", "Python-2.0", "Unlicense", "Zlib", "ZPL-2.1"),
}
WEAK = {"MPL-2.0"}
"""Binds whoever changes its files, and nobody who imports them."""

CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
WORDS = {
    "Apache Software License": "Apache-2.0",
    "Internet Systems Consortium license": "ISC",
}
"""How packages without an SPDX expression or a classifier name their licence."""

KNOWN = {"axe-playwright-python": "MIT AND MPL-2.0", "signedjson": "Apache-2.0"}
"""Packages whose metadata tell nothing, with the licence in their repository."""

SEPARATE = {"matrix-synapse": "AGPL-3.0-or-later"}
"""Programs that `up` starts as they are and talks to over the network, in `embedded` alone."""

LINKED = {"psycopg": "LGPL-3.0-only", "psycopg-binary": "LGPL-3.0-only"}
"""Libraries that are imported as they are, and can be replaced by whoever installs them; in
`postgres` alone."""


def locked(*names: str) -> set[str]:
    """The packages in these files of requirements."""
    found = set[str]()
    for name in names:
        text = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
        found |= set(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", text, re.MULTILINE))
    return found


def licence_of(package: str) -> str | None:
    """Its SPDX expression, "" where it tells none that we know; None where it is for another
    system than this one."""
    try:
        told = metadata(package)
    except PackageNotFoundError:
        return None
    expressions: list[str] = told.get_all("License-Expression", [])
    if expressions:
        return expressions[0]
    every: list[str] = told.get_all("Classifier", [])
    classifiers = [one.split(" :: ")[-1] for one in every]
    if named := [CLASSIFIERS[one] for one in classifiers if one in CLASSIFIERS]:
        return " OR ".join(named)
    texts: list[str] = told.get_all("License", [""])
    word = texts[0].split("\n")[0].strip()
    return WORDS.get(word, word if word in PERMISSIVE | WEAK else KNOWN.get(package, ""))


def is_among(expression: str, allowed: set[str]) -> bool:
    """Whether we may choose licences among `allowed` that satisfy an SPDX expression without
    brackets, where AND binds more tightly than OR."""
    choices = [re.split(r"\s+AND\s+", choice) for choice in re.split(r"\s+OR\s+", expression)]
    return any(all(one in allowed for one in choice) for choice in choices)


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


VENDORED = [
    line.split()
    for line in (REQUIREMENTS / "vendored.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


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
