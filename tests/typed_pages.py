"""Pages of the documentation whose commands are run as somebody types them in the project's folder,
beside a running `letta-matrix up`."""

import asyncio
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.doc_blocks import ROOT, blocks
from tests.waiting import within

_PORT = re.compile(r"(?<=127\.0\.0\.1:)(8004|8008|8015|8016|4500)\b")
_BEGIN = """\
curl() { command curl --fail-with-body --silent --show-error "$@"; }
"""


@dataclass(frozen=True)
class Page:
    """Which of a page's blocks are run, in their order: all of `sh` in which something of `only`
    stands (all for none). `instead` replaces what a reader replaces, `shows` is what comes out."""

    name: str
    shows: tuple[str, ...]
    only: tuple[str, ...] = ()
    instead: tuple[tuple[str, str], ...] = ()


PAGES = (
    Page("docs/quickstart.md", ("hello",), only=("chat Meridian",)),
    Page(
        "docs/how-to/rest.md",
        ('"name":"Meridian"', '"answer":"', "event: done", '"event_id":"$', '"tea"', "not-found"),
        instead=(("200 words", "20 words"),),
    ),
    Page(
        "docs/how-to/tokens.md",
        ("acts as  agent-local-", "kitchen display", "revoked"),
        # "The token itself works too."
        instead=(("a1b2c3d4e5f6", '"$TOKEN"'),),
    ),
    Page("docs/how-to/mcp.md", ("acts as  agent-local-",), only=("ada.token",)),
    Page("docs/how-to/dashboard.md", ("scopes   admin, agents, read", "lm_")),
    Page("docs/how-to/monitoring.md", ("scopes   metrics",), only=("prometheus",)),
    Page(
        "docs/how-to/agents.md",
        ('"name":"Grace"', "Grace H."),
        instead=(("sleep(10)", "sleep(0)"),),
    ),
    Page("docs/operations.md", ('"entries":',), ("audit?limit",), (("DATA", "$DATA"),)),
)


class Folder:
    """A folder that looks like the project's, of somebody with nothing but a running `up`, whose
    ports are `offset` higher."""

    def __init__(self, path: Path, data: Path, offset: int) -> None:
        self._path, self._offset = path, offset
        programs = path / ".venv/bin"
        programs.mkdir(parents=True)
        for name, words in (("python", ""), ("letta-matrix", "-m letta_matrix")):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
            program.chmod(0o700)
        usual = path / ".local/share"
        usual.mkdir(parents=True)
        (usual / "letta-matrix").symlink_to(data)
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(path), "DATA": str(data)}

    async def run(self, page: Page) -> str:
        """Run a page's commands; returns what they have said. One that fails ends it, and one that
        is silent for too long: its page is at fault."""
        script = self._script(page)
        process = await asyncio.create_subprocess_exec(
            *("sh", "-eu", "-c", script),
            cwd=self._path,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        said = b""
        try:
            while more := await within(process.stdout.read(65_536)):
                said += more
            assert await within(process.wait()) == 0
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"{page.name}: {said.decode()}") from error
        return said.decode()

    def _script(self, page: Page) -> str:
        parts = [_BEGIN]
        for block in blocks(ROOT / page.name):
            text = block.text
            for given, meant in page.instead:
                text = text.replace(given, meant)
            text = _PORT.sub(lambda found: str(int(found[0]) + self._offset), text)
            if block.language == "sh":
                if not page.only or any(one in text for one in page.only):
                    parts.append("echo\n" + text)
            elif block.language == "python" and not page.only:
                (self._path / "example.py").write_text(text, encoding="utf-8")
                parts.append('TOKEN="${TOKEN:-}" .venv/bin/python example.py\n')
        return "".join(parts)
