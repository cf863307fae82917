"""The configuration: defaults, environment, and errors that say what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from letta_matrix.app.logs import secrets_of
from letta_matrix.config import AppServerRuntime, Config, ConfigError, MemoryRuntime, load_config

BASE = """
homeserver: {url: "http://hs.example:8008", domain: example.org}
appservice: {as_token: secret-a, hs_token: secret-h}
"""

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str = "", *, base: str = BASE, **environment: str) -> Config:
        path = tmp_path / "config.yaml"
        path.write_text(base + text, encoding="utf-8")
        return load_config(path, environment)

    return load_text


@pytest.fixture
def fault(load: Load, tmp_path: Path) -> Callable[..., str]:
    """Loads what cannot be loaded and returns the error, the file's folder cut off."""

    def text_of_error(text: str = "", *, base: str = BASE, **environment: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text, base=base, **environment)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return text_of_error


def test_defaults(load: Load, tmp_path: Path) -> None:
    config = load()
    assert config.bot_user_id == "@letta:example.org"
    assert config.appservice.port == 29377
    assert config.database.url == "sqlite:///letta-matrix.db"
    assert config.runtimes == []
    assert config.conversations.max_event_age == 24 * 3600
    assert config.directory == tmp_path
    assert config.path("keeper.sock") == tmp_path / "keeper.sock"
    assert config.path("/run/keeper.sock") == Path("/run/keeper.sock")


def test_blank_sections_are_as_good_as_absent(load: Load) -> None:
    assert load("conversations:\nruntimes:\n").runtimes == []


def test_trailing_slashes_of_urls_go(load: Load) -> None:
    assert load(LETTA_MATRIX__HOMESERVER__URL="https://a.b/").homeserver.url == "https://a.b"


def test_runtimes(load: Load) -> None:
    runtimes = load("runtimes: [{type: app_server}, {type: memory, agents: 3}]").runtimes
    assert [type(one) for one in runtimes] == [AppServerRuntime, MemoryRuntime]
    assert [one.name for one in runtimes] == ["local", "memory"]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("0", 0),
        ("2.5", 2.5),
        ("'7'", 7),
        ("500ms", 0.5),
        ("30s", 30),
        ("1.5 m", 90),
        ("24h", 86_400),
        ("2d", 172_800),
    ],
)
def test_durations(load: Load, written: str, seconds: float) -> None:
    config = load(f"conversations: {{approval_timeout: {written}}}")
    assert config.conversations.approval_timeout == seconds


@pytest.mark.parametrize("written", ["soon", "-5", "true", ".nan", "5 weeks", "[]", "''"])
def test_wrong_durations(fault: Callable[..., str], written: str) -> None:
    assert fault(f"conversations: {{idle_timeout: {written}}}").startswith(
        "config.yaml: `conversations.idle_timeout` should be seconds or a text such as `500ms`, "
        "`30s`, `24h` (got "
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("conversation: {}", "unknown key `conversation`; did you mean `conversations`?"),
        (
            "agents: {rom_name: x}",
            "unknown key `agents.rom_name`; did you mean `agents.room_name`?",
        ),
        ("as_token: x", "unknown key `as_token`; did you mean `appservice.as_token`?"),
        ("runtimes: [{type: memory, nam: x}]", "unknown key `runtimes.0.nam`; did you mean "),
        ("access: {oidc: {}}", "`access.oidc.issuer` is missing: as in the tokens' `iss`, and "),
        (
            "access: {oidc: {issuer: 'https://a.b', audience: x, admns: []}}",
            "unknown key `access.oidc.admns`; did you mean `access.oidc.admins`?",
        ),
        (
            "access: {oidc: {issuer: 'http://a.b', audience: x}}",
            "`access.oidc.issuer` should start with https://, unless it is on this machine (got ",
        ),
        (
            "access: {oidc: {issuer: 'https://a.b', audience: ''}}",
            "`access.oidc.audience` should be a text without spaces, usually a URL (got ``)",
        ),
        (
            "access: {audit_room: '#audit:a.b'}",
            "`access.audit_room` should be a room id such as !abc:example.org (got `#audit:a.b`)",
        ),
        (
            "mcp: {allowed_hosts: ['a.b:80']}",
            "`mcp.allowed_hosts.0` should be a host such as matrix.example.org, without a port",
        ),
        (
            "api: {cors_origins: ['*']}",
            "`api.cors_origins.0` should be an origin such as https://example.org, without a path",
        ),
        ("conversations: {tool_scopes: [admin]}", "`conversations.tool_scopes.0` should be 'read'"),
        ("directory: /tmp", "unknown key `directory`"),
        ("5: x", "unknown key `5`"),
        ("zzz: x", "unknown key `zzz`"),
        ("agents: 5", "`agents` should be a section (got `5`)"),
        ("agents: [1]", "`agents` should be a section (got a list)"),
        ("runtimes: {a: b}", "`runtimes` should be a valid list (got a section)"),
        ("runtimes: [5]", "`runtimes.0` should be a section (got `5`)"),
        (
            "runtimes: [{name: x}]",
            "`runtimes.0.type` is missing: "
            "`app_server`, `letta_api`, `openai_compatible` or `memory`",
        ),
        (
            "runtimes: [{type: appserver}]",
            "`runtimes.0.type` should be one of "
            "'app_server', 'letta_api', 'openai_compatible', 'memory' (got `appserver`)",
        ),
        (
            "runtimes: [{type: memory}, {type: memory}]",
            "`runtimes` should each have a `name` of its own; taken twice: memory (got a list)",
        ),
        (
            "runtimes: [{type: app_server}, {type: memory}, "
            "{type: app_server, name: b, keeper_socket: ./keeper.sock}]",
            "`runtimes` should each have a `keeper_socket` of its own; taken twice: "
            "./keeper.sock; set `runtimes.2.keeper_socket` (got a list)",
        ),
        (
            "runtimes: [{type: app_server, url: 'http://x'}]",
            "`runtimes.0.url` should be a URL that starts with ws:// or wss:// (got a text)",
        ),
        *(
            (
                f"runtimes: [{{type: app_server, keeper: '{place}', keeper_token_file: t}}]",
                "`runtimes.0.keeper` should be HOST:PORT or tls://HOST:PORT (got ",
            )
            for place in ("here", "here:0", "here:x", "ws://here:4510", "u:p@here:4510", "h:1/x")
        ),
        (
            "runtimes: [{type: app_server, keeper: 'h:4510'}]",
            "`runtimes.0` should have a `keeper_token_file` for its `keeper` (or a "
            "`keeper_token`) (got a section)",
        ),
        (
            "runtimes: [{type: app_server, keeper: 'h:4510', keeper_token: x, "
            "keeper_token_file: t}]",
            "`runtimes.0` should have a `keeper_token_file` for its `keeper` (or a ",
        ),
        (
            "runtimes: [{type: app_server, keeper_token_file: t}]",
            "`runtimes.0` should name a `keeper`, where it has a token for one",
        ),
        (
            "runtimes: [{type: app_server, keeper: 'h:4510', keeper_token_file: t, token: x}]",
            "`runtimes.0` should not set `token` beside `keeper`: that is the keeper's to know",
        ),
        (
            "runtimes: [{type: app_server, keeper: 'h:4510', keeper_token_file: t}, "
            "{type: app_server, name: b, keeper: 'h:4510', keeper_token_file: t}]",
            "`runtimes` should each have a `keeper` of its own; taken twice: h:4510; "
            "set `runtimes.1.keeper` (got a list)",
        ),
        ("runtimes: [{type: memory, app_server: 1}]", "unknown key `runtimes.0.app_server`"),
        ("api: {port: 99999}", "`api.port` should be less than or equal to 65535 (got `99999`)"),
        ("api: {port: eight}", "`api.port` should be a valid integer (got `eight`)"),
        ("agents: {poll_interval: 0}", "`agents.poll_interval` should be greater than 0 (got "),
        # Nobody is to take it for "no limit": every turn, and every session, would end at once.
        ("conversations: {idle_timeout: 0}", "`conversations.idle_timeout` should be greater "),
        ("conversations: {turn_timeout: 0s}", "`conversations.turn_timeout` should be greater "),
        ("mcp: {idle_timeout: 0}", "`mcp.idle_timeout` should be greater than 0 (got "),
        *(
            (
                f"runtimes: [{{type: {kind}, url: '{url}', request_timeout: 0}}]",
                "`runtimes.0.request_timeout` should be greater than 0 (got ",
            )
            for kind, url in (
                ("app_server", "ws://h:1"),
                ("letta_api", "http://h"),
                ("openai_compatible", "http://h"),
            )
        ),
        (
            "agents: {room_members: [alice]}",
            "`agents.room_members.0` should be a user id such as @you:example.org (got `alice`)",
        ),
        (
            "logging: {level: LOUD}",
            "`logging.level` should be 'debug', 'info', 'warning' or 'error' (got `LOUD`)",
        ),
        ("permissions: {'*': owner}", "`permissions.*` should be 'block', 'user' or 'admin' (got "),
        ("permissions: {'@alice': user}", "`permissions.@alice` should be `*`, a server name, or "),
        ("database: {url: 'mysql://u:pw@h/x'}", "`database.url` should be sqlite:///FILE "),
    ],
)
def test_faults_name_file_key_and_expectation(
    fault: Callable[..., str], text: str, expected: str
) -> None:
    assert fault(text).startswith(f"config.yaml: {expected}")


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("", "config.yaml: `homeserver` is missing: a section with `url`, `domain`"),
        (
            BASE.replace(", domain: example.org", ""),
            "config.yaml: `homeserver.domain` is missing: server name, the part after the colon "
            "in user ids",
        ),
        (
            BASE.replace("http://hs", "hs"),
            "config.yaml: `homeserver.url` should be a URL that starts with http:// or https:// "
            "(got `hs.example:8008`)",
        ),
        (
            BASE.replace("example.org", "http://x"),
            "config.yaml: `homeserver.domain` should be a server name such as example.org",
        ),
        (BASE.replace("secret-h", "''"), "config.yaml: `appservice.hs_token` should not be empty"),
        ("- a", "config.yaml: expected sections such as `homeserver:`, got a list"),
        ("text", "config.yaml: expected sections such as `homeserver:`, got `text`"),
    ],
)
def test_faults_of_what_is_required(fault: Callable[..., str], base: str, expected: str) -> None:
    assert fault(base=base).startswith(expected)


def test_every_fault_is_told_at_once(fault: Callable[..., str]) -> None:
    lines = fault("api: {port: x}\nagent: {}\n", base="").splitlines()
    assert len(lines) == 4
    assert all(line.startswith("config.yaml: ") for line in lines)


def test_no_secret_in_any_error(fault: Callable[..., str]) -> None:
    for base in (
        BASE.replace("secret-a", "[secret-a]"),
        BASE.replace("secret-a", "secret-a, x: [secret-h"),
        BASE.replace("secret-a", "{x: secret-a}"),
        BASE.replace("as_token", "as_tken"),
        BASE + "database: {url: 'mysql://letta:secret-h@db/x'}",
    ):
        assert "secret-" not in fault(base=base)
    assert "secret-" not in fault(LETTA_MATRIX__APPSERVICE__AS_TOKEN="[secret-a")


def test_tokens_do_not_show(load: Load) -> None:
    assert "secret-" not in repr(load())


def test_invalid_yaml_tells_the_place(fault: Callable[..., str]) -> None:
    assert fault("a: [").startswith("config.yaml: is not valid YAML: ")
    assert fault("a: [").endswith("(line 4, column 5)")


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file; `.*letta-matrix init` writes one"):
        load_config(tmp_path / "none.yaml", {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path, {})
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not a text file in UTF-8"):
        load_config(binary, {})


def test_environment_overrides_the_file(load: Load) -> None:
    config = load(
        "runtimes: [{type: memory}]",
        LETTA_MATRIX__CONVERSATIONS__IDLE_TIMEOUT="2m",
        LETTA_MATRIX__API__PORT="8104",
        LETTA_MATRIX__APPSERVICE__AS_TOKEN="12345",
        LETTA_MATRIX__AGENTS__ROOM_MEMBERS='["@a:b.c"]',
        LETTA_MATRIX__RUNTIMES__0__AGENTS="3",
        LETTA_MATRIX__RUNTIMES__1__TYPE="app_server",
        LETTA_MATRIX__HOMESERVER__URL="",
        UNRELATED="x",
    )
    assert config.conversations.idle_timeout == 120
    assert config.api.port == 8104
    assert config.appservice.as_token.get_secret_value() == "12345"
    assert config.agents.room_members == ["@a:b.c"]
    assert [one.name for one in config.runtimes] == ["memory", "local"]
    assert config.homeserver.url == "http://hs.example:8008"


def test_environment_alone_is_enough(load: Load) -> None:
    config = load(
        base="",
        MATRIX_HOMESERVER_URL="http://legacy",
        LETTA_MATRIX__HOMESERVER__DOMAIN="d.example",
        LETTA_MATRIX__APPSERVICE="{as_token: a, hs_token: b}",
        LETTA_MATRIX__RUNTIMES="[{type: memory}]",
    )
    assert config.homeserver.url == "http://legacy"
    assert len(config.runtimes) == 1


def test_the_process_environment_is_used(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    monkeypatch.setenv("LETTA_MATRIX__HOMESERVER__DOMAIN", "d.example")
    assert load_config(tmp_path / "config.yaml").homeserver.domain == "d.example"


def test_legacy_variables_yield_to_the_file(load: Load) -> None:
    assert load(MATRIX_HOMESERVER_URL="http://legacy").homeserver.url == "http://hs.example:8008"


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("API__PRT", "1", "unknown key `api.prt`; did you mean `api.port`?"),
        ("API__PORT", "x", "`api.port` should be a valid integer (got `x`)"),
        ("APPI__PORT", "1", "unknown key `appi`; did you mean `api`?"),
        ("HOMESERVER__URL__X", "1", "`x` cannot be inside a text"),
        ("API__HOSTNAME", "[broken", "is not valid YAML, though it starts with ["),
        ("RUNTIMES__5__URL", "x", "`5` should be a place from 0 to 1"),
        ("RUNTIMES__X__URL", "x", "`x` should be a place from 0 to 1"),
        ("RUNTIMES__0__URL", "x", "`runtimes.0.url` should be a URL that starts with ws://"),
        ("", "x", "unknown key ``"),
    ],
)
def test_faults_of_the_environment_name_the_variable(
    fault: Callable[..., str], variable: str, value: str, expected: str
) -> None:
    name = f"LETTA_MATRIX__{variable}"
    told = fault("runtimes: [{type: app_server}]", **{name: value})
    assert told.startswith(f"{name}: {expected}")


def test_role_of(load: Load) -> None:
    config = load(
        "permissions: {'@boss:example.org': admin, '@bad:example.org': block, example.org: user,"
        " 'other.example:8448': user}"
    )
    roles = {
        "@boss:example.org": "admin",
        "@bad:example.org": "block",
        "@alice:example.org": "user",
        "@bob:other.example:8448": "user",
        "@bob:other.example": "block",
        "@alice:sub.example.org": "block",
        "@Boss:example.org": "user",
        "nonsense": "block",
        "": "block",
    }
    assert {user_id: config.role_of(user_id) for user_id in roles} == roles


def test_role_of_anybody(load: Load) -> None:
    config = load("permissions: {'*': user, evil.example: block}")
    assert config.role_of("@a:b.c") == "user"
    assert config.role_of("@a:evil.example") == "block"


def test_without_permissions_everybody_is_blocked(load: Load) -> None:
    assert load().role_of("@alice:example.org") == "block"


def test_a_phone_line_has_the_users_of_its_homeserver(load: Load) -> None:
    line = load("sms: {}").sms
    assert line is not None
    users = (line.bot, line.ghosts, line.line, line.routes)
    ghosts = r"@gmessages_(\d+\.\d+):example\.org"
    assert users == ("@gmessagesbot:example.org", ghosts, "@letta_sms:example.org", {})
    relayed = load("sms: {line: null, default_agent: Ada, routes: {'+1555*': Bea}}").sms
    assert relayed is not None
    assert (relayed.line, relayed.routes) == (None, {"*": "Ada", "+1555*": "Bea"})
    assert load().bridges == []


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{region: Germany}", "`sms.region` should be a country's two letters"),
        ("{provisioning: {url: 'http://x'}}", "`sms.provisioning.secret` is missing"),
        ("{default_agnet: Ada}", "did you mean `sms.default_agent`?"),
        ("{bot: '@irc:x'}\nportals: [{name: irc, bot: '@irc:x', ghosts: x}]", "taken twice"),
    ],
)
def test_faults_of_a_phone_line(fault: Callable[..., str], section: str, expected: str) -> None:
    assert expected in fault(f"sms: {section}")


def test_the_secret_of_a_phone_line_is_masked_and_may_come_from_the_environment(
    load: Load,
) -> None:
    variable = {"LETTA_MATRIX__SMS__PROVISIONING__SECRET": "hidden"}
    config = load("sms: {provisioning: {url: 'http://127.0.0.1:29336'}}", **variable)
    assert "hidden" in secrets_of(config)
    assert "hidden" not in repr(config)
