"""A real proxy answers in the homeserver's place in the midst of a turn, and then no more."""

import asyncio
import copy
from collections.abc import AsyncGenerator, Generator, Iterator

import aiohttp
import pytest
from tests.integration.bridge_world import Person, World, bridge_on
from tests.nginx import Nginx, nginx_before, nginx_path
from tests.scripts import held
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest

TEXT = "".join(f"word{number} " for number in range(20)).strip()


@pytest.fixture(scope="module")
def nginx(homeserver: Homeserver, tmp_path_factory: pytest.TempPathFactory) -> Generator[Nginx]:
    if nginx_path() is None:
        pytest.skip("Debian's nginx is not installed")
    with nginx_before(homeserver.url, tmp_path_factory.mktemp("nginx")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
async def fronted(
    homeserver: Homeserver,
    nginx: Nginx,
    ann: Person,
    http: aiohttp.ClientSession,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[World]:
    """A bridge that reaches the homeserver through nginx; people reach it directly."""

    async def answers() -> bool:
        try:
            async with http.get(f"{nginx.url}/health") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    await eventually(answers, what="nginx")
    behind = copy.copy(homeserver)
    section = homeserver.config.homeserver.model_copy(update={"url": nginx.url})
    behind.config = homeserver.config.model_copy(update={"homeserver": section})
    directory = tmp_path_factory.mktemp("fronted")
    async with bridge_on(behind, directory, ann, MemoryRuntime()) as world:
        yield world


@pytest.mark.parametrize(
    ("instead", "told"), [("maintenance", "Back soon"), ("login", "https://sso.example.org/login")]
)
async def test_a_turn_survives_what_a_proxy_says_instead(
    fronted: World, nginx: Nginx, ann: Person, instead: str, told: str
) -> None:
    room, other = await fronted.meet(), await fronted.meet()
    free = asyncio.Event()

    def work(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        return held(free)

    fronted.runtime.script = work
    await ann.send(room.room_id, "begin")
    await eventually(
        lambda: ann.bodies(room.room_id, room.ghost), lambda said: "word0" in str(said)
    )
    nginx.say(instead)
    try:
        free.set()
        await ann.send(other.room_id, "meanwhile")
        await ann.send(room.room_id, "and then?")
        await eventually(
            fronted.health,
            lambda health: told in str(health["troubles"]) and not health["ready"],
        )
    finally:
        nginx.say()
    assert await ann.answers(room, 2) == [TEXT, TEXT]
    assert await ann.answers(other, 1) == [TEXT]
    await fronted.idle()
    await eventually(fronted.health, lambda health: health["ready"] and health["status"] == "ok")
    assert [len(fronted.asked(one)) for one in (room, other)] == [2, 1]
    counters = (await fronted.health())["counters"]
    assert "turns_given_up" not in counters
