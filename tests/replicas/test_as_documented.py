"""What docs/how-to/replicas.md has people write, as it stands there."""

import re
import secrets
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.certificates import certificates_in
from tests.nginx import AROUND, nginx_path
from tests.postgres import PostgresServer
from tests.replicas.twins import Twins
from tests.servers import free_port
from tests.waiting import eventually, within

from letta_matrix.store.database import HEAD, Database, database_url

PAGE = Path(__file__).parents[2] / "docs/how-to/replicas.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def made_by_hand(postgres: PostgresServer) -> Iterator[str]:
    """A database made as the page says; how its user reaches it."""
    postgres.execute(*block("sql").strip().splitlines())
    yield postgres.url("letta_matrix", user="letta_matrix")
    postgres.drop("letta_matrix")
    postgres.execute("DROP ROLE letta_matrix")


async def test_the_database(made_by_hand: str, tmp_path: Path) -> None:
    database = Database(database_url(made_by_hand, tmp_path, "choose-one"))
    await database.open()
    assert await database.revision() == HEAD
    await database.close()


@dataclass
class Proxy:
    """nginx before both: where the homeserver would push to, and where people come to."""

    appservice: str
    api: str


@pytest.fixture
def nginx(twins: Twins, tmp_path: Path) -> Iterator[Proxy]:
    program, pushed, asked = nginx_path(), free_port(), free_port()
    if program is None:
        pytest.skip("Debian's nginx is not installed")
    (tmp_path / "nginx.conf").write_text(
        AROUND.format(folder=tmp_path, text=configured(twins, tmp_path, pushed, asked))
    )
    tmp_path.chmod(0o755)
    command = [program, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield Proxy(f"http://127.0.0.1:{pushed}", f"https://127.0.0.1:{asked}")
    process.terminate()
    process.wait()


def configured(twins: Twins, folder: Path, pushed: int, asked: int) -> str:
    """The page's own lines, with the places of this test."""
    made, text = certificates_in(folder, "127.0.0.1"), block("nginx")
    places = {
        "listen 29377": f"listen 127.0.0.1:{pushed}",
        "listen 443": f"listen 127.0.0.1:{asked}",
        "/etc/ssl/letta-matrix/fullchain.pem": str(made.chain),
        "/etc/ssl/letta-matrix/privkey.pem": str(made.key),
    }
    for number, one in enumerate(twins.members, 1):
        host = f"bridge-{number}.internal"
        places[f"{host}:29377"] = f"127.0.0.1:{one.ports['appservice']}"
        places[f"{host}:8004"] = f"127.0.0.1:{one.ports['api']}"
    for named, here in places.items():
        assert named in text
        text = text.replace(named, here)
    return text


async def test_nginx_before_two_replicas(twins: Twins, nginx: Proxy) -> None:
    assert await until_taken(twins, nginx.appservice) == [200] * 6
    await (await twins.other()).end(signal.SIGKILL)
    assert await until_taken(twins, nginx.appservice) == [200] * 6
    await twins.start_all()
    await (await twins.active()).end(signal.SIGKILL)
    await twins.active()
    assert await until_taken(twins, nginx.appservice) == [200] * 6


async def test_people_come_by_nginx(twins: Twins, nginx: Proxy) -> None:
    headers = {"Authorization": f"Bearer {await twins.admin_token()}"}
    stream = f"{nginx.api}/api/v1/overview/events"

    async def is_served() -> bool:
        return await asked(twins, f"{nginx.api}/api/v1/agents", headers) == 200

    await eventually(is_served, what="nginx listens")
    for _ in range(4):
        # Now by the one that acts, now by the one that stands by.
        assert await asked(twins, f"{nginx.api}/api/v1/agents", headers) == 200
        async with twins.http.get(stream, headers=headers, ssl=False) as events:
            assert events.status == 200
            assert await within(events.content.readline())
    assert await asked(twins, f"{nginx.api}/health", {}) == 403
    await (await twins.other()).end(signal.SIGKILL)
    assert [await asked(twins, f"{nginx.api}/api/v1/agents", headers) for _ in range(4)] == [
        200
    ] * 4


async def asked(twins: Twins, url: str, headers: dict[str, str]) -> int:
    """How a request is answered, 0 where nobody listens."""
    try:
        async with twins.http.get(url, headers=headers, ssl=False) as response:
            return response.status
    except aiohttp.ClientError:
        return 0


async def until_taken(twins: Twins, url: str) -> list[int]:
    """How transactions are answered, from the first that is taken on."""

    async def status() -> int:
        txn_id, events = secrets.token_hex(4), list[Any]()
        headers = {"Authorization": f"Bearer {twins.homeserver.hs_token}"}
        path = f"{url}/_matrix/app/v1/transactions/{txn_id}"
        try:
            async with twins.http.put(path, json={"events": events}, headers=headers) as response:
                return response.status
        except aiohttp.ClientError:
            return 0

    async def is_taken() -> bool:
        return await status() == 200

    await eventually(is_taken, what="a transaction is taken")
    return [await status() for _ in range(6)]
