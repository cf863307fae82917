"""Configurations of replicas are compared by what they have in common."""

from pathlib import Path
from typing import Any

import pytest
from tests.builders import config_for

from letta_matrix.app import common_settings as settings_module
from letta_matrix.app.common_settings import common_settings, differing

SERVICE = {"as_token": "as-secret", "hs_token": "hs-secret"}
HOME = {"url": "http://127.0.0.1:9", "domain": "test"}
PROVISIONING = {"url": "http://127.0.0.1:29336", "secret": "p-secret"}


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"api": {"port": 1, "hostname": "::1"}, "mcp": {"port": 2, "websocket_port": 3}}, []),
        ({"appservice": {**SERVICE, "port": 4, "hostname": "::1"}}, []),
        ({"database": {"url": "postgresql://b@db/b", "password": "x"}}, []),
        ({"homeserver": {**HOME, "url": "http://127.0.0.2:9"}}, []),
        ({"replica": {"address": "bridge-2"}, "logging": {"level": "debug"}}, []),
        ({"homeserver": {**HOME, "pid_file": "hs.pid", "ca_file": "ca.pem"}}, []),
        ({"appservice": {**SERVICE, "hs_token": "another"}}, ["appservice"]),
        ({"appservice": {**SERVICE, "as_token": "another"}}, ["appservice"]),
        ({"homeserver": {**HOME, "domain": "other"}}, ["homeserver"]),
        ({"runtimes": [{"type": "memory", "agents": 1}]}, ["runtimes"]),
        ({"agents": {"allow_paths": ["/srv/here"]}}, []),
        (
            {"permissions": {"test": "admin"}, "agents": {"space_name": "Others"}},
            ["agents", "permissions"],
        ),
    ],
)
def test_what_differs(tmp_path: Path, sections: dict[str, Any], told: list[str]) -> None:
    ours = common_settings(config_for(tmp_path))
    theirs = common_settings(config_for(tmp_path / "elsewhere", **sections))
    assert differing(ours, theirs) == told
    assert "secret" not in str(ours)


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        ({"url": "ws://10.0.0.1:4500", "pid_file": "here.pid"}, {"url": "ws://127.0.0.1:45"}, []),
        ({"keeper_socket": "a.sock"}, {"keeper_socket": "b.sock"}, []),
        ({"url": "ws://10.0.0.1:4500", "token": "t"}, {"keeper": "a:1", "keeper_token": "k"}, []),
        ({"keeper": "b:2", "keeper_token_file": "k"}, {"keeper": "a:1", "keeper_token": "k"}, []),
        ({"permission_mode": "unrestricted"}, {}, ["runtimes"]),
        ({"name": "another"}, {}, ["runtimes"]),
    ],
)
def test_each_has_its_own_way_to_a_runtime(
    tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any], told: list[str]
) -> None:
    one, other = (
        common_settings(config_for(tmp_path, runtimes=[{"type": "app_server", **each}]))
        for each in (ours, theirs)
    )
    assert differing(one, other) == told


@pytest.mark.parametrize(
    ("sms", "told"),
    [
        ({"provisioning": {**PROVISIONING, "url": "http://10.0.0.1:29336"}}, []),
        ({"provisioning": PROVISIONING, "takeover": 5}, ["sms"]),
        (None, ["sms"]),
    ],
)
def test_each_has_its_own_way_to_the_phone(
    tmp_path: Path, sms: dict[str, Any] | None, told: list[str]
) -> None:
    ours = common_settings(config_for(tmp_path, sms={"provisioning": PROVISIONING}))
    assert differing(ours, common_settings(config_for(tmp_path, sms=sms))) == told


def test_another_release_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = common_settings(config_for(tmp_path))
    monkeypatch.setattr(settings_module, "__version__", "0.0.1")
    assert differing(ours, common_settings(config_for(tmp_path, permissions={}))) == []
    assert differing(ours, {}) == []
