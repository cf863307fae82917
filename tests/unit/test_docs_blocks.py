"""Every block of code in the documentation is what the program that it is for takes."""

import ast
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.doc_blocks import FENCE, PAGES, ROOT, Block, every_block
from tests.doc_commands import check, parsed_by_letta_matrix
from tests.shell_words import commands

from letta_matrix.agents.migration.mappings_file import read_mappings
from letta_matrix.config import Config, PortalSettings
from letta_matrix.doors.chat.parse import parse_arguments, split_line
from letta_matrix.doors.chat.registry import all_commands, find
from letta_matrix.doors.rest.problems import PROBLEMS, TYPES

_BASE: dict[str, Any] = {
    "homeserver": {"url": "http://127.0.0.1:8008", "domain": "example.org"},
    "appservice": {"as_token": "a", "hs_token": "h"},
}
_OF_SYNAPSE = {"app_service_config_files"}
_ELSEWHERE = {
    ("docs/how-to/proxies.md", "nginx"): "tests/integration/doors/test_doors_behind_nginx.py",
    ("docs/how-to/proxies.md", "caddy"): "",
}
"""What another test runs, or nothing does: docs/index.md says so then."""
_NAMES_A_COMMAND = {"BadOptionUsage", "MissingParameter", "NoArgsIsHelpError"}
"""What our parser says where the text names a command, and no whole line."""
_INLINE = re.compile(r"`((?:\.venv/bin/)?letta-matrix [^`/\n][^`\n]*)`")
_TYPED = re.compile(r"`!(?:letta )?([a-z-]+)(?=[ `])")
_OF_OTHERS = {"gm", "letta"}
"""Commands of mautrix-gmessages, and what ours begin with where people talk with each other."""

BLOCKS = every_block()


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def test_every_block_is_of_a_kind_that_is_looked_at() -> None:
    kinds = {"sh", "yaml", "json", "python", "chat", "env", "text"}
    others = [block for block in BLOCKS if block.language not in kinds]
    unknown = [block for block in others if (block.page, block.language) not in _ELSEWHERE]
    assert [f"{block} [{block.language}]" for block in unknown] == []
    for (page, _), test in _ELSEWHERE.items():
        assert not test or Path(page).name in (ROOT / test).read_text(encoding="utf-8")


@pytest.mark.parametrize("block", of("sh"), ids=str)
def test_each_command_is_read_by_its_program(block: Block) -> None:
    subprocess.run(("sh", "-n", "-c", block.text), check=True)
    for words in commands(block.text):
        check(words)


@pytest.mark.parametrize("block", of("text"), ids=str)
def test_a_text_has_nobody_type_anything(block: Block) -> None:
    if not block.page.startswith("docs/reference/"):
        first = block.text.split(maxsplit=1)[0]
        assert not first.endswith(("letta-matrix", "curl", "make", "docker")) or "is running" in (
            block.text
        )


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_each_configuration_is_taken(block: Block) -> None:
    given = yaml.safe_load(block.text)
    if given.keys() <= _OF_SYNAPSE:
        return
    if given.keys() <= Config.model_fields.keys():
        merged = {
            key: {**_BASE.get(key, {}), **value} for key, value in given.items() if key in _BASE
        }
        Config.model_validate({**_BASE, **given, **merged})
    else:
        whole = {"name": "x", "bot": "@bot:example.org", "ghosts": "@x_(.+):example.org"}
        PortalSettings.model_validate({**whole, **given})


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_each_json_is_what_it_stands_for(block: Block, tmp_path: Path) -> None:
    given = json.loads(block.text)
    if "mcpServers" in given:
        (server,) = given["mcpServers"].values()
        if "command" in server:
            assert server["command"] == "letta-matrix"
            parsed_by_letta_matrix(tuple(server["args"]))
        else:
            assert re.fullmatch(r"http://127\.0\.0\.1:8016/mcp", server["url"])
    elif "type" in given:
        slug = given["type"].removeprefix(TYPES)
        assert (PROBLEMS[slug].status, PROBLEMS[slug].title) == (given["status"], given["title"])
    else:
        file = tmp_path / "agent_user_mappings.json"
        file.write_text(block.text, encoding="utf-8")
        found, faults = read_mappings(file)
        assert (len(found), faults) == (1, [])


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_each_program_is_python(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize("block", of("env"), ids=str)
def test_each_variable_is_one_of_the_example(block: Block) -> None:
    known = (ROOT / ".env.example").read_text(encoding="utf-8")
    for line in block.text.splitlines():
        assert re.search(rf"^#? ?{line.partition('=')[0]}=", known, re.MULTILINE), line


@pytest.mark.parametrize("block", of("chat"), ids=str)
def test_each_line_of_a_chat_is_a_command(block: Block) -> None:
    for line in block.text.splitlines():
        name, words = split_line(line.removeprefix("!"))
        parse_arguments(find(all_commands(), name), words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_command_in_a_sentence_is_one(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for line in _INLINE.findall(text):
        for whole in _ways(line):
            _named(tuple(shlex.split(whole)[1:]))
    for name in set(_TYPED.findall(text)) - _OF_OTHERS:
        find(all_commands(), name)


def _ways(line: str) -> list[str]:
    """`sms login|logout` is two lines."""
    either = re.search(r"\S*\|\S*", line)
    if either is None:
        return [line]
    return [line.replace(either[0], one) for one in either[0].split("|")]


def _named(words: tuple[str, ...]) -> None:
    try:
        parsed_by_letta_matrix(words)
    except Exception as fault:
        if type(fault).__name__ not in _NAMES_A_COMMAND:
            raise
