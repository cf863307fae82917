"""compose.scale.yaml, on top of compose.yaml."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.compose_kit import HERE, Services, made, mounts_of, nginx_in, services_of
from tests.nginx import nginx_path
from tests.servers import free_port
from tests.waiting import eventually
from yarl import URL

from letta_matrix.config import load_config
from letta_matrix.stack.compose_scale import make_scale_secrets
from letta_matrix.stack.volumes import Volumes

ONE, SCALE = services_of("compose.yaml"), services_of("compose.scale.yaml")
REPLICAS = ("letta-matrix", "letta-matrix-2")
ADDRESS = "LETTA_MATRIX__REPLICA__ADDRESS"


def both(name: str, key: str) -> dict[str, Any]:
    """A mapping of a service, as compose merges the two files."""
    return {**ONE.get(name, {}).get(key, {}), **SCALE[name].get(key, {})}


def address_of(name: str) -> str:
    return str(both(name, "networks")["default"]["ipv4_address"])


def scaled(root: Path) -> Volumes:
    volumes = made(root)
    make_scale_secrets(volumes)
    return volumes


def test_the_replicas_differ_in_their_address_alone() -> None:
    environments = [both(name, "environment") for name in REPLICAS]
    assert [one.pop(ADDRESS) for one in environments] == list(REPLICAS)
    assert environments[0] == environments[1]
    first, second = ({**ONE.get(name, {}), **SCALE[name]} for name in REPLICAS)
    kept = first.keys() - {"environment", "networks", "depends_on"}
    assert {key: first[key] for key in kept} == {key: second[key] for key in kept}
    assert both(REPLICAS[0], "depends_on") == both(REPLICAS[1], "depends_on")


def test_a_replica_has_its_place_and_the_database(tmp_path: Path) -> None:
    volumes = scaled(tmp_path)
    given = {key: str(value) for key, value in SCALE["letta-matrix"]["environment"].items()}
    config = load_config(volumes.path("bridge/config.yaml"), given)
    assert config.replica.address == "letta-matrix"
    assert config.database.url == "postgresql://letta_matrix@postgres/letta_matrix"
    password = volumes.path("bridge/database.password").read_text().strip()
    assert config.database_password == password
    known = {f"{address_of(name)}/32" for name in ("nginx", *REPLICAS)}
    assert {str(one) for one in config.api.trusted_proxies} == known


def test_every_fixed_address_is_ones_own() -> None:
    names = ONE.keys() | SCALE.keys()
    given = [
        str(service["networks"]["default"]["ipv4_address"])
        for service in ({**ONE.get(name, {}), **SCALE.get(name, {})} for name in names)
        if "networks" in service
    ]
    assert len(set(given)) == len(given)
    # The registration's name for the bridge is nginx to Synapse.
    assert SCALE["synapse"]["extra_hosts"] == [f"letta-matrix:{address_of('nginx')}"]


def test_what_is_new_has_no_more_than_it_needs() -> None:
    new: Services = {name: SCALE[name] for name in SCALE.keys() - ONE.keys()}
    assert not [name for name, one in SCALE.items() if "ports" in one]
    for name, service in new.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
    assert [name for name, one in new.items() if "cap_add" in one] == ["database"]
    mounts = mounts_of(SCALE)
    assert mounts["redis-secret"] == {"setup", "redis"}
    assert mounts["postgres-secret"] == {"database"}
    assert mounts["bridge"] == {"database", "letta-matrix-2"}
    assert mounts["synapse"] == {"synapse-reader", "synapse-writer"}
    # What of them is mounted besides, all may read.
    assert {one for one in mounts if one.startswith("./")} == {
        "./deploy/compose/workers",
        "./deploy/compose/backends.scale.conf",
    }


def test_secrets_are_made_once(tmp_path: Path) -> None:
    volumes = scaled(tmp_path)
    names = ("synapse/redis.password", "synapse/replication.secret", "bridge/database.password")
    kept = (*names, "redis-secret/redis.conf")
    first = {name: volumes.path(name).read_bytes() for name in kept}
    make_scale_secrets(volumes)
    assert {name: volumes.path(name).read_bytes() for name in kept} == first
    assert len(set(first.values())) == len(kept)
    assert {volumes.path(name).stat().st_mode & 0o777 for name in kept} == {0o600}
    password = first["synapse/redis.password"].decode().strip()
    assert f"requirepass {password}\n" in first["redis-secret/redis.conf"].decode()


_PARSED = """
import json, sys
from synapse.config.homeserver import HomeServerConfig
found = {}
for name, *files in json.loads(sys.argv[1]):
    read = HomeServerConfig.load_config(name, [one for file in files for one in ("-c", file)])
    worker = read.worker
    listeners = worker.worker_listeners if worker.worker_app else read.server.listeners
    served = lambda one: [it for part in one.http_options.resources for it in part.names]
    found[name] = [
        worker.instance_name,
        [[one.port, served(one)] for one in listeners],
        worker.writers.events,
        {key: [one.host, one.port] for key, one in worker.instance_map.items()},
        [worker.should_notify_appservices, worker.run_background_tasks],
        worker.worker_replication_secret,
    ]
print(json.dumps(found))
"""


def test_synapse_reads_what_its_processes_are_told(tmp_path: Path) -> None:
    volumes = scaled(tmp_path)
    homeserver, *workers = (
        volumes.path("synapse/homeserver.yaml"),
        *sorted((HERE / "deploy/compose/workers").glob("*.yaml")),
    )
    here: dict[str, str] = {}
    for file in (homeserver, *workers):
        text = file.read_text().replace("/data/", f"{tmp_path}/synapse/")
        # Redis' client is in the images alone.
        text = text.replace("redis:\n  enabled: true", "redis:\n  enabled: false")
        here[file.stem] = str(tmp_path / file.name)
        (tmp_path / file.name).write_text(text)
    common = (here["homeserver"], here["all"])
    asked = [("main", *common), *((name, *common, here[name]) for name in ("reader", "writer"))]
    argv = [sys.executable, "-c", _PARSED, json.dumps(asked)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    secret = volumes.path("synapse/replication.secret").read_text().strip()
    places = {"master": ["synapse", 9093], "writer": ["synapse-writer", 9094]}
    of_main = {"main": places["master"], "writer": places["writer"]}
    client = ["client"]
    assert json.loads(done.stdout) == {
        "main": [
            "master",
            [[8008, ["client", "federation"]], [9093, ["replication"]]],
            ["writer"],
            of_main,
            [True, True],
            secret,
        ],
        "reader": ["reader", [[8081, client]], ["writer"], places, [False, False], secret],
        "writer": [
            "writer",
            [[8082, client], [9094, ["replication"]]],
            ["writer"],
            places,
            [False, False],
            secret,
        ],
    }


def test_each_process_is_told_its_files() -> None:
    for name in ("synapse", "synapse-reader", "synapse-writer"):
        told = [one for one in SCALE[name]["command"] if one.startswith("--config-path=")]
        own = name.removeprefix("synapse").removeprefix("-")
        files = ["/data/homeserver.yaml", "/workers/all.yaml"]
        wanted = [*files, *([f"/workers/{own}.yaml"] if own else [])]
        assert told == [f"--config-path={one}" for one in wanted], name


READER, WRITER, MAIN = "synapse-reader:8081", "synapse-writer:8082", "synapse:8008"
BRIDGES = ("letta-matrix:29377", "letta-matrix-2:29377")
V3, ROOM = "/_matrix/client/v3", "%21a%2Fsend:example.org"
READ = (
    f"{V3}/sync?since=s1",
    f"{V3}/rooms/{ROOM}/messages?dir=b",
    f"{V3}/rooms/{ROOM}/state",
    f"{V3}/rooms/{ROOM}/event/%24e",
    f"/_matrix/client/v1/rooms/{ROOM}/relations/%24e",
    "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync",
)
WRITTEN = (
    f"{V3}/rooms/{ROOM}/send/m.room.message/sync",
    f"{V3}/rooms/{ROOM}/state/m.room.name/",
    f"{V3}/rooms/{ROOM}/redact/%24e/1",
    f"{V3}/rooms/{ROOM}/join",
    f"{V3}/join/{ROOM}?via=example.org",
)
REST = (f"{V3}/login", f"{V3}/createRoom", f"{V3}/rooms/{ROOM}/typing/@a:b", "/_matrix/media/v3/x")
CLOSED = ("/_synapse/admin/v1/register", "/_matrix/%2e%2e/_synapse/admin", "/_matrix/app/v1/ping")


@pytest.fixture(params=["", READER])
def behind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A running nginx, whose backends are servers of its own that say their names, but for one
    that is lost; where each is reached."""
    program, lost = nginx_path(), request.param
    if program is None:
        pytest.skip("Debian's nginx is not installed")
    made(tmp_path)
    tmp_path.chmod(0o755)
    served = [name for name in (READER, WRITER, MAIN, *BRIDGES) if name != lost]
    names = ("8443", "8444", "8445", "nginx:29377", READER, *served)
    places = {name: f"127.0.0.1:{free_port()}" for name in names}
    config = nginx_in(tmp_path, "backends.scale.conf", places)
    with (tmp_path / "backends.scale.conf").open("a") as file:
        for name in served:
            file.write(f'server {{ listen {places[name]}; return 200 "{name}"; }}\n')
    # One process: a worker of another user could not look into the test's folder.
    extra = "daemon off; master_process off;"
    process = subprocess.Popen([program, "-c", str(config), "-g", extra])
    yield {**places, "lost": lost}
    process.terminate()
    process.wait()


@pytest.mark.skipif(nginx_path() is None, reason="Debian's nginx is not installed")
async def test_nginx_knows_whose_request_it_is(
    behind: dict[str, str], http: aiohttp.ClientSession
) -> None:
    async def says(url: str) -> str:
        try:
            async with http.get(URL(url, encoded=True), ssl=False) as response:
                return await response.text() if response.status == 200 else str(response.status)
        except aiohttp.ClientError:
            return ""

    people, homeserver = f"https://{behind['8443']}", f"http://{behind['nginx:29377']}"
    await eventually(lambda: says(people + REST[0]), what="nginx listens")
    # The main process can do what that of the readers does.
    reader = MAIN if behind["lost"] else READER
    wanted = {
        **dict.fromkeys(READ, reader),
        **dict.fromkeys(WRITTEN, WRITER),
        **dict.fromkeys(REST, MAIN),
        **dict.fromkeys(CLOSED, "404"),
    }
    assert {path: await says(people + path) for path in wanted} == wanted
    pushed = [await says(f"{homeserver}/_matrix/app/v1/transactions/1") for _ in range(4)]
    assert set(pushed) == set(BRIDGES)
    assert await says(f"{homeserver}/health") == "404"
