"""What a browser is told of a file that somebody else sent."""

import re
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from tests.builders import config_for
from tests.servers import free_port

from letta_matrix.access.principal import Principal
from letta_matrix.doors.rest.downloading import Found, _headers, forward
from letta_matrix.doors.rest.problems import Problem
from letta_matrix.matrix.route import Route

ANYBODY = Principal("token:a", "")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("notes.md", "notes.md"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Windows\\x.exe", "x.exe"),
        ('a"; filename="b.html', "a_%3B%20filename%3D_b.html"),
        ("a\r\nSet-Cookie: x=1", "a%20Set-Cookie_%20x%3D1"),
        ("\ud800.png", "%EF%BF%BD.png"),
        ("ü.png", "%C3%BC.png"),
        ("..", "file"),
        ("", "file"),
        ("\u202egnp.exe", None),
    ],
)
def test_a_name_is_only_a_name(name: str, shown: str | None) -> None:
    disposition = _headers(Found("mxc://a/b", name))["Content-Disposition"]
    assert re.fullmatch(r"attachment; filename\*=UTF-8''[\w.%~-]+", disposition, re.ASCII)
    if shown is not None:
        assert disposition.endswith(f"''{shown}")


@pytest.mark.parametrize(
    ("media_type", "sent"),
    [
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("text/plain", "text/plain"),
        ("audio/ogg", "audio/ogg"),
        ("image/svg+xml", "application/octet-stream"),
        ("text/html", "application/octet-stream"),
        ("image/png\r\nX: y", "application/octet-stream"),
        ("image/png; charset=x", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_only_what_runs_nothing_keeps_its_type(media_type: str, sent: str) -> None:
    headers = _headers(Found("mxc://a/b", "x", media_type))
    assert headers["Content-Type"] == sent
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("mxc", "slug"),
    [
        ("https://evil.test/x", "not-found"),
        ("mxc://a/../../../_synapse/admin", "not-found"),
        ("mxc://a/b?x=y", "not-found"),
        ("mxc://a@b/c", "not-found"),
        ("mxc://a/b", "unavailable"),
    ],
)
async def test_a_file_that_cannot_be_had_is_a_problem(tmp_path: Any, mxc: str, slug: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    config = config_for(tmp_path, homeserver={"url": url, "domain": "test"})
    intent = SimpleNamespace(homeserver=SimpleNamespace(route=Route(), token="as-secret"))
    caller = Mock(return_value=SimpleNamespace(user_id=config.bot_user_id, intent=intent))
    api: Any = SimpleNamespace(config=config, toolbox=SimpleNamespace(caller=caller))
    async with AsyncExitStack() as opened:
        with pytest.raises(Problem) as caught:
            await forward(api, ANYBODY, Found(mxc), opened)
    assert caught.value.slug == slug
