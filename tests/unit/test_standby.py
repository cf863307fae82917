"""What the ports of a replica that stands by tell of it, and to whom."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs
from tests.builders import config_for
from tests.servers import free_port
from tests.waiting import Clock

from letta_matrix.app.seat import PORTS
from letta_matrix.app.standby import Standby
from letta_matrix.common.connections.listening import PortTakenError
from letta_matrix.common.vitals import Trouble
from letta_matrix.store.leases import Replica

BROKEN = Trouble("the schema is of a later version", "upgrade this replica")
FEW = {"status", "ready", "authenticated", "agent_sync_available", "timestamp"}


class FakeWay:
    reaches: bool | None = True


class FakeSeat:
    """A seat without a database: who has it is what the test says."""

    replica_id = "ours"

    def __init__(self) -> None:
        self.active: Replica | None = None
        self.replicas: list[Replica] = []
        self.trouble: Trouble | None = None
        self.way = FakeWay()
        self.differs: list[str] = []

    def told(self) -> dict[str, object]:
        return {"state": "standby", "replicas": [{"replica": "other", "address": "10.1.2.3:8004"}]}


class Stage:
    """A standby, and one that acts behind it, which says `acts` to everything."""

    def __init__(self, directory: Path, http: aiohttp.ClientSession) -> None:
        self.ports: dict[str, int] = {name: free_port() for name in PORTS}
        ports = self.ports
        config = config_for(
            directory,
            appservice={"as_token": "a", "hs_token": "h", "port": ports["appservice"]},
            api={"port": ports["api"], "allowed_hosts": ["api.test"]},
            mcp={
                "port": ports["mcp"],
                "websocket_port": ports["mcp_websocket"],
                "allowed_hosts": ["mcp.test"],
            },
        )
        self.seat = FakeSeat()
        self.standby = Standby(config, self.seat)  # pyright: ignore[reportArgumentType]
        self._http = http

    def act(self, port: int, state: str = "active", replica_id: str = "other") -> None:
        ports: dict[str, int] = dict.fromkeys(self.ports, port)
        self.seat.active = Replica(replica_id, "127.0.0.1", ports, "1", state)
        ours = Replica("ours", "127.0.0.1", self.ports, "1", "standby")
        self.seat.replicas = [self.seat.active, ours]

    async def get(self, path: str, name: str = "api", **headers: str) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.ports[name]}{path}"
        # A connection of its own: what is passed on stays so.
        headers["Connection"] = "close"
        async with self._http.get(url, headers=headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.startswith("{") else text


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncGenerator[Stage]:
    async def acts(_request: web.Request) -> web.Response:
        return web.Response(text="acts")

    app, port = web.Application(), free_port()
    app.router.add_get("/{path:.*}", acts)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    async with aiohttp.ClientSession() as http:
        stage = Stage(tmp_path, http)
        stage.act(port)
        await stage.standby.open()
        yield stage
        await stage.standby.close()
    await runner.cleanup()


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("api", {"Host": "evil.test"}),
        ("api", {"Host": "mcp.test"}),
        ("api", {"Origin": "http://evil.test"}),
        ("mcp", {"Host": "api.test"}),
        ("mcp_websocket", {"Host": "evil.test"}),
    ],
)
async def test_strangers_learn_what_a_probe_needs(
    stage: Stage, name: str, headers: dict[str, str]
) -> None:
    status, told = await stage.get("/health", name, **headers)
    assert (status, set(told)) == (200, FEW)


@pytest.mark.parametrize(
    ("name", "host"), [("api", "api.test"), ("mcp", "mcp.test"), ("mcp_websocket", "localhost")]
)
async def test_who_is_known_learns_how_it_is(stage: Stage, name: str, host: str) -> None:
    status, told = await stage.get("/health", name, Host=host)
    assert status == 200
    assert set(told) - FEW == {"version", "replica", "troubles"}
    assert told["replica"]["replicas"] == [{"replica": "other"}]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("appservice", "/health"),
        ("appservice", "/ready"),
        ("mcp", "/ready"),
        ("mcp_websocket", "/ready"),
        ("api", "/chat"),
    ],
)
async def test_what_the_bridge_has_no_health_under_is_passed_on(
    stage: Stage, name: str, path: str
) -> None:
    assert await stage.get(path, name) == (200, "acts")


@pytest.mark.parametrize(
    ("state", "status"), [("active", 200), ("draining", 200), ("starting", 503), ("standby", 503)]
)
async def test_it_is_ready_while_one_that_acts_has_its_ports_open(
    stage: Stage, state: str, status: int
) -> None:
    stage.act(1, state)
    assert await stage.get("/ready") == (status, {"ready": status == 200})
    _, told = await stage.get("/health")
    assert told["status"] == ("ok" if status == 200 else "degraded")
    assert bool(told["troubles"]) is (status != 200)


async def test_without_one_that_acts_it_is_not_ready(stage: Stage) -> None:
    stage.seat.active = None
    assert (await stage.get("/ready"))[0] == 503


async def test_what_keeps_it_from_taking_over_keeps_nobody_out(stage: Stage) -> None:
    stage.seat.trouble = BROKEN
    assert (await stage.get("/ready"))[0] == 200
    _, told = await stage.get("/health")
    assert (told["status"], told["ready"]) == ("degraded", True)
    assert told["troubles"] == ["this replica cannot take over; its log says why"]


async def test_that_it_does_not_reach_the_homeserver_is_told_and_keeps_nobody_out(
    stage: Stage,
) -> None:
    stage.seat.way.reaches = False
    assert (await stage.get("/ready"))[0] == 200
    _, told = await stage.get("/health")
    assert (told["status"], told["ready"]) == ("degraded", True)
    assert "does not reach the homeserver" in told["troubles"][0]


async def test_that_it_goes_by_other_settings_is_told_and_keeps_nobody_out(stage: Stage) -> None:
    stage.seat.differs = ["runtimes", "permissions"]
    assert (await stage.get("/ready"))[0] == 200
    _, told = await stage.get("/health")
    assert (told["status"], told["ready"]) == ("degraded", True)
    assert "is not that of the one that acts, in runtimes, permissions" in told["troubles"][0]


async def test_it_does_not_lead_to_itself_while_the_seat_names_it(stage: Stage) -> None:
    stage.act(stage.ports["appservice"], replica_id="ours")
    for name in PORTS:
        status, told = await stage.get("/chat", name)
        assert (status, told["errcode"]) == (503, "M_UNKNOWN")
    assert (await stage.get("/ready"))[0] == 503


async def test_two_replicas_of_one_address_are_told_of(stage: Stage) -> None:
    stage.act(1)
    assert stage.seat.active is not None
    stage.seat.replicas[1] = Replica("ours", "127.0.0.1", stage.seat.active.ports, "1", "standby")
    assert (await stage.get("/chat"))[0] == 503
    _, told = await stage.get("/health")
    assert told["ready"] is False
    assert "replica.address" in told["troubles"][0]


async def test_one_that_acts_and_is_not_reached_is_told_of(stage: Stage, clock: Clock) -> None:
    """Its `replica.address` may be wrong: whoever comes here is served by nobody."""
    reached = stage.seat.active
    assert reached is not None
    clock.stop()
    probing = asyncio.create_task(stage.standby.probe())
    stage.act(free_port())
    with capture_logs() as logs:
        await clock.until(lambda: not stage.standby.is_ready)
        assert (await stage.get("/ready"))[0] == 503
        _, told = await stage.get("/health")
        assert (told["status"], "`replica.address`" in told["troubles"][0]) == ("degraded", True)
        stage.act(reached.ports["api"])
        await clock.until(lambda: stage.standby.is_ready)
    (told,) = logs
    assert told["event"] == "the replica that acts is not reached"
    assert "nothing listens at 127.0.0.1:" in told["reason"]
    probing.cancel()


async def test_one_connection_that_fails_turns_nobody_away(
    stage: Stage, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.stop()
    fails, ready = [True, False, True, True], list[bool]()
    real = asyncio.open_connection
    reached = stage.seat.active
    assert reached is not None
    stage.seat.active = replace(reached, ports={"api": reached.ports["api"]})

    async def dial(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        ready.append(stage.standby.is_ready)
        if fails and fails.pop(0):
            raise TimeoutError
        return await real(host, port)

    monkeypatch.setattr(asyncio, "open_connection", dial)
    probing = asyncio.create_task(stage.standby.probe())
    with capture_logs() as logs:
        await clock.until(lambda: len(ready) > 4)
    assert ready == [True, True, True, True, False]
    (told,) = [one["reason"] for one in logs]
    assert told == f"127.0.0.1:{reached.ports['api']}: no answer came in time"
    probing.cancel()


async def test_a_port_that_is_taken_leaves_none_open(stage: Stage) -> None:
    await stage.standby.close()
    with socket.create_server(("127.0.0.1", stage.ports["mcp"])), pytest.raises(PortTakenError):
        await stage.standby.open()
    with pytest.raises(aiohttp.ClientConnectionError):
        await stage.get("/ready")
