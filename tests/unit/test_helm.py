"""The Helm chart, rendered by Helm itself and checked against the schemas of Kubernetes."""

import json
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import yaml

from letta_matrix.config import load_config
from letta_matrix.stack.registration import registration

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/letta-matrix"
PYTHON = ROOT / "build/helm/bin/python"
TOKENS = {"tokens": {"as": "as-token", "hs": "hs-token"}}

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="Helm is not installed: run scripts/helm"
)


Helm = Callable[[dict[str, Any]], dict[str, Any]]
Rendered = Callable[[dict[str, Any]], dict[tuple[str, str], Any]]


@pytest.fixture(scope="module")
def helm() -> Generator[Helm]:
    """What it says of the chart with values."""
    argv = [PYTHON, ROOT / "tests/helm_rendered.py"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def told(values: dict[str, Any]) -> dict[str, Any]:
            print(json.dumps([str(CHART), values]), file=asked, flush=True)
            return json.loads(answers.readline())

        yield told


@pytest.fixture
def rendered(helm: Helm) -> Rendered:
    """What it makes, by kind and name."""

    def made(values: dict[str, Any]) -> dict[tuple[str, str], Any]:
        told = helm(values)
        # 2 is a warning, 3 an error.
        assert [one for one in told["lint"] if one["severity"] >= 2] == []
        assert "fault" not in told
        return {(one["kind"], one["metadata"]["name"]): one for one in told["objects"]}

    return made


NAME = "bridge-letta-matrix"


def test_what_it_makes_is_what_the_bridge_and_the_homeserver_read(
    rendered: Rendered, tmp_path: Path
) -> None:
    config = {"homeserver": {"url": "http://synapse:8008", "domain": "chat.example.org"}}
    config |= {"runtimes": [{"type": "letta_api", "url": "http://letta:8283"}]}
    key = {"LETTA_MATRIX__RUNTIMES__0__API_KEY": "runtime-key"}
    made = rendered(TOKENS | {"config": config, "secrets": key})
    assert made.keys() == {
        ("ConfigMap", NAME),
        ("Secret", NAME),
        ("Secret", f"{NAME}-registration"),
        ("Service", NAME),
        ("StatefulSet", NAME),
    }
    text = made["ConfigMap", NAME]["data"]["config.yaml"]
    assert "token" not in text
    file = tmp_path / "config.yaml"
    file.write_text(text)
    settings = load_config(file, made["Secret", NAME]["stringData"])
    assert settings.appservice.url == f"http://{NAME}.chat.svc:29377"
    assert settings.database.url == "sqlite:////data/letta-matrix.db"
    assert f"{NAME}.chat.svc" in settings.api.allowed_hosts
    (runtime,) = settings.runtimes
    assert runtime.type == "letta_api"
    assert runtime.api_key is not None
    known = made["Secret", f"{NAME}-registration"]["stringData"]["registration.yaml"]
    assert yaml.safe_load(known) == registration(settings)


def test_the_pod_is_confined_and_keeps_its_data(rendered: Rendered) -> None:
    made = rendered(TOKENS)
    workload = made["StatefulSet", NAME]["spec"]
    pod = workload["template"]["spec"]
    (container,) = pod["containers"]
    assert workload["replicas"] == 1
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness")}
    assert (probes["liveness"]["path"], probes["readiness"]["path"]) == ("/health", "/ready")
    (claim,) = workload["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "data"
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert mounts == {"data": "/data", "config": "/data/config.yaml", "tmp": "/tmp"}
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert ports == {"api": 8004, "mcp": 8016, "mcp-ws": 8015, "appservice": 29377}
    service = made["Service", NAME]["spec"]
    assert {one["name"] for one in service["ports"]} == ports.keys()
    labels = workload["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()


def test_secrets_of_ones_own_a_claim_and_the_prometheus_operator(rendered: Rendered) -> None:
    values: dict[str, Any] = {
        "tokens": {"existingSecret": "mine"},
        "persistence": {"existingClaim": "disk"},
        "serviceMonitor": {"enabled": True},
        "fullnameOverride": "lm",
    }
    made = rendered(values)
    assert not [name for kind, name in made if kind == "Secret"]
    workload = made["StatefulSet", "lm"]["spec"]
    assert "volumeClaimTemplates" not in workload
    pod = workload["template"]["spec"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "disk"}} in pod["volumes"]
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "mine"}}]
    (endpoint,) = made["ServiceMonitor", "lm"]["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("api", "/metrics")


def test_a_change_of_settings_starts_the_pod_anew(rendered: Rendered) -> None:
    def annotations(values: dict[str, Any]) -> dict[str, str]:
        workload = rendered(TOKENS | values)["StatefulSet", NAME]["spec"]
        return workload["template"]["metadata"]["annotations"]

    assert annotations({}) == annotations({})
    assert annotations({}) != annotations({"config": {"logging": {"level": "debug"}}})
    assert annotations({}) != annotations({"secrets": {"A": "b"}})


def test_without_tokens_it_says_what_to_do(helm: Helm) -> None:
    assert "openssl rand -hex 32" in helm({})["fault"]


def test_hosts_of_ones_own_come_to_those_of_the_service(rendered: Rendered) -> None:
    config = {"api": {"allowed_hosts": ["letta.example.org", NAME]}}
    made = rendered(TOKENS | {"config": config})
    told = yaml.safe_load(made["ConfigMap", NAME]["data"]["config.yaml"])
    own = [NAME, f"{NAME}.chat", f"{NAME}.chat.svc", f"{NAME}.chat.svc.cluster.local"]
    assert told["api"]["allowed_hosts"] == [*own, "letta.example.org"]
    assert told["mcp"]["allowed_hosts"] == own


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"tokens": {"existingSecret": "mine"}, "secrets": {"A": "b"}}, "into that Secret"),
        (TOKENS | {"config": {"api": {"port": 9000}}}, "config.api.port"),
        (TOKENS | {"config": {"mcp": {"websocket_port": 9000}}}, "config.mcp.websocket_port"),
        (TOKENS | {"config": {"appservice": {"port": 9000}}}, "config.appservice.port"),
    ],
)
def test_what_would_be_dropped_or_lead_nowhere_is_refused(
    helm: Helm, values: dict[str, Any], says: str
) -> None:
    assert says in helm(values)["fault"]


def test_it_says_where_the_registration_is(helm: Helm) -> None:
    notes = helm(TOKENS)["notes"]
    assert f"get secret {NAME}-registration" in notes
    assert "as-token" not in notes
