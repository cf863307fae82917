"""A homeserver whose certificate is of an authority that the system does not know."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from mautrix.api import ClientPath, Method
from tests.builders import config_for
from tests.certificates import Certificates, certificates_in
from tests.fake_homeserver import FakeHomeserver

from letta_matrix.access.accounts import Accounts
from letta_matrix.access.route import route_to
from letta_matrix.config import Config, ConfigError
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.matrix.route import Route
from letta_matrix.matrix.watch import ServerState, look


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates_in(tmp_path_factory.mktemp("certificates"), "127.0.0.1")


@pytest.fixture
async def fake(certificates: Certificates) -> AsyncGenerator[FakeHomeserver]:
    server = FakeHomeserver()
    server.tls = certificates.server
    await server.start()
    yield server
    await server.stop()


def config_of(url: str, directory: Path, ca_file: object) -> Config:
    section = {"url": url, "domain": "test", "ca_file": ca_file}
    return config_for(directory, homeserver=section)


async def whoami(url: str, route: Route) -> dict[str, object]:
    homeserver = Homeserver(url, "as-secret", Pacer(8), route)
    try:
        path = ClientPath.v3.joined_rooms
        return await homeserver.request(Method.GET, path, user_id="@letta:test", give_up_after=0)
    finally:
        await homeserver.close()


async def test_its_authority_counts_besides_the_systems(
    fake: FakeHomeserver, certificates: Certificates
) -> None:
    folder, name = certificates.authority.parent, certificates.authority.name
    route = route_to(config_of(fake.url, folder, name))
    assert await whoami(fake.url, route)
    assert (await Accounts(fake.url, route).ask("GET", "joined_rooms"))[0] == 200
    homeserver = Homeserver(fake.url, "as-secret", Pacer(8), route)
    assert await look(homeserver) is ServerState.HERE
    await homeserver.close()


async def test_what_is_to_be_done_is_told(fake: FakeHomeserver) -> None:
    with pytest.raises(HomeserverUnavailable, match=r"not accepted: .*homeserver\.ca_file"):
        await whoami(fake.url, Route())


async def test_a_certificate_of_another_name_is_none(
    fake: FakeHomeserver, certificates: Certificates, tmp_path: Path
) -> None:
    route = route_to(config_of(fake.url, tmp_path, str(certificates.authority)))
    with pytest.raises(HomeserverUnavailable, match=r"not accepted: .*localhost") as raised:
        await whoami(fake.url.replace("127.0.0.1", "localhost"), route)
    assert "ca_file" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read: No such file"),
        ("", "certificates in PEM"),
        ("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n", "certificates in PEM"),
    ],
)
def test_a_file_without_certificates_is_a_fault(
    tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "ca.pem").write_text(text)
    with pytest.raises(ConfigError, match=rf"ca\.pem: `homeserver\.ca_file`.*{said}"):
        route_to(config_of("https://127.0.0.1:1", tmp_path, "ca.pem"))
