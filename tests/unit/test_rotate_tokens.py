"""Other tokens for homeserver and bridge, while both go on."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from mautrix.api import ClientPath, Method
from typer.testing import CliRunner

from letta_matrix.cli import rotate
from letta_matrix.cli.commands import app
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.cli.import_mappings import _import
from letta_matrix.cli.main import exit_status
from letta_matrix.common.private_files import write_private
from letta_matrix.config import load_config
from letta_matrix.config.types import secret_of
from letta_matrix.matrix.appservice import Appservice
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.pacing import Pacer

TEXT = """\
# Kept by hand.
homeserver: {{url: "{url}", domain: test}}
appservice:
  # As in the registration.
  as_token: as-old   # secret
  hs_token: "hs-old"
  {blank}
permissions: {{test: user}}
"""


@dataclass
class Gatekeeper:
    """A homeserver that knows one token; `given` are those it was asked with."""

    url: str = ""
    knows: str = "as-old"
    given: list[str] = field(default_factory=list[str])

    async def answer(self, request: web.Request) -> web.Response:
        self.given.append(request.headers["Authorization"].removeprefix("Bearer "))
        if self.given[-1] == self.knows:
            return web.json_response({"joined_rooms": [], "user_id": "@letta:test"})
        unknown = {"errcode": "M_UNKNOWN_TOKEN", "error": "Unknown access token"}
        return web.json_response(unknown, status=401)


@pytest.fixture
async def gate() -> AsyncGenerator[Gatekeeper]:
    keeper, served = Gatekeeper(), web.Application()
    served.router.add_get("/{path:.*}", keeper.answer)
    runner = web.AppRunner(served, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    keeper.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield keeper
    await runner.cleanup()


async def typed(*words: object) -> Any:
    return await asyncio.to_thread(
        CliRunner().invoke, app, ["rotate-tokens", *(str(one) for one in words)]
    )


async def test_either_token_is_used_as_long_as_the_homeserver_knows_it(gate: Gatekeeper) -> None:
    async with contextlib.AsyncExitStack() as opened:
        homeserver = Homeserver(gate.url, "as-new", Pacer(1.0), earlier_token="as-old")
        opened.push_async_callback(homeserver.close)

        async def ask() -> None:
            await homeserver.request(Method.GET, ClientPath.v3.account.whoami, give_up_after=0)

        await asyncio.gather(*(ask() for _ in range(5)))
        assert homeserver.token == "as-old"
        asked = len(gate.given)
        await ask()
        assert gate.given[asked:] == ["as-old"]
        gate.knows = "as-new"
        await asyncio.gather(*(ask() for _ in range(5)))
        assert homeserver.token == "as-new"
        gate.knows = "neither"
        with pytest.raises(HomeserverUnavailable, match="does not know our as_token"):
            await ask()


async def test_whoever_asks_the_homeserver_meanwhile_uses_either_token(
    gate: Gatekeeper, tmp_path: Path, database_file: Path
) -> None:
    """The doctor and an import as well as the bridge, before the homeserver was restarted."""
    config = tmp_path / "config.yaml"
    config.write_text(TEXT.format(url=gate.url, blank=""))
    assert (await typed("-c", config)).exit_code == 0
    settings = load_config(config, {})
    async with contextlib.AsyncExitStack() as opened:
        work = await opened.enter_async_context(_import(settings, {}))
        subject = Subject(settings, config, {})
        opened.push_async_callback(subject.close)
        for homeserver in (work._homeserver, subject.homeserver):
            await homeserver.request(Method.GET, ClientPath.v3.account.whoami, give_up_after=0)
            assert gate.given[-1] == "as-old"


async def test_both_tokens_of_the_homeserver_let_it_in(gate: Gatekeeper) -> None:
    service: Any = object()
    runner = web.AppRunner(Appservice("new", service, "old").application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/_matrix/app/v1/nothing"
    async with aiohttp.ClientSession() as http:
        for token, status in (("new", 404), ("old", 404), ("other", 403)):
            async with http.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
                assert answer.status == status
    await runner.cleanup()


async def test_tokens_are_changed_in_two_steps(gate: Gatekeeper, tmp_path: Path) -> None:
    config, registration = tmp_path / "config.yaml", tmp_path / "registration.yaml"
    config.write_text(TEXT.format(url=gate.url, blank="earlier_as_token:"))
    done = await typed("-c", config)
    assert done.exit_code == 0, done.output
    service = load_config(config, {}).appservice
    new_as, new_hs = secret_of(service.as_token), secret_of(service.hs_token)
    assert {len(new_as), len(new_hs)} == {64}
    assert secret_of(service.earlier_as_token) == "as-old"
    assert secret_of(service.earlier_hs_token) == "hs-old"
    registered = yaml.safe_load(registration.read_text())
    assert (registered["as_token"], registered["hs_token"]) == (new_as, new_hs)
    assert config.stat().st_mode & 0o777 == 0o600
    for words, why in (((), "changed already"), (("--finish",), "does not use the new tokens yet")):
        refused = await typed("-c", config, *words)
        assert why in str(refused.exception)
        assert exit_status(refused.exception) in (1, 2)
    gate.knows = new_as
    done = await typed("-c", config, "--finish")
    assert done.exit_code == 0, done.output
    wanted = TEXT.replace("  {blank}\n", "").format(url=gate.url)
    wanted = wanted.replace("as-old   # secret", f"'{new_as}'")
    assert config.read_text() == wanted.replace('"hs-old"', f"'{new_hs}'")
    assert "no earlier tokens" in str((await typed("-c", config, "--finish")).exception)


async def test_who_is_killed_between_both_files_begins_anew(
    gate: Gatekeeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, registration = tmp_path / "config.yaml", tmp_path / "registration.yaml"
    config.write_text(TEXT.format(url=gate.url, blank=""))
    written = list[Path]()

    def killed(path: Path, text: str) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write_private(path, text)

    with monkeypatch.context() as patched:
        patched.setattr(rotate, "write_private", killed)
        await typed("-c", config)
    assert written == [registration]
    done = await typed("-c", config)
    assert done.exit_code == 0, done.output
    service, registered = (
        load_config(config, {}).appservice,
        yaml.safe_load(registration.read_text()),
    )
    assert registered["as_token"] == secret_of(service.as_token)
    assert registered["hs_token"] == secret_of(service.hs_token)
    assert secret_of(service.earlier_as_token) == "as-old"


async def test_a_stack_that_is_stopped_gets_its_tokens_in_one(
    gate: Gatekeeper, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(TEXT.format(url=gate.url, blank=""))
    (tmp_path / "up.lock").touch()
    assert (await typed("--data", tmp_path)).exit_code == 0
    service = load_config(config, {}).appservice
    assert len(secret_of(service.as_token)) == 64
    assert (service.earlier_as_token, service.earlier_hs_token) == (None, None)


async def test_tokens_of_the_environment_stay_where_they_are(
    gate: Gatekeeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(TEXT.format(url=gate.url, blank=""))
    monkeypatch.setenv("LETTA_MATRIX__APPSERVICE__HS_TOKEN", "elsewhere")
    refused = await typed("-c", config)
    assert "expected one line `hs_token: ...`" in str(refused.exception)
    assert config.read_text() == TEXT.format(url=gate.url, blank="")
    assert [*tmp_path.iterdir()] == [config]
