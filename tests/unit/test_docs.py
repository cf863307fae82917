"""What the documentation lists is what the code has."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import reduce
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import yaml
from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo
from tests.doc_blocks import FENCE, PAGES, ROOT
from tests.rest_document import DOCUMENT, OPERATIONS
from tests.unit.fake_openai_api import FakeOpenAIApi
from typer.testing import CliRunner

from letta_matrix.cli.commands import app
from letta_matrix.config import (
    AppServerRuntime,
    Config,
    LettaApiRuntime,
    MemoryRuntime,
    OpenAICompatibleRuntime,
    PortalSettings,
    SmsSettings,
)
from letta_matrix.doors.rest.routing import PREFIX
from letta_matrix.doors.rest.security import SCOPE
from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.app_server.keepers import local_keeper
from letta_matrix.runtimes.letta_api import LettaApi
from letta_matrix.runtimes.openai_compatible import OpenAICompatible
from letta_matrix.runtimes.protocol import AgentRuntime, Capabilities

DOCS = ROOT / "docs"

_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
_CODE = re.compile(r"`+[^`\n]*`+")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)
_KINDS = (AppServerRuntime, LettaApiRuntime, OpenAICompatibleRuntime, MemoryRuntime)
_SECTIONS = sorted(
    name
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
)


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, headings included, rulers not."""
    lines = [line for line in text.split("\n") if line.startswith("|") and "|---" not in line]
    cells = (re.split(r"(?<!\\)\|", line.strip("|")) for line in lines)
    return [[cell.strip().replace("\\|", "|") for cell in row] for row in cells]


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next of the same level."""
    level = heading.partition(" ")[0]
    _, found, rest = text.partition(f"{heading}\n")
    assert found, heading
    return re.split(rf"^{level} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def documented_capabilities() -> list[Capabilities]:
    """One for each column of the table."""
    table = [
        row for row in rows(section(text_of("how-to/runtimes.md"), "## What each can do")) if row
    ]
    heading, *body = table
    said = [{codes(row[0])[0]: row[column] for row in body} for column in range(2, len(heading))]
    assert all({"yes", "no"} >= set(column.values()) for column in said)
    assert all(len(column) == len(fields(Capabilities)) for column in said)
    return [Capabilities(**{name: word == "yes" for name, word in one.items()}) for one in said]


def openai_runtime(url: str) -> OpenAICompatible:
    given = {"type": "openai_compatible", "url": url}
    return OpenAICompatible(OpenAICompatibleRuntime.model_validate(given))


async def capabilities_of(runtime: AgentRuntime, *, reach: bool = False) -> Capabilities:
    if reach:
        await runtime.list_agents()
    found = runtime.capabilities
    await runtime.close()
    return found


async def test_the_table_of_capabilities_is_what_the_adapters_say(tmp_path: Path) -> None:
    settings = AppServerRuntime()
    app_server = AppServer(settings, local_keeper(settings, tmp_path / "keeper.sock"))
    letta_api = LettaApi(LettaApiRuntime(type="letta_api"))
    async with FakeOpenAIApi(app_server=True) as known, FakeOpenAIApi() as other:
        said = [
            await capabilities_of(app_server),
            await capabilities_of(letta_api),
            await capabilities_of(openai_runtime(known.url), reach=True),
            await capabilities_of(openai_runtime(other.url), reach=True),
        ]
        # Not reached yet: "one of the others".
        assert await capabilities_of(openai_runtime(known.url)) == said[-1]
    assert [asdict(one) for one in documented_capabilities()] == [asdict(one) for one in said]


def test_every_path_of_the_original_integration_is_documented_with_its_scope() -> None:
    below = section(text_of("how-to/rest.md"), "## The original integration's paths")
    listed = [row for row in rows(below) if row[0]]
    documented = {(codes(row[0])[0], codes(row[1])[0]): row[2].strip("`") for row in listed}
    assert len(documented) == len(listed)
    assert documented == {
        (method, path): DOCUMENT["paths"][path][method.lower()].get(SCOPE, "none")
        for method, path in OPERATIONS
        if not path.startswith(PREFIX)
    }


def test_every_page_that_the_program_names_is_there() -> None:
    sources = [path for path in (ROOT / "src").rglob("*") if path.suffix in (".py", ".js")]
    named = {
        page
        for path in sources
        if "vendor" not in path.parts
        for page in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 5
    assert [page for page in named if not (ROOT / page).is_file()] == []


def test_every_test_that_a_page_names_is_there() -> None:
    named = {name for page in PAGES for name in _TEST.findall(page.read_text(encoding="utf-8"))}
    assert len(named) > 30
    for path, test in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not test or re.search(rf"^(async )?def {test}\(", text, re.MULTILINE), (path, test)


@pytest.mark.parametrize("name", _SECTIONS)
def test_every_key_is_documented_with_its_default(name: str) -> None:
    model = cast("type[BaseModel]", Config.model_fields[name].annotation)
    below = section(text_of("configuration.md"), f"## `{name}`")
    assert documented_keys(below) == known_keys(model.model_fields)


def test_every_key_of_a_bridge_is_documented_with_its_default() -> None:
    below = section(text_of("configuration.md"), "## `portals`")
    assert documented_keys(below) == known_keys(PortalSettings.model_fields)


def test_every_key_of_the_phone_line_that_is_not_as_for_any_bridge_is_documented() -> None:
    documented = documented_keys(section(text_of("configuration.md"), "## `sms`"))
    other, own = PortalSettings.model_fields, dict(SmsSettings.model_fields)
    for name, field in other.items():
        if name in own and name not in documented:
            assert own.pop(name).get_default(call_default_factory=True) == field.get_default(
                call_default_factory=True
            )
    assert documented == known_keys(own)


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.__name__)
def test_every_key_of_a_runtime_is_documented_with_its_default(kind: type[BaseModel]) -> None:
    runtimes = section(text_of("configuration.md"), "## `runtimes`")
    common, *parts = re.split(r"^`type: (\w+)`", runtimes, flags=re.MULTILINE)
    below = dict(zip(parts[::2], parts[1::2], strict=True))
    name = get_args(kind.model_fields["type"].annotation)[0]
    shared = {key: value for key, value in documented_keys(common).items() if key != "name"}
    own = dict(kind.model_fields)
    assert own.pop("name").default in codes(next(row for row in rows(common) if "`name`" in row)[1])
    documented = shared | documented_keys(below[name]) | in_words(below[name])
    known = known_keys(own)
    # A list's entry has no default kind.
    assert documented == {**known, "type": "required"}


def documented_keys(text: str) -> dict[str, str]:
    """Each key of the tables with its default as it is written."""
    found: dict[str, str] = {}
    for names, default, *_ in rows(text):
        values = codes(default)
        for place, name in enumerate(codes(names)):
            found[name] = values[place] if place < len(values) else default
    return found


def in_words(text: str) -> dict[str, str]:
    """Keys and defaults of the kind that is told of in a sentence, "`agents` (`1`)"."""
    sentence = text.partition("\n")[0]
    return {
        key: value for key, value in re.findall(r"`(\w+)` \(`(\w+)`\)", sentence) if key != "name"
    }


class Written:
    """A default as somebody writes it into the file; equal to what stands for it there."""

    def __init__(self, field: FieldInfo) -> None:
        self._field = field

    def __eq__(self, other: object) -> bool:
        default = self._field.get_default(call_default_factory=True)
        if self._field.is_required():
            return other == "required"
        if default in (None, [], {}):
            return other == "none" or other == "homeserver.url"
        holder = create_model("Holder", value=(cast("Any", self._field.annotation), self._field))
        value = yaml.safe_load(str(other)) if isinstance(default, list) else other
        return bool(holder.model_validate({"value": value}).model_dump()["value"] == default)

    def __repr__(self) -> str:
        return repr(self._field)

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def known_keys(model: Mapping[str, FieldInfo]) -> dict[str, Written]:
    return {name: Written(field) for name, field in model.items()}


def test_the_example_of_runtimes_is_what_init_writes(tmp_path: Path) -> None:
    page = section(text_of("how-to/runtimes.md"), "## Configure them")
    commands = re.findall(r"^ +(--\w+) (\S+)", page, flags=re.MULTILINE)
    example = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)[0]
    arguments = reduce(lambda words, pair: [*words, *pair], commands, list[str]())
    result = CliRunner().invoke(app, ["init", *arguments, "--directory", str(tmp_path)])
    assert result.exit_code == 0, result.output
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert written["runtimes"] == yaml.safe_load(example)["runtimes"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_table_has_half_a_code_span(page: Path) -> None:
    assert [cells for cells in rows(prose(page)) if "`" in "".join(cells)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_of_the_documentation_leads_nowhere(page: Path) -> None:
    text = prose(page)
    targets = [link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link)]
    assert [target for target in targets if not leads_somewhere(page, target)] == []


def prose(page: Path) -> str:
    return _CODE.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))


def leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    if not found.exists() or ROOT not in (found, *found.parents):
        return False
    return not anchor or anchor in anchors(found)


def anchors(page: Path) -> Sequence[str]:
    """What its headings are called in links, as GitHub makes them."""
    headings = _HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
