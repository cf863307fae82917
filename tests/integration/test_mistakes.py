"""The commonest mistakes in the configuration, made on a real Synapse: each is told in the sentence
that docs/how-to/own-homeserver.md explains."""

import secrets
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from tests.servers import Homeserver, ServerProcess, free_port, homeserver_in, is_ready

from letta_matrix.app.reach import reach
from letta_matrix.config import Config
from letta_matrix.matrix.appservice import Appservice
from letta_matrix.matrix.homeserver import Homeserver as Client
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.stack.registration import registration
from letta_matrix.stack.synapse import Synapse

Json = dict[str, Any]
PAGE = Path(__file__).parents[2] / "docs/how-to/own-homeserver.md"
UNUSED = free_port()


class _Nobody:
    async def admit(self, txn_id: str, events: list[Json]) -> None: ...

    async def has_user(self, user_id: str) -> bool:
        return False

    def is_ready(self) -> bool:
        return True


@dataclass
class Registered:
    """A Synapse that has read one registration for each mistake."""

    homeserver: Homeserver
    tokens: dict[str, str]

    def config(self, name: str, **sections: Json) -> Config:
        """As the operator has written it, who has changed `sections`."""
        values: Json = self.homeserver.config.model_dump(mode="json")
        service = {"id": name, "as_token": self.tokens[name], "hs_token": "same"}
        values["appservice"] |= service | {"bot_username": f"bot_{name}"}
        for section, changes in sections.items():
            values[section] |= changes
        return Config.model_validate(values)


IN_THE_REGISTRATION: dict[str, tuple[Callable[[str], Json], str]] = {
    "right": (lambda _: {}, ""),
    "port": (lambda _: {"url": f"http://127.0.0.1:{UNUSED}"}, "Nobody listens there, as seen"),
    "host": (lambda _: {"url": "http://bridge.invalid:29377"}, "it knows no such host"),
    "other": (lambda url: {"url": url}, "another program answers there"),
    "path": (lambda _: {"url": "PATH"}, "another program answers there"),
    "tls": (lambda _: {"url": "TLS"}, "our port has no TLS"),
    "ipv6": (lambda _: {"url": "http://[::1]:29377"}, "Synapse takes no address of IPv6"),
    "null": (lambda _: {"url": None}, "the registration that it reads has no url"),
    "secret": (lambda _: {"hs_token": "older"}, "its hs_token is not ours"),
    "bot": (lambda _: {"sender_localpart": "bot"}, "appservice.bot_username is"),
}
"""What is wrong in the file that Synapse reads, and what is said then."""


@pytest.fixture(scope="module")
async def registered(
    http: aiohttp.ClientSession, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Registered]:
    directory = tmp_path_factory.mktemp("mistakes")
    server = homeserver_in(directory, http)
    sound = registration(server.config)
    url = str(sound["url"])
    files: list[Path] = []
    tokens: dict[str, str] = {}
    for name, (change, _) in IN_THE_REGISTRATION.items():
        token = tokens[name] = secrets.token_hex(8)
        made = {
            "id": name,
            "as_token": token,
            "hs_token": "same",
            "sender_localpart": f"bot_{name}",
        }
        changed = {**sound, **made, **change(server.url)}
        places = {"PATH": f"{url}/x", "TLS": url.replace("http:", "https:")}
        changed["url"] = places.get(str(changed["url"]), changed["url"])
        files.append(directory / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump(changed))
    server.synapse = Synapse(server.synapse.directory, server.synapse.port, tuple(files))
    server.server = ServerProcess(server.synapse.command, is_ready(http, server.synapse.health_url))
    appservice = Appservice("same", _Nobody())
    await appservice.start("127.0.0.1", server.appservice_port)
    try:
        await server.start()
        yield Registered(server, tokens)
    finally:
        server.stop()
        await appservice.close()


async def told(config: Config) -> str:
    """What the operator reads, "" if everything is right."""
    token = config.appservice.as_token.get_secret_value()
    client = Client(config.homeserver.url, token, Pacer(1))
    try:
        await reach(client, config, "t")
    except HomeserverUnavailable as error:
        said = str(error)
    else:
        said = ""
    finally:
        await client.close()
    assert not any(secret in said for secret in (token, "same"))
    return said


def explained(sentence: str) -> None:
    """It stands in the page's table."""
    table = PAGE.read_text().partition("| it says | do |")[2].partition("\n\n")[0]
    assert f"`{sentence}" in table


@pytest.mark.parametrize("name", IN_THE_REGISTRATION)
async def test_a_mistake_in_the_registration(registered: Registered, name: str) -> None:
    says = IN_THE_REGISTRATION[name][1]
    found = await told(registered.config(name))
    assert says in found
    if not says:
        assert found == ""
        return
    explained(says)
    if name in ("port", "host", "other", "secret"):
        # It was sent to a setting of ours before, and the homeserver was said to be away.
        assert "the homeserver is there" in found
        assert "does not answer" not in found
        assert f":{registered.homeserver.appservice_port}" in found


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"appservice": {"as_token": "older"}}, "the homeserver does not know our as_token"),
        ({"appservice": {"id": "another"}}, "under another id than"),
        ({"homeserver": {"domain": "example.org"}}, "homeserver.domain is"),
        ({"homeserver": {"url": f"http://127.0.0.1:{UNUSED}"}}, "the homeserver does not answer"),
        ({"homeserver": {"url": "BASE/client"}}, "not an answer of Matrix"),
    ],
    ids=["as_token", "id", "domain", "port", "path"],
)
async def test_a_mistake_in_our_configuration(
    registered: Registered, sections: dict[str, Json], says: str
) -> None:
    sections = {
        section: {
            key: value.replace("BASE", registered.homeserver.url) for key, value in changes.items()
        }
        for section, changes in sections.items()
    }
    assert says in await told(registered.config("right", **sections))
    explained(says)


_WORKER = -1
"""One of Synapse's workers that serves something else."""


@dataclass
class Front:
    """A web server in front of the homeserver, which passes on nothing."""

    url: str
    base: str
    status: int = 404

    async def answer(self, request: web.Request) -> web.Response:
        if self.status == _WORKER:
            wrong = {"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}
            return web.json_response(wrong, status=404)
        if request.path == "/.well-known/matrix/client":
            return web.json_response({"m.homeserver": {"base_url": f"{self.base}/"}})
        headers = {"Location": f"{self.base}{request.path}"} if self.status < 400 else {}
        page = "<html>hello</html>"
        return web.Response(
            text=page, content_type="text/html", status=self.status, headers=headers
        )


@pytest.fixture
async def front(registered: Registered) -> AsyncGenerator[Front]:
    port = free_port()
    front = Front(f"http://127.0.0.1:{port}", registered.homeserver.url)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", front.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield front
    await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (404, "homeserver.url should be"),
        (200, "not an answer of Matrix"),
        (302, "homeserver.url redirects to"),
        (_WORKER, "(M_UNRECOGNIZED)"),
    ],
)
async def test_an_address_where_the_homeserver_is_not(
    registered: Registered, front: Front, status: int, says: str
) -> None:
    front.status = status
    found = await told(registered.config("right", homeserver={"url": front.url}))
    assert says in found
    assert (registered.homeserver.url in found) is (status != _WORKER)
    explained(says)
