"""Whatever a configuration and an environment hold: it can be used, or one line for each fault
says where it is and what belongs there; nothing else, and never a secret."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from letta_matrix.access.route import route_to
from letta_matrix.app.logs import secrets_of
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.lenient_json import printable
from letta_matrix.config import Config, ConfigError, MemoryRuntime, load_config, original
from letta_matrix.config.faults import LONGEST_KEY, known_keys, shortened
from letta_matrix.config.sources import ENV_PREFIX
from letta_matrix.stack.registration import registration
from letta_matrix.store.database import database_url

SECRET = "Zq7w-secret"
SOUND: dict[str, Any] = {
    "homeserver": {"url": "http://hs.example:8008", "domain": "example.org"},
    "appservice": {"as_token": f"{SECRET}-a", "hs_token": f"{SECRET}-h"},
}
LONGEST_LINE = 700
EXPLAINED = (
    "`[^`]*` (should |is missing|cannot be inside )|unknown key `|is not valid YAML|expected sect"
    r"|is not a text file|and \d+ faults more|`homeserver\.|`agents\.(passwords|dev_mode)` "
)
KEYS = known_keys(Config)
PLACES = sorted(key for key in KEYS if "." in key)

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 65_536, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, -(10**400)),
    *(0.5, -0.0, 1e308, float("inf"), float("-inf"), float("nan"), 1e-320),
    *("", " ", "\0", "\x1b[2J", "a\nb", "\u2028", "\ufeff", "\ud800", "x" * 5_000, "ß" * 300),
    *("~nobody-here/x", "~", "/", "/dev/full", "../..", "a\0b", "/" + "a" * 300),
    *("http://", "http://[", "http://[::1", "http://a:b", "http://a:99999", "http://a:0/"),
    *("http://a b/", "http://\nb", "http://u:p@h", "http://a..b", f"http://{'a' * 64}.org"),
    *("http://a?x=1", "http://a#b", "HTTP://A", "ws://a", "javascript:alert(1)", "//a", "http:a"),
    *("http://ℂ.example", "http://a/_matrix", "https://\u202ea", "http://a%00b", "http://\ud800"),
    *("(", "[[a]", "(a+)+$", "a{999999999999}", "(" * 3_000 + ")" * 3_000, "(?P<x>a)(?P<x>b)"),
    *("9" * 5_000, "9" * 400 + "d", "1e400", "-5s", "٣s", "5 weeks", "1_000", " 7 ", "0x10", "nan"),
    *("@a:b", "@:b", "@\0:b", "@a:b:99999", "@ü:b", "*", "!r:b", "10.0.0.0/99", "::/0", "Etc"),
    *("2026-11-30", "24:00", "{0}", "{room.x}", "{", "{room!r}", "{thread:>999999999}"),
    *([], {}, [None], [[]], [{}], {"a": None}, {"": ""}, [1, "a", [2]], b"\xff\0", {"a", "b"}),
]
odd: st.SearchStrategy[Any] = (
    st.sampled_from(ODD) | st.text(max_size=30) | st.integers() | st.floats()
)
"""What somebody, or something, may write where anything else belongs."""
trees: st.SearchStrategy[Any] = st.recursive(
    odd,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=8,
)


def with_changes(changes: list[tuple[str, Any]]) -> dict[str, Any]:
    """Sound settings with others, by their keys; `*` is the first of a list."""
    data = json.loads(json.dumps(SOUND))
    for key, value in changes:
        *parents, last = key.replace(".*", "").split(".")
        section: object = data
        for name in parents:
            empty: Any = [{"type": "app_server"}] if f"{name}.*" in key else {}
            inner = mapping(section)
            if not isinstance(inner.get(name), type(empty)) or not inner[name]:
                inner[name] = empty
            section = inner[name][0] if isinstance(empty, list) else inner[name]
        mapping(section)[last] = value
    return data


keys = st.sampled_from([*KEYS, *(f"{key}x" for key in PLACES), "permissions.a", ""])
sections = st.lists(st.tuples(keys, trees), max_size=4).map(with_changes)


def told(path: Path, environment: Mapping[str, str] | None = None) -> str:
    """What the loader says, "" where the configuration can be used."""
    try:
        config = load_config(path, environment or {})
    except ConfigError as error:
        return checked(str(error), path, environment or {})
    try:
        use(config)
    except ConfigError as error:
        return str(error)
    return ""


def checked(text: str, path: Path, environment: Mapping[str, str]) -> str:
    """A text for people: where, which key, what is wanted; no line that nobody can read."""
    assert SECRET not in text
    lines = text.split("\n")
    assert len(lines) <= 21
    for line in lines:
        assert line.isprintable()
        assert len(line) <= LONGEST_LINE
        named = (shortened(printable(one), LONGEST_KEY) for one in environment)
        sources = [one for one in (str(path), *named) if line.startswith(f"{one}: ")]
        assert any(re.match(EXPLAINED, line.removeprefix(f"{one}: ")) for one in sources), line
    return text


def use(config: Config) -> None:
    """As a start does, up to the first request. Raises ConfigError."""
    shown = repr(config)
    assert not [one for one in secrets_of(config) if len(one) > 8 and one in shown]
    yaml.safe_dump(registration(config))
    database_url(config.database.url, config.directory)
    route_to(config)
    for host, port in config.listens:
        host.encode("idna")
        assert 0 < port < 65_536
    for bridge in config.bridges:
        re.compile(bridge.ghosts)
    for _, path in files_in(config):
        config.path(path).exists()


def files_in(value: object) -> list[tuple[str, str]]:
    """Every path of a configuration."""
    if isinstance(value, list):
        return [found for one in cast("list[object]", value) for found in files_in(one)]
    if not isinstance(value, BaseModel):
        return []
    names = ("pid_file", "ca_file", "keeper_socket")
    own = [(name, one) for name, one in value if name in names and isinstance(one, str)]
    return own + [found for _, one in value for found in files_in(one)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed") / "config.yaml"


@given(sections)
@settings(max_examples=200)
def test_any_values(file: Path, data: dict[str, Any]) -> None:
    file.write_text(yaml.safe_dump(data))
    told(file)


SCRAPS = [
    *("&a ", "*a", "<<: *a\n", "&a [*a]", "!!bool maybe", "!!int ''", "0b_", "!!python/name:os\n"),
    *("2026-13-45", "2026-02-30 25:61:61", "190:20:30:99", "1e999", "!!timestamp x", "!!float y"),
    *("!!binary ß", "!!pairs [{a: *a}]", "!!set {a, b}", "!!omap [a]", "!!null x", "!secret ", "%"),
    *(
        "\0",
        "\x1b[31m",
        "\x85",
        "\u2028",
        "\ufeff",
        "\t",
        "\r",
        '"\\ud800"',
        '"\\0"',
        "'",
        '"',
        "@",
    ),
    *(
        "\n---\n",
        "\n...\n",
        "? ",
        ": ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "|",
        ">",
        "#",
        "=: x\n",
        "~: x\n",
    ),
    *("[" * 60, "{a: " * 60, "- " * 60, "0x" + "f" * 5_000, "9" * 5_000, "a" * 3_000 + ": 1\n"),
    *("appservice:\n", "  as_token: x\n", "homeserver: {}\n", "\n  ", "<<: {hs_token: x}\n"),
]


@given(st.data())
@settings(max_examples=300)
def test_any_text(file: Path, data: st.DataObject) -> None:
    text = yaml.safe_dump(SOUND | {"api": {"port": 8104}, "logging": None}, sort_keys=False)
    # What comes to stand where no secret belongs is shown.
    text = text.replace(SECRET, "token")
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.sampled_from([0, 0, 1, 5, 40]))
        scrap = data.draw(st.sampled_from(SCRAPS) | st.text(max_size=5))
        text = text[:start] + scrap + text[end:]
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    told(file)


@given(st.binary(max_size=300))
@settings(max_examples=50)
def test_any_bytes(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)
    assert told(file)


def _variables() -> list[str]:
    ours = [f"{ENV_PREFIX}{key.replace('.', '__').upper()}" for key in KEYS]
    places = [one.replace("*", place) for one in ours for place in ("0", "1", "7", "x", "٣")]
    known = re.findall(r'"((?:LETTA|MATRIX|MCP|DEV)_\w+)"', Path(original.__file__).read_text())
    assert {"LETTA_API_URL", "DEV_MODE", "MATRIX_ADMIN_PASSWORD", "MCP_PORT"} <= {*known}
    odd_names = ["", "__", "A__B__C", "RUNTIMES__0", f"RUNTIMES__{'9' * 5_000}__URL", "API__\udcff"]
    deep = ENV_PREFIX + "__".join("A" * 2_000)
    return [*dict.fromkeys([*places, *known, *(ENV_PREFIX + one for one in odd_names), deep])]


values = st.sampled_from(
    [
        *[one for one in ODD if isinstance(one, str) and "\0" not in one],
        *("[", "{", "[" * 5_000, "{a: 1, a: 2}", "[0x" + "f" * 5_000 + "]", "{a: 2026-13-45}"),
        *("[&a [x, x], *a]", "{a: &a {b: *a}}", "[]", "{}", "[{type: memory}]", "true", "\udcff"),
        *("[{type: nothing}]", "{'*': admin}", "{url: 'http://[', domain: x}", "[!secret x]"),
    ]
)


_FILES = [key for key in KEYS if key.rpartition(".")[2].endswith(("_file", "_socket", "directory"))]


@pytest.mark.parametrize("key", _FILES)
def test_any_path(file: Path, key: str) -> None:
    for value in ODD:
        file.write_text(yaml.safe_dump(with_changes([(key, value)])), encoding="utf-8")
        told(file)


@given(st.dictionaries(st.sampled_from(_variables()), values, max_size=5))
@settings(max_examples=300)
def test_any_environment(file: Path, environment: dict[str, str]) -> None:
    file.write_text(yaml.safe_dump(SOUND))
    told(file, environment)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"appservice: as_token:{SECRET}", "`appservice` should be a section (got a text)"),
        (f"appservice: {{as_token:{SECRET}}}", "did you mean `appservice.as_token: ...`?"),
        (f"appservice: {{as_token={SECRET}: x}}", "unknown key `appservice.as_token`"),
        (f"appservice: {{as_token: *{SECRET}}}", "wants quotes (line 1, column 24)"),
        (f"appservice: {{as_token: !{SECRET} x}}", "wants quotes (line 1, column 24)"),
        (f"appservice: {{as_token: &a 1, x: &{SECRET} 1, y: &{SECRET} 1}}", "an anchor stands"),
        (f"appservice: {{as_token: [{SECRET}]}}", "`appservice.as_token` should be "),
        (f'appservice: {{as_token: "{SECRET}\\0"}}', "should have no control characters"),
        (f"appservice: {{as_token: |\n    {SECRET}\n  }}", "is not valid YAML: "),
        (f"appservice:\n  as_token: |\n    {SECRET}\n", "should be one line, without the break"),
        (f"runtimes: {SECRET}", "`runtimes` should be a valid list (got a text)"),
        (f"runtimes: [{SECRET}]", "`runtimes.0` should be a section (got a text)"),
        (f"runtimes: [{{type: letta_api, token: {SECRET}}}]", "unknown key `runtimes.0.token`"),
        (f"sms: {{provisioning: 'secret {SECRET}'}}", "`sms.provisioning` should be a section"),
        (f"homeserver: {{url: 'me:{SECRET}@hs.example', domain: x}}", "starts with http:// or"),
        (f"homeserver: {{url: 'https:/me:{SECRET}@hs', domain: x}}", "starts with http:// or"),
        (f"homeserver: {{url: 'https://hs/?token={SECRET}', domain: x}}", "before any ? or #"),
    ],
)
def test_no_secret_shows_where_it_stands_in_the_wrong_place(
    file: Path, text: str, expected: str
) -> None:
    file.write_text(text)
    assert expected in told(file)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "there are more than 50000 values"),
        (BOMB + "agents: {room_members: [*i]}", "there are more than 50000 values"),
        (MERGES, "there are more than 50000 values"),
        ("runtimes: [" + "1, " * 60_000 + "]", "there are more than 50000 values"),
        ("runtimes: &r [*r]", "an alias stands within what it repeats"),
        ("runtimes: &r {<<: *r}", "an alias stands within what it repeats"),
        ("[" * 100_000, "it is nested too deeply"),
        ("#" + "x" * 1_000_000, "it has more than 1000000 bytes"),
        ("api: {port: 1, port: 2}", "a key stands there twice (line 1, column 16)"),
        ("api: {port: 1}\napi: {}", "a key stands there twice (line 2, column 1)"),
        ("api: {port: 2026-02-30}", "it is read as timestamp, and is none"),
        ("api: {port: " + "9" * 5_000 + "}", "it is read as int, and is none"),
        ("api:\n  hostname: a\0b", "there is a control character (line 2)"),
        ("api: {port: 0x" + "f" * 5_000 + "}", "`api.port` should be "),
        ("conversations: {max_hops: 0x" + "f" * 500 + "}", "at most 1000000000000 (got a large n"),
        ("conversations: {max_hops: true}", "`conversations.max_hops` should be a number"),
        ("conversations: {idle_timeout: 99999w}", "should be less than a hundred years"),
        ("conversations: {idle_timeout: .inf}", "less than a hundred years (got `inf`)"),
        ("conversations: {idle_timeout: 0x" + "f" * 500 + "}", "less than a hundred years"),
        ("agents: {allow_paths: ['~nobody-here/x']}", "there is no such user's home folder"),
        ("homeserver: {ca_file: '~nobody-here/x'}", "there is no such user's home folder"),
        ("portals: [{name: a, bot: '@a:b', ghosts: '" + "(" * 5_000 + "'}]", "regular expression"),
        ("sms: {quiet_hours: {start: 1, end: 2, zone: Nowhere}}", "should be a time zone such as"),
        ('api: {hostname: "a\\e[2J"}', "`api.hostname` should be a host name"),
        ("x" * 300 + ": 1", "unknown key `" + "x" * 100 + "...`"),
        ("conversations: {" + ", ".join(f"k{n}: 1" for n in range(900)) + "}", "faults more"),
    ],
)
def test_what_costs_too_much_or_can_only_be_a_mistake(file: Path, text: str, expected: str) -> None:
    file.write_text(text)
    assert expected in told(file)


def test_a_file_without_end(file: Path) -> None:
    assert "it has more than 1000000 bytes" in told(Path("/dev/zero"))


def test_what_aliases_are_for(file: Path) -> None:
    """Settings that several have in common."""
    file.write_text(
        yaml.safe_dump(SOUND)
        + "runtimes:\n- &one {type: memory, agents: 3, speech: false}\n"
        + "- {<<: *one, name: other, agents: 1}\n"
    )
    one, other = load_config(file, {}).runtimes
    assert isinstance(one, MemoryRuntime)
    assert isinstance(other, MemoryRuntime)
    assert (one.agents, other.agents, other.name, other.speech) == (3, 1, "other", False)


def test_the_tenth_of_a_list_comes_after_the_ninth(file: Path) -> None:
    file.write_text(yaml.safe_dump(SOUND | {"runtimes": []}))
    names = {f"{ENV_PREFIX}RUNTIMES__{n}": f"{{type: memory, name: m{n}}}" for n in range(12)}
    found = load_config(file, names).runtimes
    assert [one.name for one in found] == [f"m{n}" for n in range(12)]
