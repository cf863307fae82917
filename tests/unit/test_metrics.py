"""`/metrics` tells what the bridge is and does, to whom it may, in words that Prometheus reads."""

import json
import re
import shutil
import subprocess
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import yaml
from mautrix.api import ClientPath, Method
from mautrix.errors import MatrixRequestError
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs
from tests.builders import always, asked_approval, message
from tests.fake_homeserver import Fault
from tests.prometheus import promtool_path
from tests.stage import Stage
from tests.unit.test_docs import codes, rows, section, text_of
from tests.waiting import eventually

from letta_matrix.access.principal import Scope
from letta_matrix.access.secrets import issue
from letta_matrix.app.doors import Doors
from letta_matrix.app.metric import Metric
from letta_matrix.app.metrics import Metrics
from letta_matrix.common.vitals import Trouble
from letta_matrix.conversations.journeys import Stage as Reached
from letta_matrix.matrix.appservice import Appservice
from letta_matrix.matrix.homeserver import HomeserverUnavailable

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
_NAME = re.compile(r"letta_matrix_[a-z_]+")


class Watched:
    """The metrics of a stage, and the port that shows them."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        appservice = Appservice("h", cast("Any", None))
        self.metrics = Metrics(stage.parts, appservice, lambda: True)
        doors = Doors(stage.config, stage.parts, dict, always, self.metrics.all())
        transport = httpx.ASGITransport(doors.rest())
        self.http = httpx.AsyncClient(transport=transport, base_url="http://bridge")

    async def token(self, *scopes: Scope) -> str:
        text, stored = issue(agent_id="", scopes=frozenset(scopes))
        await self.stage.stores.tokens.add(stored)
        return text

    async def get(self, token: str = "", **headers: str) -> httpx.Response:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return await self.http.get("/metrics", headers=headers)

    async def shown(self) -> str:
        response = await self.get(await self.token(Scope.METRICS))
        assert response.status_code == 200
        return response.text

    async def figures(self) -> dict[str, float]:
        """All that is shown, by name and labels as they are written."""
        lines = [line for line in (await self.shown()).split("\n") if line and line[0] != "#"]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


@pytest.fixture
async def watched(stage: Stage) -> AsyncGenerator[Watched]:
    made = Watched(stage)
    yield made
    await made.http.aclose()


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        ((Scope.METRICS,), 200),
        ((Scope.ADMIN,), 200),
        ((Scope.READ, Scope.WRITE, Scope.ROOMS, Scope.AGENTS), 403),
    ],
)
async def test_it_is_for_tokens_with_the_scope(
    watched: Watched, scopes: tuple[Scope, ...], status: int
) -> None:
    response = await watched.get(await watched.token(*scopes))
    assert response.status_code == status
    if status != 200:
        assert response.json()["type"].endswith("/forbidden")
        assert 'scope="metrics"' in response.headers["WWW-Authenticate"]


@pytest.mark.parametrize("token", ["", "lm_" + "0" * 12 + "_" + "x" * 43])
async def test_without_a_token_it_tells_nothing(watched: Watched, token: str) -> None:
    with capture_logs():
        response = await watched.get(token)
    assert response.status_code == 401
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert "letta_matrix_" not in response.text


async def test_a_token_for_metrics_is_good_for_nothing_else(watched: Watched) -> None:
    headers = {"Authorization": f"Bearer {await watched.token(Scope.METRICS)}"}
    for path in ("/api/v1/agents", "/api/v1/stats", "/api/v1/turns"):
        url = "http://127.0.0.1" + path
        assert (await watched.http.get(url, headers=headers)).status_code == 403, path


async def test_a_turn_is_timed_from_stage_to_stage(watched: Watched, stage: Stage) -> None:
    await stage.tell(message("hello"))
    figures = await watched.figures()
    for reached in Reached:
        name = f'letta_matrix_turn_stage_seconds_count{{stage="{reached}"}}'
        assert figures[name] == 1, name
    assert figures["letta_matrix_turn_seconds_count"] == 1
    assert figures['letta_matrix_turns_total{outcome="answered"}'] == 1
    assert figures['letta_matrix_turns_total{outcome="failed"}'] == 0
    assert figures['letta_matrix_runtime_turn_seconds_count{runtime="memory"}'] == 1
    assert figures['letta_matrix_homeserver_request_seconds_count{kind="send"}'] >= 1
    assert figures['letta_matrix_events_total{result="routed"}'] == 1
    assert figures["letta_matrix_turns_oldest_seconds"] == 0
    assert not [name for name in figures if name.startswith("letta_matrix_turns_unfinished")]
    commits = figures["letta_matrix_database_commit_seconds_count"]
    assert figures["letta_matrix_database_transactions_total"] >= commits > 2
    assert figures['letta_matrix_database_bytes{file="main"}'] > 0
    assert figures['letta_matrix_agents{status="active"}'] == 2
    assert not stage.dispatcher.queues.journeys._under_way


async def test_what_waits_is_counted_with_its_age(watched: Watched, stage: Stage) -> None:
    stage.runtime.available = False
    sent_at = stage.parts.homeserver.clock.now() - 600
    await stage.admit(message("hello", origin_server_ts=int(sent_at * 1000)))
    await eventually(lambda: stage.runner.calls.faults)
    figures = await watched.figures()
    waiting = 'letta_matrix_turns_unfinished{kind="message",status="queued"}'
    assert figures[waiting] == 1
    assert figures["letta_matrix_turns_oldest_seconds"] >= 600
    fault = 'letta_matrix_runtime_faults_total{fault="runtime_unavailable",runtime="memory"}'
    assert figures[fault] >= 1


async def test_what_waits_for_an_approval_hides_nothing_that_waits(
    watched: Watched, stage: Stage
) -> None:
    stage.runtime.available = False
    now = stage.parts.homeserver.clock.now()
    ages = ((9_000, "!1:test"), (7_000, "!1:test"), (600, "!2:test"))
    for age, room in ages:
        sent_at = int((now - age) * 1000)
        await stage.admit(message(f"{age}", room_id=room, origin_server_ts=sent_at))
    await eventually(lambda: len(stage.dispatcher.queues.unfinished()) == len(ages))
    (oldest, *_) = sorted(stage.dispatcher.queues.unfinished(), key=lambda turn: turn.sent_at)
    stores = stage.stores
    await stores.database.execute(stores.approvals.insert(asked_approval(oldest, "k1")))
    figures = await watched.figures()
    assert figures["letta_matrix_approvals_waiting"] == 1
    assert 600 <= figures["letta_matrix_turns_oldest_seconds"] < 7_000


async def test_metrics_say_what_health_says(watched: Watched, stage: Stage) -> None:
    vitals = stage.vitals
    vitals.watch("homeserver", lambda: None)
    vitals.watch("decoration", lambda: Trouble("no picture", warns=True))
    vitals.watch("runtime local", lambda: Trouble("away"))
    figures = await watched.figures()
    for name, state in (("homeserver", 0), ("decoration", 1), ("runtime local", 2)):
        assert figures[f'letta_matrix_check_state{{check="{name}"}}'] == state
    assert figures["letta_matrix_ready"] == 1


async def test_failures_of_the_homeserver_are_counted_by_kind(
    watched: Watched, stage: Stage
) -> None:
    homeserver = stage.parts.homeserver
    busy = Fault(500, {"errcode": "M_UNKNOWN", "error": "x"})
    refused = Fault(403, {"errcode": "M_FORBIDDEN", "error": "x"})
    stage.fake.fail("capabilities", busy, refused)
    for fault in (HomeserverUnavailable, MatrixRequestError):
        with pytest.raises(fault):
            await homeserver.request(Method.GET, ClientPath.v3.capabilities, give_up_after=0)
    figures = await watched.figures()
    for word in ("failed", "refused"):
        name = f'letta_matrix_homeserver_faults_total{{fault="{word}",kind="read"}}'
        assert figures[name] == 1


async def test_prometheus_finds_nothing_wrong_with_it(watched: Watched, stage: Stage) -> None:
    await stage.tell(message("hello"))
    shown = await watched.shown()
    assert [*text_string_to_metric_families(shown)]
    promtool("check", "metrics", given=shown)
    newest = "application/openmetrics-text; version=1.0.0"
    response = await watched.get(await watched.token(Scope.METRICS), Accept=newest)
    assert response.headers["Content-Type"].startswith(newest)
    assert response.text.endswith("# EOF\n")


def promtool(*arguments: str, given: str = "") -> str:
    """What Debian's promtool says; it has to be content."""
    program = promtool_path()
    if program is None:
        pytest.skip("Debian's prometheus is not installed")
    command = [program, *arguments]
    done = subprocess.run(command, check=False, input=given, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def shipped() -> Mapping[str, str]:
    """What is given to Prometheus and Grafana, by name."""
    return {
        name: (MONITORING / name).read_text(encoding="utf-8")
        for name in ("alerts.yml", "grafana-dashboard.json")
    }


async def test_dashboard_and_alerts_ask_for_metrics_that_there_are(watched: Watched) -> None:
    known = {shown for metric in watched.metrics.all() for shown in shown_by(metric)}
    for file, text in shipped().items():
        asked = set(_NAME.findall(text))
        assert asked, file
        assert asked <= known, file


def shown_by(metric: Metric) -> list[str]:
    if metric.kind != "histogram":
        return [metric.name]
    return [f"{metric.name}_{suffix}" for suffix in ("bucket", "sum", "count")]


def test_the_dashboard_names_its_data_source_by_a_variable() -> None:
    dashboard = json.loads(shipped()["grafana-dashboard.json"])
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)
    assert all(panel["title"] and panel["targets"] for panel in panels)


def test_each_alert_says_what_to_do() -> None:
    groups = yaml.safe_load(shipped()["alerts.yml"])["groups"]
    alerts = [rule for group in groups for rule in group["rules"]]
    names = [alert["alert"] for alert in alerts]
    assert len(names) == len(set(names)) > 5
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical"), alert
        assert alert["annotations"].keys() == {"summary", "description"}, alert
    page = section(text_of("how-to/monitoring.md"), "## Alerts")
    assert [codes(row[0])[0] for row in rows(page)[1:]] == names


def test_alerts_come_and_go(tmp_path: Path) -> None:
    for name in ("alerts.yml", "prometheus.yml"):
        shutil.copy(MONITORING / name, tmp_path)
    (tmp_path / "letta-matrix.token").write_text("x")
    promtool("check", "config", str(tmp_path / "prometheus.yml"))
    cases = Path(shutil.copy(Path(__file__).with_name("alert_cases.yml"), tmp_path))
    promtool("test", "rules", str(cases))
    tested = yaml.safe_load(cases.read_text(encoding="utf-8"))["tests"]
    samples = [
        one for test in tested for it in test["promql_expr_test"] for one in it["exp_samples"]
    ]
    fired = {re.findall(r'alertname="(\w+)"', one["labels"])[0] for one in samples}
    groups = yaml.safe_load(shipped()["alerts.yml"])["groups"]
    assert fired == {rule["alert"] for group in groups for rule in group["rules"]}
