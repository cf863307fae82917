"""`/health` answers always, `/ready` only when all is set up."""

import socket
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from mautrix.api import ClientPath, Method
from starlette.applications import Starlette
from structlog.testing import capture_logs
from tests.builders import config_for
from tests.fake_foreign import json_of, page
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.servers import free_port, has_ipv6
from tests.waiting import Clock, eventually, settled

from letta_matrix.app import sweep as module
from letta_matrix.app.bridge import Bridge
from letta_matrix.common.connections.listening import PortTakenError
from letta_matrix.common.vitals import State, Trouble, lines
from letta_matrix.config import Config
from letta_matrix.conversations.catch_up import CatchUp
from letta_matrix.doors.web.health import health_routes, told
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo
from letta_matrix.store.database import StoreUnavailable


def config_on(
    fake: FakeHomeserver, database_file: Path, *, mcp: bool = False, **sections: Any
) -> Config:
    ports = {"port": free_port(), "websocket_port": free_port()} if mcp else {}
    return config_for(
        database_file.parent,
        homeserver={"url": fake.url, "domain": "test"},
        appservice={"as_token": "a", "hs_token": "h", "port": free_port()},
        api={"port": free_port()},
        mcp={"enabled": mcp, **ports},
        database={"url": f"sqlite:///{database_file}"},
        **sections,
    )


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[float]:
    """When missed messages were looked for."""
    times = list[float]()

    async def sweep(_: CatchUp) -> None:
        times.append(clock.now())

    monkeypatch.setattr(CatchUp, "run", sweep)
    return times


async def test_it_tells_when_the_homeserver_is_away(
    fake: FakeHomeserver, database_file: Path, sweeps: list[float], clock: Clock
) -> None:
    runtime = MemoryRuntime()
    runtime.add(AgentInfo("agent-1", "Ada"))
    bridge = Bridge(config_on(fake, database_file), [runtime])
    await bridge.start()
    await clock.until(lambda: bridge.is_ready() and len(sweeps) == 1)
    assert bridge.health.told()["troubles"] == []
    assert bridge.health.told()["runtimes"] == {"memory": {}}
    with capture_logs() as logs:
        await fake.go_away()
        await eventually(lambda: not bridge.is_ready())
        assert bridge.health.told()["troubles"] == ["the homeserver cannot be reached"]
        await fake.start()
        await clock.until(bridge.is_ready)
    assert bridge.health.told()["troubles"] == []
    told = [line["event"] for line in logs if line["log_level"] != "debug"]
    assert told == ["homeserver away", "connected to the homeserver"]
    await clock.until(lambda: len(sweeps) == 2)
    await bridge.close()


async def test_a_slow_homeserver_is_not_swept(
    fake: FakeHomeserver,
    database_file: Path,
    sweeps: list[float],
    clock: Clock,
) -> None:
    bridge = Bridge(config_on(fake, database_file), [MemoryRuntime()])
    await bridge.start()
    await clock.until(lambda: sweeps and bridge.is_ready())
    answers = fake.hold("versions")
    bridge.app.homeserver.outage.set()
    await clock.until(lambda: not bridge.is_ready())
    (told,) = lines(bridge.app.vitals.checks(), State.TROUBLE)
    assert "the homeserver hangs" in told
    answers.set()
    await clock.until(bridge.is_ready)
    for _ in range(8):
        clock.advance(module._BACKLOG_TIMEOUT / 4)
        await settled()
    assert len(sweeps) == 1
    await bridge.close()


async def test_it_tells_at_once_that_the_registration_is_not_known(
    fake: FakeHomeserver, database_file: Path
) -> None:
    unknown = Fault(401, {"errcode": "M_UNKNOWN_TOKEN", "error": "x"})
    fake.fail(".*", *[unknown] * 1000)
    bridge = Bridge(config_on(fake, database_file), [MemoryRuntime()])
    await bridge.start()
    await eventually(lambda: bridge.health.told()["troubles"])
    assert "list registration.yaml" in str(bridge.health.told()["troubles"])
    await bridge.close()


async def test_who_answers_in_its_place_is_told_once(
    fake: FakeHomeserver, database_file: Path, clock: Clock
) -> None:
    bridge = Bridge(config_on(fake, database_file), [MemoryRuntime()])
    await bridge.start()
    await clock.until(bridge.is_ready)
    with capture_logs():
        fake.fail(".", *[page()] * 1000)
        with pytest.raises(HomeserverUnavailable):
            await bridge.app.homeserver.request(
                Method.GET, ClientPath.v3.capabilities, give_up_after=0
            )
        await eventually(lambda: not bridge.is_ready())
        (told,) = lines(bridge.app.vitals.checks(), State.TROUBLE)
        assert "not an answer of Matrix: HTTP 200 with text/html" in told
        fake.heal()
        await clock.until(bridge.is_ready)
    await bridge.close()


async def test_a_homeserver_that_hangs_from_the_start_is_waited_for_aloud(
    fake: FakeHomeserver, database_file: Path, clock: Clock
) -> None:
    answers = fake.hold(".")
    clock.stop()
    bridge = Bridge(config_on(fake, database_file), [MemoryRuntime()])
    await bridge.start()
    await eventually(lambda: fake.matching("ping"))
    clock.advance(10)
    health = bridge.health.told()
    assert (health["status"], health["ready"]) == ("degraded", False)
    waited = "has not answered for 10 s (POST client/v1/appservice/*/ping)"
    assert waited in str(health["troubles"])
    answers.set()
    await clock.until(bridge.is_ready)
    assert bridge.health.told()["status"] == "ok"
    await bridge.close()


@pytest.mark.parametrize("version", ['"\\u00b2"', '"9999999"', "{}", "12"])
async def test_an_odd_room_version_keeps_nobody_waiting(
    fake: FakeHomeserver, database_file: Path, clock: Clock, version: str
) -> None:
    raw = b'{"capabilities": {"m.room_versions": {"default": %b}}}' % version.encode()
    fake.fail("capabilities", json_of(raw))
    bridge = Bridge(config_on(fake, database_file), [MemoryRuntime()])
    await bridge.start()
    await clock.until(bridge.is_ready)
    await bridge.close()


async def test_a_part_that_needs_the_database_says_so_without_a_stack(
    fake: FakeHomeserver, database_file: Path
) -> None:
    bridge = Bridge(config_on(fake, database_file), [MemoryRuntime()])

    async def work() -> None:
        raise StoreUnavailable("the disk is full")

    with capture_logs() as logs:
        bridge._spawn(work)
        await eventually(lambda: logs)
    await bridge._stop_tasks()
    await bridge.app.homeserver.close()
    (line,) = logs
    assert (line["log_level"], line["reason"]) == ("warning", "the disk is full")
    assert "exc_info" not in line


async def test_health_and_readiness() -> None:
    ready = False

    async def is_ready() -> bool:
        return ready

    app = Starlette(
        routes=health_routes(
            lambda: {
                "status": "degraded",
                "ready": False,
                "troubles": ["x"],
                "agents_in_trouble": {"a": "b"},
            },
            is_ready,
            lambda request: request.url.hostname == "bridge",
        )
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://bridge") as http:
        response = await http.get("/health")
        assert response.status_code == 200
        known = {"status": "degraded", "troubles": ["x"], "agents_in_trouble": 1}
        assert response.json().items() >= known.items()
        response = await http.get("/health", headers={"Host": "evil.example"})
        assert response.status_code == 200
        assert response.json()["status"] == "degraded"
        assert response.json().keys() == told({"status": "", "ready": False}).keys()
        response = await http.get("/ready")
        assert (response.status_code, response.json()) == (503, {"ready": False})
        ready = True
        response = await http.get("/ready")
        assert (response.status_code, response.json()) == (200, {"ready": True})


async def test_every_port_tells_the_same(
    fake: FakeHomeserver, database_file: Path, http: aiohttp.ClientSession, clock: Clock
) -> None:
    config = config_on(fake, database_file, mcp=True)
    bridge = Bridge(config, [MemoryRuntime()])
    await bridge.start()
    assert bridge.health.told()["status"] == "starting"
    await clock.until(bridge.is_ready)
    clock.stop()  # or the uptime would differ
    ports = (config.api.port, config.mcp.port, config.mcp.websocket_port)

    async def answers(**headers: str) -> list[dict[str, object]]:
        found = list[dict[str, object]]()
        for port in ports:
            url = f"http://127.0.0.1:{port}/health"
            async with http.get(url, headers=headers) as response:
                assert response.status == 200
                body = await response.json()
                assert body.pop("timestamp")
                found.append(body)
        return found

    known = await answers()
    assert known[0]["status"] == "ok"
    assert (known[0]["mcp_sessions"], known[0]["mcp_clients"]) == (0, 0)
    assert known == [known[0]] * 3
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        strange = await answers(**headers)
        assert strange[0].keys() == {"status", "ready", "authenticated", "agent_sync_available"}
        assert strange == [strange[0]] * 3
    bridge.app.vitals.watch("homeserver", lambda: Trouble("away"))
    assert [one["status"] for one in await answers()] == ["degraded"] * 3
    clock.go()
    await bridge.close()


async def test_health_has_the_fields_of_the_original() -> None:
    original = {"status", "authenticated", "timestamp", "agent_sync_available"}
    assert told({"status": "ok", "ready": True}).keys() >= original
    assert told({"status": "ok", "ready": True})["authenticated"] is True


async def test_a_port_that_is_taken_leaves_no_keeper_behind(
    fake: FakeHomeserver, database_file: Path
) -> None:
    local = {"type": "app_server", "url": "ws://127.0.0.1:9"}
    config = config_on(fake, database_file, mcp=True, runtimes=[local])
    for hostname, port in config.listens:
        told = pytest.raises(PortTakenError, match=f"{hostname}:{port}: Address already in use")
        with socket.create_server((hostname, port)), told:
            await Bridge(config).start()
    assert not [*database_file.parent.glob("keeper*")]


async def test_all_its_ports_may_be_of_ipv6(
    fake: FakeHomeserver, database_file: Path, http: aiohttp.ClientSession
) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    config = config_on(fake, database_file, mcp=True)
    sections = {"api": config.api, "mcp": config.mcp, "appservice": config.appservice}
    there = {"hostname": "::1"}
    changed = {name: one.model_copy(update=there) for name, one in sections.items()}
    config = config.model_copy(update=changed)
    bridge = Bridge(config, [MemoryRuntime()])
    await bridge.start()
    try:
        for path in (f"{config.api.port}/health", f"{config.mcp.port}/health"):
            async with http.get(f"http://[::1]:{path}") as response:
                assert response.status == 200
        url = f"http://[::1]:{config.appservice.port}/_matrix/app/v1/transactions/1"
        async with http.put(url, json={"events": []}, params={"access_token": "h"}) as response:
            assert response.status == 200
        taken = Bridge(config, [MemoryRuntime()])
        with pytest.raises(PortTakenError, match="cannot listen on ::1:"):
            await taken.start()
    finally:
        await bridge.close()
