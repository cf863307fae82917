"""What docs/how-to/replicas.md has people write, as it stands there."""

import re
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.nginx import nginx_path
from tests.postgres import PostgresServer
from tests.replicas.twins import Twins
from tests.servers import free_port
from tests.waiting import eventually

from letta_matrix.store.database import HEAD, Database, database_url

PAGE = Path(__file__).parents[2] / "docs/how-to/replicas.md"
AROUND = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {text}
}}
"""


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


@pytest.fixture
def nginx(twins: Twins, tmp_path: Path) -> Iterator[str]:
    """Before both; where the homeserver would push to."""
    program, port, text = nginx_path(), free_port(), block("nginx")
    if program is None:
        pytest.skip("Debian's nginx is not installed")
    for number, one in enumerate(twins.members, 1):
        host = f"bridge-{number}.internal"
        text = text.replace(f"{host}:29377", f"127.0.0.1:{one.ports['appservice']}")
        text = text.replace(f"{host}:8004", f"127.0.0.1:{one.ports['api']}")
    assert "internal" not in text
    (tmp_path / "nginx.conf").write_text(
        AROUND.format(folder=tmp_path, text=text.replace("listen 29377", f"listen {port}"))
    )
    tmp_path.chmod(0o755)
    command = [program, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


async def test_nginx_before_two_replicas(twins: Twins, nginx: str) -> None:
    assert await until_taken(twins, nginx) == [200] * 6
    await (await twins.other()).end(signal.SIGKILL)
    assert await until_taken(twins, nginx) == [200] * 6
    await twins.start_all()
    await (await twins.active()).end(signal.SIGKILL)
    await twins.active()
    assert await until_taken(twins, nginx) == [200] * 6


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
