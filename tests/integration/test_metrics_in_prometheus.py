"""A real Prometheus scrapes a bridge, and understands our alerts and our dashboard."""

import json
import shutil
from collections.abc import AsyncGenerator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.bridge_world import Person, Room, World
from tests.prometheus import prometheus_path, prometheus_with
from tests.waiting import eventually

from letta_matrix.access.principal import Scope
from letta_matrix.access.secrets import issue

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"


class Prometheus:
    """A running one."""

    def __init__(self, url: str, world: World) -> None:
        self._url = url
        self._http = world.person.http

    async def asked(self, path: str, **query: str) -> Any:
        async with self._http.get(f"{self._url}/api/v1/{path}", params=query) as response:
            answer = await response.json()
            assert answer["status"] == "success", (query, answer)
            return answer["data"]

    async def value(self, query: str) -> float:
        """What a query finds, 0 for nothing."""
        result = (await self.asked("query", query=query))["result"]
        return sum(float(one["value"][1]) for one in result)

    async def is_up(self) -> bool:
        try:
            async with self._http.get(f"{self._url}/-/ready") as response:
                return response.status == 200
        except OSError:
            return False


@pytest.fixture
async def prometheus(world: World, tmp_path: Path) -> AsyncGenerator[Prometheus]:
    """One that is set up as the documentation says."""
    if prometheus_path() is None:
        pytest.skip("Debian's prometheus is not installed")
    token, stored = issue(agent_id="", scopes=frozenset({Scope.METRICS}))
    await world.bridge.app.stores.tokens.add(stored)
    (tmp_path / "letta-matrix.token").write_text(token + "\n")
    shutil.copy(MONITORING / "alerts.yml", tmp_path)
    example = (MONITORING / "prometheus.yml").read_text(encoding="utf-8")
    config = tmp_path / "prometheus.yml"
    often = example.replace("15s", "500ms")
    config.write_text(often.replace(":8004", f":{world.config.api.port}"))
    with prometheus_with(config) as url:
        made = Prometheus(url, world)
        await eventually(made.is_up, what="Prometheus")
        yield made


async def test_what_a_bridge_does_arrives_there(
    prometheus: Prometheus, world: World, room: Room, ann: Person
) -> None:
    await ann.send(room.room_id, "hello")
    assert await ann.answers(room, 1) == ["echo: hello"]

    def turns_at(stage: str) -> Awaitable[float]:
        return prometheus.value(f'letta_matrix_turn_stage_seconds_count{{stage="{stage}"}}')

    # The last: what was counted before came with it, or earlier.
    await eventually(lambda: turns_at("final"))
    await eventually(lambda: prometheus.value('up{job="letta-matrix"}'), (1.0).__eq__)
    # The agent talks before all of its room is made.
    await eventually(lambda: prometheus.value("letta_matrix_ready"), (1.0).__eq__)
    answered = 'letta_matrix_turns_total{outcome="answered",job="letta-matrix"}'
    assert await prometheus.value(answered) >= 1
    for stage in ("admitted", "asked", "first_text"):
        assert await turns_at(stage) >= 1
    checks = {one["name"] for one in (await world.health())["checks"]}
    shown = (await prometheus.asked("query", query="letta_matrix_check_state"))["result"]
    assert {one["metric"]["check"] for one in shown} == checks
    assert await prometheus.value("process_resident_memory_bytes") > 0
    await understands_what_we_ship(prometheus)


async def understands_what_we_ship(prometheus: Prometheus) -> None:
    groups = (await prometheus.asked("rules"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text(encoding="utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    variables = {"$__rate_interval": "1m", "$job": ".*", "$instance": ".*"}
    for target in [target for panel in panels for target in panel["targets"]]:
        query = target["expr"]
        for name, value in variables.items():
            query = query.replace(name, value)
        assert "$" not in query
        await prometheus.asked("query", query=query)
