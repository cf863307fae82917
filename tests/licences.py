"""Which licences come with what we use, and the list of them: `scripts/licences` writes it."""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).parents[1] / "requirements"

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
    "3-Clause BSD License": "BSD-3-Clause",
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


VENDORED = [
    line.split()
    for line in (REQUIREMENTS / "vendored.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]

DOCUMENT = REQUIREMENTS.parent / "docs/licences.md"
_HEAD = (
    "# Licences of what comes along\n\n"
    "letta-matrix itself is under Apache-2.0. This list is made by `scripts/licences` from "
    "`pyproject.toml`, the locked requirements and what packages say of themselves (SPDX); a test "
    "holds it to them, and refuses licences that do not go with ours. Without a version: what "
    "others need; all of it is locked in `requirements/`.\n\n"
)


def document() -> str:
    """docs/licences.md as it should be."""
    project: dict[str, Any] = tomllib.loads(
        (REQUIREMENTS.parent / "pyproject.toml").read_text(encoding="utf-8")
    )["project"]
    asked = _ranges(project["dependencies"])
    parts = [
        "## What the bridge imports",
        _table((name, asked.get(name, "")) for name in sorted(locked("base"))),
    ]
    for extra, named in project["optional-dependencies"].items():
        parts += [f"## With the extra `{extra}`", _table(_ranges(named).items())]
        if separate := [name for name in _ranges(named) if name in SEPARATE]:
            parts.append(f"{', '.join(separate)} is a program of its own: `up` starts it as it is.")
    vendored = dict.fromkeys((*one[0].rsplit("@", 1), one[1]) for one in VENDORED)
    rows = [f"| {name} | {version} | {licence} |" for name, version, licence in vendored]
    parts += ["## What browsers get", "\n".join([_COLUMNS, *rows])]
    return _HEAD + "\n\n".join(parts) + "\n"


_COLUMNS = "| package | version | licence |\n|---|---|---|"


def _table(packages: Iterable[tuple[str, str]]) -> str:
    """Those for other systems than Linux are left out."""
    rows = [
        f"| {name} | {wanted} | {licence} |"
        for name, wanted in packages
        if (licence := licence_of(name)) is not None
    ]
    return "\n".join([_COLUMNS, *rows])


def _ranges(requirements: Iterable[str]) -> dict[str, str]:
    found = (re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?(.*)", one) for one in requirements)
    return {one[1]: one[2] for one in found if one is not None}


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
