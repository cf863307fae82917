"""Configurations of replicas are compared by what they have in common."""

from pathlib import Path
from typing import Any

import pytest
from tests.builders import config_for

from letta_matrix.app import common_settings as settings_module
from letta_matrix.app.common_settings import common_settings, differing

SERVICE = {"as_token": "as-secret", "hs_token": "hs-secret"}


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"api": {"port": 1, "hostname": "::1"}, "mcp": {"port": 2, "websocket_port": 3}}, []),
        ({"appservice": {**SERVICE, "port": 4, "hostname": "::1"}}, []),
        ({"database": {"url": "postgresql://b@db/b", "password": "x"}}, []),
        ({"homeserver": {"url": "http://127.0.0.2:9", "domain": "test"}}, []),
        ({"replica": {"address": "bridge-2"}, "logging": {"level": "debug"}}, []),
        ({"appservice": {**SERVICE, "hs_token": "another"}}, ["appservice"]),
        ({"appservice": {**SERVICE, "as_token": "another"}}, ["appservice"]),
        ({"homeserver": {"url": "http://127.0.0.1:9", "domain": "other"}}, ["homeserver"]),
        ({"runtimes": [{"type": "memory", "agents": 1}]}, ["runtimes"]),
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


def test_another_release_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = common_settings(config_for(tmp_path))
    monkeypatch.setattr(settings_module, "__version__", "0.0.1")
    assert differing(ours, common_settings(config_for(tmp_path, permissions={}))) == []
    assert differing(ours, {}) == []
