"""Faults really made, in files and in servers on this machine, and what the doctor says of them."""

import shutil
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from aiohttp import web
from tests.builders import config_for
from tests.unit.test_doctor_command import examined

from letta_matrix.cli.doctor import abilities, portals, settings, storage, well_known
from letta_matrix.cli.doctor.check import Check
from letta_matrix.cli.doctor.finding import Finding, Mark
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.stack.registration import registration

WARNING, TROUBLE, OK = Mark.WARNING, Mark.TROUBLE, Mark.OK


@asynccontextmanager
async def serving(answers: Mapping[str, object]) -> AsyncGenerator[str]:
    """A server that answers paths with JSON, and 404 to all others; its URL."""

    async def answer(request: web.Request) -> web.Response:
        if request.path not in answers:
            return web.json_response({"errcode": "M_NOT_FOUND", "error": "?"}, status=404)
        return web.json_response(answers[request.path])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def only(directory: Path, one: Check, **sections: Any) -> Finding:
    directory.chmod(0o700)
    (found,) = await examined(directory, [one], **sections)
    assert found.mark is OK or (found.remedy and found.shows)
    return found


def write_registration(directory: Path, **changes: Any) -> None:
    file = directory / "registration.yaml"
    file.write_text(yaml.safe_dump(registration(config_for(directory)) | changes))
    file.chmod(0o600)


async def test_agents_are_slowed_down(tmp_path: Path) -> None:
    write_registration(tmp_path)
    assert (await only(tmp_path, settings.rate_limits)).mark is OK
    write_registration(tmp_path, rate_limited=True)
    found = await only(tmp_path, settings.rate_limits)
    assert (found.mark, "lets the homeserver limit" in found.says) == (WARNING, True)


@pytest.mark.parametrize("changes", [{"hs_token": "x"}, {"namespaces": {}}, {"url": "http://a"}])
async def test_a_registration_that_is_another_one(changes: dict[str, Any], tmp_path: Path) -> None:
    write_registration(tmp_path, **changes)
    found = await only(tmp_path, settings.registration_file)
    (key,) = changes
    assert (found.mark, key in found.says, "secret" in found.says) == (TROUBLE, True, False)


async def test_a_registration_that_asks_for_encryption(tmp_path: Path) -> None:
    write_registration(tmp_path, **{"org.matrix.msc3202": True})
    found = await only(tmp_path, settings.encryption_flags)
    assert (found.mark, "org.matrix.msc3202" in found.says) == (WARNING, True)


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


async def test_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> _Usage:
        return _Usage(10**10, 10**10 - 4096, 4096)

    monkeypatch.setattr(shutil, "disk_usage", full)
    found = await only(tmp_path, storage.disk)
    assert (found.mark, found.remedy) == (TROUBLE, "make room there")
    assert "are left where the database is" in found.says


async def test_sign_in_is_with_another_service(tmp_path: Path) -> None:
    """As a Synapse with MAS has it: no passwords, and metadata of who issues tokens (MSC2965)."""
    issuer = "https://auth.example.org/"
    mas = {
        "/_matrix/client/v3/login": {"flows": [{"type": "m.login.sso"}]},
        "/_matrix/client/v1/auth_metadata": {"issuer": issuer},
    }
    async with serving(mas) as url:
        home = {"url": url, "domain": "test"}
        found = await only(tmp_path, abilities.sign_in, homeserver=home)
        assert found.mark is OK
        assert f"({issuer}); the bridge needs nothing" in found.says
        admin = {"admin_username": "@boss:test", "admin_password": "a-secret"}
        found = await only(tmp_path, abilities.sign_in, homeserver=home | admin)
    assert (found.mark, "homeserver.admin_username" in found.says) == (WARNING, True)
    assert "a-secret" not in f"{found}"


async def test_the_servers_name_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, object] = {}
    async with serving(told) as url:
        # Else it is asked at port 443 of the name, with TLS.
        def its_name(subject: Subject) -> str:
            return url

        def kept(subject: Subject, value: str) -> None:
            assert value == "https://test"

        def away(_: str) -> bool:
            return False

        monkeypatch.setattr(Subject, "well_known", property(its_name, kept), raising=False)
        monkeypatch.setattr(well_known, "is_here", away)
        assert (await only(tmp_path, well_known.well_known)).mark is OK
        told["/.well-known/matrix/client"] = {"m.homeserver": {"base_url": url}}
        found = await only(tmp_path, well_known.well_known)
        assert (found.mark, "where no homeserver answers" in found.says) == (WARNING, True)
        told["/_matrix/client/versions"] = {"versions": ["v1.12"]}
        found = await only(tmp_path, well_known.well_known)
        assert (found.mark, "no header Access-Control" in found.says) == (WARNING, True)


@pytest.mark.parametrize(
    ("state", "mark", "says"),
    [
        ({"state_event": "CONNECTED"}, OK, "1 phone paired"),
        ({"state_event": "BACKFILLING"}, OK, "1 phone paired"),
        ({"state_event": "TRANSIENT_DISCONNECT"}, OK, "1 phone paired"),
        ({"state_event": "BAD_CREDENTIALS"}, TROUBLE, "is not paired with its bridge any more"),
        (
            {"state_event": "UNKNOWN_ERROR", "error": "gm-phone-not-responding"},
            TROUBLE,
            "does not answer its bridge",
        ),
        (None, TROUBLE, "no phone is paired with the line"),
    ],
)
async def test_how_the_phone_is(
    state: dict[str, str] | None, mark: Mark, says: str, tmp_path: Path
) -> None:
    logins = [{"id": "1", "name": "Pixel", "state": state}] if state else []
    bot = "@gmessagesbot:test"
    whoami = {"bridge_bot": bot, "homeserver": "test", "logins": logins}
    answers = {
        "/_matrix/provision/v3/whoami": whoami,
        f"/_matrix/client/v3/profile/{bot}": {},
    }
    async with serving(answers) as url:
        sms = {"bot": bot, "provisioning": {"url": url, "secret": "provisioning-secret"}}
        home = {"url": url, "domain": "test"}
        there, phone = await examined(tmp_path, [portals.bridges], homeserver=home, sms=sms)
    assert there.mark is OK
    assert (phone.mark, says in phone.says) == (mark, True), phone
    assert phone.mark is OK or (phone.remedy and phone.shows)
