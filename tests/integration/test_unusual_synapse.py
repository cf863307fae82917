"""A Synapse as few have it: its name has a port and leads elsewhere, it listens on IPv6 alone,
behind a proxy, below a path and with a certificate of an authority of its own, and its limits are
on. The machine has proxies for everything else."""

import asyncio
import copy
import socket
from collections.abc import AsyncGenerator, Generator
from urllib.parse import quote

import aiohttp
import pytest
import yaml
from tests.certificates import Certificates, certificates_in
from tests.integration.bridge_world import Person, World, bridge_on, new_person
from tests.nginx import PATH, Nginx, nginx_before, nginx_path
from tests.servers import Homeserver, has_ipv6, homeserver_in
from tests.waiting import eventually

from letta_matrix.access.route import homeserver_of
from letta_matrix.app.reach import NotReached, reach
from letta_matrix.cli.doctor.examination import examine
from letta_matrix.cli.doctor.finding import Mark
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.matrix.watch import ServerState, look
from letta_matrix.runtimes.memory import MemoryRuntime

NAME = "reach.invalid:8448"
# As Synapse has them unless told otherwise.
_RATES = {"per_second": 0.2, "burst_count": 10}
_LIMITS: dict[str, object] = {
    "rc_message": _RATES,
    "rc_room_creation": {"per_second": 0.016, "burst_count": 10},
    "rc_joins": {"local": {"per_second": 0.1, "burst_count": 10}},
    "rc_joins_per_room": {"per_second": 1, "burst_count": 10},
    "rc_invites": {
        "per_room": {"per_second": 0.3, "burst_count": 10},
        "per_user": {"per_second": 0.003, "burst_count": 5},
        "per_issuer": {"per_second": 0.3, "burst_count": 10},
    },
    "rc_profile": {"per_second": 1, "burst_count": 10},
}
_WAY = {"TLS", "homeserver", "homeserver version", "registration", "reachability", "media"}
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(scope="module")
def proxies() -> Generator[list[bytes]]:
    """What somebody sent to the proxies of the environment."""
    seen, trap = list[bytes](), socket.create_server(("127.0.0.1", 0))
    trap.setblocking(False)
    url = f"http://127.0.0.1:{trap.getsockname()[1]}"
    with pytest.MonkeyPatch.context() as patch:
        for name in _PROXIES:
            patch.setenv(name, url)
        for name in ("NO_PROXY", "no_proxy"):
            patch.delenv(name, raising=False)
        yield seen
    # Whoever connected waits in the queue of the socket.
    while True:
        try:
            connection, _ = trap.accept()
        except BlockingIOError:
            break
        with connection:
            connection.settimeout(1)
            seen.append(connection.recv(100))
    trap.close()
    assert seen == []


@pytest.fixture(scope="module")
async def synapse(
    http: aiohttp.ClientSession, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Homeserver]:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    server = homeserver_in(tmp_path_factory.mktemp("unusual"), http, name=NAME, host="[::1]")
    (ours, *_) = server.synapse.registrations
    ours.write_text(yaml.safe_dump(yaml.safe_load(ours.read_text()) | {"rate_limited": True}))
    resources = [{"names": ["client"], "compress": False}]
    listener = {"port": server.synapse.port, "type": "http", "resources": resources}
    server.odd = {"listeners": [listener | {"bind_addresses": ["::1"]}], **_LIMITS}
    try:
        await server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates_in(tmp_path_factory.mktemp("certificates"), "127.0.0.1", days=60)


@pytest.fixture(scope="module")
def nginx(
    synapse: Homeserver, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Nginx]:
    if nginx_path() is None:
        pytest.skip("Debian's nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    with nginx_before(synapse.url, folder, certificates, PATH) as proxy:
        yield proxy


@pytest.fixture(scope="module")
async def person(synapse: Homeserver) -> Person:
    return await new_person(synapse)


@pytest.fixture(scope="module")
async def world(
    synapse: Homeserver,
    nginx: Nginx,
    certificates: Certificates,
    proxies: list[bytes],
    person: Person,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[World]:
    """A bridge there."""
    await eventually(lambda: _listens(nginx.url), what="nginx")
    behind = copy.copy(synapse)
    changed = {"url": nginx.url, "ca_file": str(certificates.authority)}
    section = synapse.config.homeserver.model_copy(update=changed)
    behind.config = synapse.config.model_copy(update={"homeserver": section})
    folder = tmp_path_factory.mktemp("bridge")
    async with bridge_on(behind, folder, person, MemoryRuntime()) as made:
        yield made


async def _listens(url: str) -> bool:
    port = int(url.partition("127.0.0.1:")[2].partition("/")[0])
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_agents_answer_there(world: World, person: Person) -> None:
    room = await world.meet()
    assert room.ghost.endswith(f":{NAME}")
    await person.send(room.room_id, "hello")
    assert await person.answers(room, 1) == ["echo: hello"]
    # The path has what a proxy may decode, and the id a colon too many.
    name = quote(f"#letta_control:{NAME}", safe="")
    _, alias = await world.bot.call("GET", f"/directory/room/{name}")
    assert alias["room_id"] in world.bridge.app.home.rooms


async def test_ipv6_alone_is_a_way_there(world: World) -> None:
    section = world.config.homeserver.model_copy(update={"url": world.homeserver.url})
    config = world.config.model_copy(update={"homeserver": section})
    homeserver = homeserver_of(config)
    assert "[::1]" in homeserver.url
    assert await look(homeserver) is ServerState.HERE
    assert await reach(homeserver, config, "t"), "it is pinged"
    await homeserver.close()


async def test_limits_slow_messages_down_and_lose_none(world: World, person: Person) -> None:
    room = await world.meet()
    said, faults = list[str](), world.bridge.app.homeserver.calls.faults
    # Each user has ten at once, and one in five seconds then; what makes a room counts, too.
    while not faults["send", "limited"]:
        assert len(said) < 20
        said.append(f"by myself {len(said)}")
        arguments = {"room_id": room.room_id, "message": said[-1]}
        await world.runtime.call_tool(room.agent.agent_id, "", "matrix_send_message", arguments)
        assert await person.answers(room, len(said)) == said
    assert (await world.health())["troubles"] == []


async def test_the_doctor_finds_nothing_wrong(world: World) -> None:
    subject = Subject(world.config, world.config.directory / "config.yaml", {})
    try:
        found = [one async for one in examine(subject)]
    finally:
        await subject.close()
    of_the_way = {one.name: one for one in found if one.name in _WAY}
    assert of_the_way.keys() == _WAY
    assert [one.says for one in of_the_way.values() if one.mark is not Mark.OK] == []


async def test_an_address_without_its_path_is_told_with_it(world: World) -> None:
    url, _, _ = world.config.homeserver.url.partition(PATH)
    section = world.config.homeserver.model_copy(update={"url": url})
    config = world.config.model_copy(update={"homeserver": section})
    homeserver = homeserver_of(config)
    # Whatever else is served there.
    with pytest.raises(NotReached) as caught:
        await reach(homeserver, config, "t")
    await homeserver.close()
    assert world.config.homeserver.url in str(caught.value)
