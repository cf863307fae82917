"""Which hosts and web pages a door answers to."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.builders import config_for

from letta_matrix.access.guard import Guard, Guarded, Refused, api_guard, mcp_guard

ANY = "0.0.0.0"


@pytest.fixture
def guard(tmp_path: Path) -> Callable[..., Guard]:
    def make(**mcp: Any) -> Guard:
        return mcp_guard(config_for(tmp_path, mcp=mcp))

    return make


@pytest.mark.parametrize(
    ("host", "settings"),
    [
        ("127.0.0.1:8016", {}),
        ("localhost:8016", {}),
        ("LOCALHOST.:8016", {}),
        ("[::1]:8016", {}),
        ("[0:0:0:0:0:0:0:1]", {}),
        ("localhost", {}),
        ("localhost:", {}),
        ("localhost:9000", {}),
        ("192.168.1.5:8016", {"hostname": "192.168.1.5"}),
        ("[fd00::5]:8016", {"hostname": "fd00:0::5"}),
        ("mcp.example.org", {"public_url": "https://mcp.example.org/letta"}),
        ("mcp.example.org:443", {"public_url": "https://mcp.example.org"}),
        ("Bridge.LAN:8016", {"allowed_hosts": ["bridge.lan"]}),
        ("[fe80::1]", {"allowed_hosts": ["[fe80::1]"]}),
        ("192.168.1.5:8016", {"hostname": ANY}),
        ("[fd00::5]:8016", {"hostname": "::"}),
    ],
)
def test_hosts_that_are_ours(guard: Callable[..., Guard], host: str, settings: Any) -> None:
    guard(**settings).check(host, None)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8016",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.5:8016",
        "localhost@evil.example",
        "localhost, evil.example",
        "[::1]evil.example",
        "[::1",
        "localhost:80:80",
        "localhost:x",
        "localhost:\u0661",
        "localhost/..",
        "x" * 5000,
        " ",
        "\u2127.0.0.1",
        "0x7f.1",
        "2130706433",
        "127.1",
    ],
)
def test_hosts_that_are_not(guard: Callable[..., Guard], host: str) -> None:
    with pytest.raises(Refused, match=r"mcp\.allowed_hosts") as refused:
        guard().check(host, None)
    assert (refused.value.status, refused.value.slug) == (421, "host-refused")


@pytest.mark.parametrize("host", ["evil.example", "0x7f.1", "2130706433", "localhost.evil.example"])
def test_on_all_addresses_a_name_must_be_known(guard: Callable[..., Guard], host: str) -> None:
    with pytest.raises(Refused):
        guard(hostname=ANY).check(host, None)


@pytest.mark.parametrize("host", [None, ""])
def test_a_request_needs_a_host(guard: Callable[..., Guard], host: str | None) -> None:
    with pytest.raises(Refused) as refused:
        guard().check(host, None)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("host", "origin", "settings"),
    [
        ("127.0.0.1:8016", "http://127.0.0.1:8016", {}),
        ("localhost", "http://localhost", {}),
        ("localhost:80", "http://localhost", {}),
        ("m.org", "https://m.org", {"allowed_hosts": ["m.org"]}),
        ("127.0.0.1:8016", "https://app.example", {"allowed_origins": ["https://app.example"]}),
        ("127.0.0.1:8016", "https://APP.example:443", {"allowed_origins": ["https://app.example"]}),
        ("127.0.0.1:8016", "https://m.org", {"public_url": "https://m.org/mcp"}),
    ],
)
def test_pages_that_may_come(
    guard: Callable[..., Guard], host: str, origin: str, settings: Any
) -> None:
    guard(**settings).check(host, origin)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://localhost:3000",
        "http://127.0.0.1",
        "http://app.example",
        "https://app.example:8443",
        "https://app.example.evil.example",
        "https://app.example/",
        "https://evil@app.example",
        "https://app.example,https://evil.example",
        "file://",
        "ftp://localhost:8016",
        "null",
        "",
        "https://" + "x" * 5000,
    ],
)
def test_pages_that_may_not(guard: Callable[..., Guard], origin: str) -> None:
    settings = {"allowed_origins": ["https://app.example"]}
    with pytest.raises(Refused, match=r"mcp\.allowed_origins") as refused:
        guard(**settings).check("localhost:8016", origin)
    assert (refused.value.status, refused.value.slug) == (403, "origin-refused")


def test_the_api_has_settings_of_its_own(tmp_path: Path) -> None:
    api = {"cors_origins": ["https://app.example"], "public_url": "https://m.org"}
    guard = api_guard(config_for(tmp_path, api=api))
    guard.check("m.org", "https://app.example")
    with pytest.raises(Refused, match=r"api\.cors_origins"):
        guard.check("m.org", "https://other.example")
    with pytest.raises(Refused, match=r"api\.public_url"):
        guard.check("other.example", None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.text(), st.none() | st.text())
def test_no_header_whatever_passes(tmp_path: Path, host: str, origin: str | None) -> None:
    ours = mcp_guard(config_for(tmp_path, mcp={"hostname": "::"}))
    for name in (host, f"{host}localhost", f"localhost:8016{host or '@'}"):
        with suppress(Refused):
            ours.check(name, None)
            assert re.fullmatch(r"(localhost|\[?[0-9a-f:.]+\]?)\.?(:\d*)?", name, re.IGNORECASE)
    if origin is not None:
        with pytest.raises(Refused):
            ours.check("localhost:8016", origin)


async def ask(guard: Guard, kind: str, *headers: tuple[bytes, bytes]) -> list[Any]:
    """What a guarded application answers; the application itself says `through`."""
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send("through")

    async def receive() -> Any:
        return {}

    async def send(message: Any) -> None:
        sent.append(message)

    await Guarded(app, guard)({"type": kind, "headers": list(headers)}, receive, send)
    return sent


async def test_what_is_refused_does_not_come_through(guard: Callable[..., Guard]) -> None:
    ours, others = (b"host", b"localhost:8016"), (b"host", b"evil.example")
    assert await ask(guard(), "http", ours) == ["through"]
    assert await ask(guard(), "websocket", ours) == ["through"]
    assert await ask(guard(), "lifespan") == ["through"]
    assert await ask(guard(), "websocket", others) == [{"type": "websocket.close", "code": 1008}]
    start, body = await ask(guard(), "http", others)
    assert start["status"] == 421
    problem = json.loads(body["body"])
    assert problem["type"] == "https://letta-matrix.dev/problems/host-refused"
    assert problem["title"] == "Misdirected Request"
    assert dict(start["headers"])[b"content-type"] == b"application/problem+json"


async def test_headers_that_come_twice_are_not_picked_from(guard: Callable[..., Guard]) -> None:
    hosts = (b"host", b"localhost"), (b"host", b"evil.example")
    assert (await ask(guard(), "http", *hosts))[0]["status"] == 421
    origins = (b"origin", b"http://localhost"), (b"origin", b"https://evil.example")
    assert (await ask(guard(), "http", hosts[0], *origins))[0]["status"] == 403
