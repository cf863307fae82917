"""`letta-matrix doctor` on a real Synapse and App Server: what it says when all is well, and when
one thing is really wrong."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from aiohttp import web
from tests.certificates import certificates_in
from tests.fake_app_server import FakeAppServer
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.integration.bridge_world import Json, Person, lay_database, new_agent, settings_on
from tests.servers import Homeserver, LettaServer, free_port, keeper_in
from tests.waiting import Clock, eventually, within

from letta_matrix.app.bridge import Bridge
from letta_matrix.app.logs import secrets_of
from letta_matrix.cli.doctor.catalogue import CHECKS
from letta_matrix.cli.doctor.examination import examine
from letta_matrix.cli.doctor.finding import Finding, Mark, exit_status
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.cli.overview import report_of
from letta_matrix.common.identifiers import user_id
from letta_matrix.config import Config
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.stack.registration import registration
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.database import Database, database_url

FAKE: Json = {"as_token": "as-secret-token", "hs_token": "hs-secret-token"}
TEST: Json = {"domain": "test"}


class Ward:
    """Where configurations with faults in them are examined."""

    def __init__(self, homeserver: Homeserver, person: Person, directory: Path) -> None:
        self.homeserver, self.person, self.directory = homeserver, person, directory

    def config(self, **sections: Any) -> Config:
        """What a sound one says, with changes."""
        runtimes = {"runtimes": [{"type": "memory"}], **sections}
        values = settings_on(self.homeserver, self.person, **runtimes)
        return Config.model_validate({**values, "directory": self.directory})

    async def findings(
        self, *names: str, environment: Json | None = None, **sections: Any
    ) -> list[Finding]:
        """Of these checks, or of all."""
        return await examined(self.config(**sections), names, environment)

    async def wrong(self, name: str, *needs: str, **sections: Any) -> Finding:
        """The one thing that a check finds to be wrong, once those that it needs are well."""
        found = await self.findings(*needs, name, **sections)
        wrong = [one for one in found if one.mark is not Mark.OK]
        assert len(wrong) == 1, found
        assert wrong[0].name == name
        assert wrong[0].shows
        return wrong[0]


async def examined(
    config: Config, names: Sequence[str] = (), environment: Json | None = None
) -> list[Finding]:
    """What is found, in which no secret may be."""
    path = config.directory / "config.yaml"
    subject = Subject(config, path, environment or {}, await report_of(config))
    try:
        checks = [one for one in CHECKS if not names or one.name in names]
        assert {*names} <= {one.name for one in checks}
        found = [one async for one in examine(subject, checks)]
    finally:
        await subject.close()
    assert not [s for s in secrets_of(config) for one in found if s in f"{one}"]
    return found


@pytest.fixture
async def ward(homeserver: Homeserver, ann: Person, tmp_path: Path) -> Ward:
    tmp_path.chmod(0o700)
    await lay_database(homeserver, tmp_path)
    return Ward(homeserver, ann, tmp_path)


@asynccontextmanager
async def fake_homeserver(**attributes: Any) -> AsyncGenerator[FakeHomeserver]:
    """One that answers as Synapse does."""
    fake = FakeHomeserver()
    for name, value in attributes.items():
        setattr(fake, name, value)
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()


async def test_nothing_is_wrong(ward: Ward, app_server: LettaServer, tmp_path: Path) -> None:
    runtimes = [{"type": "app_server", "url": app_server.url}]
    config = ward.config(runtimes=runtimes)
    file = tmp_path / "registration.yaml"
    file.write_text(yaml.safe_dump(registration(config)))
    file.chmod(0o600)
    found = await examined(config)
    assert [one for one in found if one.mark is not Mark.OK] == []
    said = {one.name: one.says for one in found}
    assert said.keys() >= {one.name for one in CHECKS} - {"runtimes"}
    assert said["homeserver version"].startswith("Synapse 1.")
    assert f":{ward.homeserver.appservice_port}, and we reach it" in said["reachability"]
    assert said["registration file"].endswith("is as config.yaml says")
    assert "files go there and come back, of up to" in said["media"]
    assert said["runtime local"].startswith("App Server 0.")
    assert "tools ask: strict" in said["runtime local"]
    # No keeper was needed for that, and nothing was left.
    assert not (tmp_path / "keeper.sock").exists()


@pytest.mark.parametrize(
    ("changes", "check", "says"),
    [
        (
            {"as_token": "unknown-to-it"},
            "registration",
            "the homeserver does not know our as_token",
        ),
        ({"id": "another"}, "reachability", "under another id than"),
        ({"hs_token": "another-one"}, "reachability", "its hs_token is not ours"),
        ({"port": "FREE"}, "reachability", "Nobody listens there, as seen from the homeserver"),
        ({"bot_username": "letta_other"}, "registration", "appservice.bot_username is letta_other"),
    ],
    ids=["not loaded", "id", "hs_token", "unreachable", "bot"],
)
async def test_a_fault_between_the_homeserver_and_us(
    ward: Ward, changes: Json, check: str, says: str
) -> None:
    changes = {key: free_port() if value == "FREE" else value for key, value in changes.items()}
    needs = ["homeserver", "registration"][: 1 if check == "registration" else 2]
    wrong = await ward.wrong(check, *needs, appservice=changes)
    assert says in wrong.says
    assert wrong.mark is Mark.TROUBLE
    assert wrong.remedy


async def test_namespaces_that_are_not_ours(ward: Ward) -> None:
    other = yaml.safe_load(ward.homeserver.irc_registration.read_text())
    tokens = {key: other[key] for key in ("id", "as_token", "hs_token")}
    changes = {**tokens, "bot_username": other["sender_localpart"]}
    wrong = await ward.wrong("registration", "homeserver", appservice=changes)
    assert wrong.says.endswith("@agent_..., #agent_..., @letta_..., #letta_...")


async def test_the_port_is_taken(ward: Ward) -> None:
    runner = web.AppRunner(web.Application(), access_log=None)
    await runner.setup()
    port = ward.homeserver.appservice_port
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    try:
        found = await ward.findings("ports", "homeserver", "registration", "reachability")
    finally:
        await runner.cleanup()
    taken, *others, unknown = found
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in taken.says
    assert f"grep :{port}" in taken.remedy
    assert {one.mark for one in others} == {Mark.OK}
    assert unknown.mark is Mark.UNKNOWN
    assert exit_status(found) == 1


async def test_another_program_or_a_proxy_is_in_the_way(ward: Ward) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>Sign in</html>", content_type="text/html")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    url = f"http://127.0.0.1:{port}"
    try:
        wrong = await ward.wrong("homeserver", homeserver={"url": url})
    finally:
        await runner.cleanup()
    assert "not an answer of Matrix: HTTP 200 with text/html" in wrong.says


async def test_http_is_written_for_https(ward: Ward, tmp_path: Path) -> None:
    made = certificates_in(tmp_path, "127.0.0.1")
    async with fake_homeserver(tls=made.server) as fake:
        plain = fake.url.replace("https:", "http:")
        wrong = await ward.wrong("homeserver", homeserver={"url": plain})
    assert (wrong.says.endswith("wants TLS"), wrong.remedy.endswith(fake.url)) == (True, True)


async def test_https_is_written_for_http(ward: Ward, clock: Clock) -> None:
    greeted = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As Synapse, which takes the first words of TLS for the beginning of a long line."""
        if (await reader.read(1)).isalpha():
            body = b'{"versions": ["v1.12"]}'
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        else:
            greeted.set()
            while await reader.read(1_000):
                pass
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        section = {"url": f"https://127.0.0.1:{port}"}
        examining = asyncio.create_task(ward.wrong("homeserver", homeserver=section))
        await within(greeted.wait())
        clock.stop()
        clock.advance(6)
        wrong = await examining
    assert wrong.says.endswith("has no TLS")
    assert f"http://127.0.0.1:{port}" in wrong.remedy


async def test_a_certificate_has_expired_or_is_of_nobody_known(ward: Ward, tmp_path: Path) -> None:
    made = certificates_in(tmp_path, "127.0.0.1", days=-3)
    async with fake_homeserver(tls=made.server) as fake:
        section = {"url": fake.url, "ca_file": str(made.authority)}
        expired, away = await ward.findings("TLS", "homeserver", homeserver=section)
    assert "has expired on 2" in expired.says
    assert "its certificate is not accepted: certificate has expired" in away.says
    made = certificates_in(tmp_path, "127.0.0.1")
    async with fake_homeserver(tls=made.server) as fake:
        wrong = await ward.wrong("TLS", homeserver={"url": fake.url})
        assert "homeserver.ca_file" in wrong.remedy
        section = {"url": fake.url, "ca_file": str(made.authority)}
        soon = await ward.wrong("TLS", homeserver=section)
    assert (soon.mark, "expires within two days" in soon.says) == (Mark.WARNING, True)


async def test_clocks_are_apart(ward: Ward) -> None:
    async with fake_homeserver() as fake:
        fake.headers["Date"] = formatdate(0, usegmt=True)
        section = {"url": fake.url, **TEST}
        wrong = await ward.wrong("clock", "homeserver", homeserver=section, appservice=FAKE)
    assert "this machine's clock is" in wrong.says
    assert "days ahead of the homeserver's" in wrong.says


async def test_media_is_off(ward: Ward) -> None:
    async with fake_homeserver() as fake:
        off = Fault(404, {"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"})
        fake.fail("media/v3/upload", off)
        section = {"url": fake.url, **TEST}
        needs = ("homeserver", "registration")
        wrong = await ward.wrong("media", *needs, homeserver=section, appservice=FAKE)
    assert "no media repository" in wrong.says


async def test_a_database_that_cannot_be_written(ward: Ward) -> None:
    file = ward.directory / "letta-matrix.db"
    with file.open("r+b") as raw:
        # Its format's version for writing (SQLite, "Database File Format", 1.3.3): one that
        # nobody can write, though they are root.
        raw.seek(18)
        raw.write(b"\3")
    wrong = await ward.wrong("database")
    assert "attempt to write a readonly database" in wrong.says
    assert "has to own it" in wrong.remedy


async def test_a_database_of_a_later_version_and_a_damaged_one(ward: Ward) -> None:
    file = ward.directory / "letta-matrix.db"
    with sqlite3.connect(file) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    assert "newer letta-matrix (schema 9999" in (await ward.wrong("database")).says
    file.write_bytes(b"no database at all" * 100)
    assert "file is not a database" in (await ward.wrong("database")).says


async def test_runtimes_that_refuse_us_or_are_away(ward: Ward) -> None:
    async with FakeAppServer(token="the right token") as server:
        runtime: Json = {"type": "app_server", "url": server.url, "token": "a wrong token"}
        (refused,) = await ward.findings("runtimes", runtimes=[runtime])
    assert refused.name == "runtime local"
    assert "HTTP 401 at ws://" in refused.says
    assert "check the runtime's `token`" in refused.says
    away = {**runtime, "url": f"ws://127.0.0.1:{free_port()}", "permission_mode": "unrestricted"}
    other = {"type": "letta_api", "name": "old", "url": f"http://127.0.0.1:{free_port()}"}
    found = await ward.findings("runtimes", runtimes=[away, other])
    assert [one.mark for one in found] == [Mark.TROUBLE, Mark.WARNING, Mark.TROUBLE]
    assert "cannot be reached: " in found[0].says
    assert "unrestricted: all runs without asking" in found[1].says


async def test_a_keeper_whose_secret_is_none(ward: Ward) -> None:
    with keeper_in(ward.directory) as socket:
        key = socket.with_name(f"{socket.name}.key")
        key.write_text("x" * 40)
        key.chmod(0o644)
        wrong = await ward.wrong("keeper", runtimes=[{"type": "app_server"}])
    assert "can be read by others" in wrong.says


async def test_the_phones_bridge_is_not_there(ward: Ward) -> None:
    api = {"url": f"http://127.0.0.1:{free_port()}", "secret": "provisioning-secret"}
    needs = ("homeserver", "registration", "other networks")
    *_, bot, phone = await ward.findings(
        *needs, sms={"bot": "@nobody:localhost", "provisioning": api}
    )
    assert "there is no @nobody:localhost on the homeserver" in bot.says
    assert "cannot be reached" in phone.says
    assert {bot.name, phone.name} == {"network sms"}


async def test_an_agent_without_power_and_one_without_room(ward: Ward, ann: Person) -> None:
    weak, lost = new_agent("Weak"), new_agent("Lost")
    ghost = user_id(weak.agent_id, "localhost")
    as_ghost = Person(ann.http, ann.url, ghost, ward.homeserver.as_token, as_user=ghost)
    account = {"type": "m.login.application_service", "username": ghost[1:].split(":")[0]}
    await as_ghost.call("POST", "/register", {**account, "inhibit_login": True})
    _, made = await ann.call("POST", "/createRoom", {"invite": [ghost]})
    await as_ghost.call("POST", f"/rooms/{quote(made['room_id'])}/join", {})
    database = Database(database_url(ward.config().database.url, ward.directory))
    await database.open()
    directory = await AgentDirectory(database).load()
    rooms = {weak: made["room_id"], lost: "!gone:localhost"}
    await directory.reserve(
        [
            Agent(one.agent_id, "memory", one.name, user_id(one.agent_id, "localhost"), "", room)
            for one, room in rooms.items()
        ]
    )
    await database.close()
    needs = ("homeserver", "registration", "rooms")
    *_, out, powerless = await ward.findings(*needs)
    assert (out.mark, out.says.endswith("shut out of them: Lost")) == (Mark.TROUBLE, True)
    assert (powerless.mark, powerless.says.endswith("rooms: Weak")) == (Mark.WARNING, True)


async def test_a_running_bridge_and_the_doctor_say_the_same(ward: Ward) -> None:
    config = ward.config(appservice={"hs_token": "another-one"})
    bridge = Bridge(config, [MemoryRuntime()])
    await bridge.start()
    try:
        trouble = await eventually(
            lambda: bridge.connection.trouble, lambda one: one and "hs_token" in one.says
        )
        assert trouble is not None
        found = await examined(config)
    finally:
        await bridge.close()
    said = {one.name: one for one in found}
    assert said["bridge"].says.startswith("it runs: ")
    assert said["ports"].says.startswith("the bridge has them")
    (told,) = [one for one in found if one.says == trouble.says]
    assert (told.name, told.mark) == ("homeserver", Mark.TROUBLE)
    assert told.remedy == trouble.remedy != ""
    # It is there, so that what needs it was looked at.
    assert said["media"].mark is Mark.OK
    assert exit_status(found) == 1


async def test_proxies_of_the_environment(ward: Ward) -> None:
    remote = [{"type": "letta_api", "url": "https://letta.example.org"}]
    environment = {"HTTPS_PROXY": "http://me:pass-word@proxy:3128", "PATH": os.environ["PATH"]}
    (found,) = await ward.findings("proxies", environment=environment, runtimes=remote)
    assert found.says.startswith("https://letta.example.org is asked through HTTPS_PROXY")
    assert "pass-word" not in found.says
