"""The original integration's variables, and what settings want of each other."""

import pytest
from tests.unit.test_config import BASE, Load, fault, load

from letta_matrix.config.original import replaced

__all__ = ["fault", "load"]

LOCAL = BASE.replace("http://hs.example:8008", "http://localhost:8008")
ADMIN = {"MATRIX_ADMIN_USERNAME": "@boss:example.org", "MATRIX_ADMIN_PASSWORD": "very-secret"}


def test_an_admins_credentials(load: Load) -> None:
    home = load(**ADMIN).homeserver
    assert home.admin_username == "@boss:example.org"
    assert home.admin_password is not None
    assert home.admin_password.get_secret_value() == "very-secret"
    assert "very-secret" not in repr(home)


def test_dev_mode(load: Load) -> None:
    agents = load("agents: {passwords: true}", base=LOCAL, DEV_MODE="true", **ADMIN).agents
    assert (agents.passwords, agents.dev_mode) == (True, True)
    assert not load(DEV_MODE="false").agents.dev_mode
    assert not load(DEV_MODE="production").agents.dev_mode


def test_half_of_an_admins_credentials_is_none(load: Load) -> None:
    assert load(MATRIX_ADMIN_USERNAME="boss").homeserver.admin_username is None


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("agents: {passwords: true}", {}, "needs `homeserver.admin_username`"),
        ("", {"LETTA_MATRIX__HOMESERVER__ADMIN_USERNAME": "boss"}, "go together"),
        ("agents: {passwords: true}", {**ADMIN, "DEV_MODE": "1"}, "homeserver on this machine"),
    ],
)
def test_what_does_not_go_together(
    fault: Load, text: str, environment: dict[str, str], expected: str
) -> None:
    said = str(fault(text, **environment))
    assert expected in said
    assert "very-secret" not in said


def test_people_of_the_homeserver_need_no_server_name(load: Load) -> None:
    config = load("agents: {room_members: ['@admin', '@matrixadmin', '@you:elsewhere.org']}")
    assert config.agents.room_members == [
        "@admin:example.org",
        "@matrixadmin:example.org",
        "@you:elsewhere.org",
    ]


def test_what_has_no_effect_is_said() -> None:
    (line,) = replaced({"MATRIX_ROOM_ID": "!a:b", "LETTA_API_URL": "x", "MCP_PORT": ""})
    assert line.startswith("MATRIX_ROOM_ID has no effect: every agent has a room of its own")
